"""Deliveries of every shape, for the tests that hold for all of them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from integration.core.model import DeliveryRequest
from integration.fhir.bundle import read
from integration.fhir.entries import Contents

TYPES = ("Patient", "Observation", "Encounter")

# Shapes of entries to which no link can point.
UNLINKABLE = ("read", "search", "conditional-patch", "delete", "conditional-delete")


def make_urn(number: int) -> str:
    """The placeholder that senders of these tests use for their entry `number`."""
    return f"urn:uuid:0b6d3d3e-9c4b-4a53-8f1f-{number:012d}"


def make_resource(type_: str, links: list[str], padding: int, number: int) -> dict[str, Any]:
    """A resource that refers to `links` and is `padding` bytes longer than it must be."""
    return {
        "resourceType": type_,
        "note": f"{number} " + "x" * padding,
        "value": {"reference": f"#{number}"},
        "refers": [{"reference": link} for link in links],
    }


@st.composite
def bundles(
    draw: st.DrawFn,
    kind: str | None = None,
    max_entries: int = 14,
    paddings: tuple[int, ...] = (0, 300),
) -> dict[str, Any]:
    """A sound batch or transaction: any methods, any graph of references, circles included."""
    kind = kind or draw(st.sampled_from(["transaction", "batch"]))
    shapes = ["create", "create", "update", "delete", "if-none-exist", "conditional-update"]
    shapes += ["patch", "read", "search", "conditional-patch"]
    shapes += ["conditional-delete"] if kind == "batch" else []
    count = draw(st.integers(1, max_entries))
    chosen = draw(st.lists(st.sampled_from(shapes), min_size=count, max_size=count))
    entries = []
    for number, shape in enumerate(chosen):
        type_ = draw(st.sampled_from(TYPES))
        # A batch may touch a resource again; a transaction must not.
        name = str(draw(st.integers(0, 3)) if kind == "batch" else number)
        targets = draw(st.lists(st.integers(0, count - 1), max_size=3, unique=True))
        named = [target for target in targets if chosen[target] not in UNLINKABLE]
        links = [make_urn(target) for target in named if target != number]
        body = make_resource(type_, links, draw(st.sampled_from(paddings)), number)
        if "patch" in shape:
            body = make_patch(body)
        request = {
            "patch": {"method": "PATCH", "url": f"{type_}/{name}"},
            "read": {"method": draw(st.sampled_from(["GET", "HEAD"])), "url": f"{type_}/{name}"},
            "search": {"method": "GET", "url": f"{type_}?identifier={number}"},
            "conditional-patch": {"method": "PATCH", "url": f"{type_}?identifier={number}"},
            "conditional-delete": {"method": "DELETE", "url": f"{type_}?identifier={number}"},
            "create": {"method": "POST", "url": type_},
            "update": {"method": "PUT", "url": f"{type_}/{name}"},
            "delete": {"method": "DELETE", "url": f"{type_}/{name}"},
            "if-none-exist": {
                "method": "POST",
                "url": type_,
                "ifNoneExist": f"identifier={number}",
            },
            "conditional-update": {"method": "PUT", "url": f"{type_}?identifier={number}"},
        }[shape]
        entry = {"fullUrl": make_urn(number), "request": request}
        bare = shape in ("delete", "conditional-delete", "read", "search")
        entries.append(entry if bare else {**entry, "resource": body})
    return {"resourceType": "Bundle", "type": kind, "entry": entries}


def make_patch(body: dict[str, Any]) -> dict[str, Any]:
    """A FHIRPath patch that brings the same links."""
    return {**body, "resourceType": "Parameters", "parameter": [{"name": "operation"}]}


@st.composite
def collections(draw: st.DrawFn) -> dict[str, Any]:
    """A bundle without requests: some resources the same again, links by placeholder and id."""
    kind = draw(st.sampled_from(["collection", "searchset", "message"]))
    count = draw(st.integers(1, 12))
    entries = [{"resource": {"resourceType": "MessageHeader"}}] if kind == "message" else []
    for number in range(len(entries), count + len(entries)):
        targets = draw(st.sets(st.integers(0, count - 1), max_size=3)) - {number}
        links = [make_urn(target) for target in targets if target >= len(entries) or not entries]
        type_ = draw(st.sampled_from(TYPES))
        body = make_resource(type_, [], draw(st.sampled_from([0, 300])), number)
        body["refers"] = [{"reference": link} for link in links]
        if draw(st.booleans()):
            body["id"] = str(draw(st.integers(0, 3)))
        entries.append({"fullUrl": make_urn(number), "resource": body})
    return {"resourceType": "Bundle", "type": kind, "entry": entries}


@st.composite
def ndjson(draw: st.DrawFn) -> bytes:
    """Lines of resources, some of them bad, some of them the same again."""
    lines = []
    for number in range(draw(st.integers(1, 12))):
        type_, name = draw(st.sampled_from(TYPES)), draw(st.integers(0, 3))
        links = [f"{draw(st.sampled_from(TYPES))}/{n}" for n in draw(st.sets(st.integers(0, 3)))]
        body = make_resource(type_, links, draw(st.sampled_from([0, 300])), number)
        if draw(st.booleans()):
            body["id"] = str(name)
        bad = number and draw(st.integers(0, 9)) == 0
        lines.append(b"no JSON" if bad else json.dumps(body).encode())
    return b"\n".join(lines)


def read_contents(bundle: dict[str, Any]) -> Contents:
    """The bundle, read as intake reads it."""
    return read(json.dumps(bundle).encode(), DeliveryRequest("POST"))


def read_lines(body: bytes) -> Contents:
    """The NDJSON, read as intake reads it."""
    return read(body, DeliveryRequest("POST", format="ndjson"))


def deliveries(kind: str | None = None) -> st.SearchStrategy[Contents]:
    """Whatever may be planned; of one kind, if one is named."""
    if kind in ("transaction", "batch"):
        return bundles(kind).map(read_contents)
    if kind == "ndjson":
        return ndjson().map(read_lines)
    if kind == "collection":
        return collections().map(read_contents)
    strategies = (
        bundles().map(read_contents),
        ndjson().map(read_lines),
        collections().map(read_contents),
    )
    return st.one_of(*strategies)
