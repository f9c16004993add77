"""What a delivery asks for, read from the specification and not from the relay.

A server like Azure's does less with a bundle than the specification asks of it. Here is the rest,
for a comparison with what such a server has made of the same bundle.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from tests.equivalence.graphs import linked

Body = dict[str, Any]

NDJSON = "ndjson"
RESOURCE = "resource"
REQUESTS = ("batch", "transaction")

# What the server takes at once, and the local one too.
MOST = 500

_REFERENCE = re.compile(rb'"reference"\s*:\s*"[A-Z][A-Za-z]+\?')
_ROOT = re.compile(r"(https?://.+/)[A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64}")
_VERSION = re.compile(r"(.*?)(/_history/[A-Za-z0-9\-.]+)?(#.*)?")


@dataclass(frozen=True)
class Sent:
    """What a file holds. `kind`: the type of the bundle, or resource or ndjson; None: no FHIR.
    What is no bundle is an entry itself, and so is a document: it is kept whole."""

    name: str
    body: bytes
    kind: str | None
    entries: list[Body]

    @property
    def requests(self) -> bool:
        """A FHIR server takes it as it is."""
        return self.kind in REQUESTS

    @property
    def refers(self) -> bool:
        """It refers to what other bundles bring."""
        return self.requests and _REFERENCE.search(self.body) is not None

    @property
    def serves(self) -> bool:
        """It brings what other bundles refer to."""
        return self.kind == "batch" and b'"ifNoneExist"' in self.body


def sent(name: str, body: bytes) -> Sent:
    """A file, unpacked already."""
    if name.endswith(".ndjson"):
        lines = [{"resource": json.loads(line)} for line in body.splitlines() if line.strip()]
        return Sent(name, body, NDJSON, lines)
    try:
        found = json.loads(body)
    except ValueError:
        return Sent(name, body, None, [])
    if not isinstance(found, dict) or "resourceType" not in found:
        return Sent(name, body, None, [])
    kind = str(found.get("type")) if found["resourceType"] == "Bundle" else RESOURCE
    if kind in (RESOURCE, "document"):
        return Sent(name, body, kind, [{"resource": found}])
    return Sent(name, body, kind, found.get("entry", []))


def by_identity(kind: str, entry: Body, index: Index) -> tuple[str, Body] | int:
    """(address, resource) of an entry that is no request: it is kept under its own id, if it has
    one. Or the status of what is not kept: it says something of the bundle itself (204), it is
    not there, or it refers to an entry that is not there (422)."""
    resource = entry.get("resource", {})
    type_ = resource.get("resourceType")
    status = kind == "history" and entry["request"]["url"].endswith("$status")
    outcome = type_ == "OperationOutcome" or entry.get("search", {}).get("mode") == "outcome"
    if status or (kind == "searchset" and outcome):
        return 204
    urns = [each for each in _references(resource) if each[:4].lower() == "urn:"]
    lost = any(index.meant(urn, entry) is None for urn in urns)
    # A bundle inside has entries of its own, and a line of NDJSON has no others beside it.
    if type_ is None or (lost and type_ != "Bundle" and kind != NDJSON):
        return 422
    return "/".join(filter(None, (type_, resource.get("id")))), resource


def mended(bundle: Sent) -> bytes:
    """As the relay corrects what senders get wrong, where only one thing can be meant: a resource
    without the id of its address, `Type?` before the condition of a create, and what a server sets
    itself, which may be no instant."""
    entries = []
    for entry in bundle.entries:
        request, resource = dict(entry["request"]), entry.get("resource")
        type_, _, identifier = request["url"].partition("/")
        if request["method"] == "PUT" and identifier and resource:
            resource = {**resource, "id": resource.get("id", identifier)}
        if isinstance(resource, dict) and "meta" in resource:
            names = resource["meta"].keys() - {"versionId", "lastUpdated"}
            resource = {**resource, "meta": {name: resource["meta"][name] for name in names}}
        if "ifNoneExist" in request:
            request["ifNoneExist"] = request["ifNoneExist"].removeprefix(f"{type_}?")
        entries.append({**entry, "request": request, "resource": resource})
    return _bundle(str(bundle.kind), entries)


def in_parts(bundle: Sent) -> Iterator[bytes]:
    """What is above the server's limit, as batches: nothing holds the entries of a batch together,
    and nothing those of a transaction whose creates have got their ids, and all links with them.
    Text is replaced here, which is safe as long as every placeholder is a UUID of its own."""
    entries = bundle.entries
    if bundle.kind == "transaction":
        text = json.dumps(entries)
        for entry in entries:
            assert entry["request"] == {"method": "POST", "url": entry["resource"]["resourceType"]}
            assert entry["fullUrl"].startswith("urn:uuid:")
            place = f"{entry['request']['url']}/{uuid4()}"
            text = text.replace(f'"{entry["fullUrl"]}"', f'"{place}"')
        entries = [_put(entry) for entry in json.loads(text)]
    for start in range(0, len(entries), MOST):
        yield _bundle("batch", entries[start : start + MOST])


def _put(entry: Body) -> Body:
    resource = {**entry["resource"], "id": entry["fullUrl"].partition("/")[2]}
    return {"resource": resource, "request": {"method": "PUT", "url": entry["fullUrl"]}}


def _bundle(kind: str, entries: Sequence[Body]) -> bytes:
    return json.dumps({"resourceType": "Bundle", "type": kind, "entry": entries}).encode()


def chosen(entries: Sequence[Body]) -> set[str]:
    """Type/id that the sender gave: all others are made up on the way."""
    return {name for name in map(_chosen, entries) if name}


def _chosen(entry: Body) -> str | None:
    resource = entry.get("resource") or {}
    if "request" in entry and entry["request"].get("method") == "POST":
        return None
    return f"{resource.get('resourceType')}/{resource['id']}" if "id" in resource else None


def following(
    stored: Mapping[str, Body], entries: Sequence[Body], places: Sequence[str | None]
) -> tuple[dict[str, Body], int]:
    """What is stored, with each link leading to the entry that the specification says it means;
    and how many did not before. `places`: the Type/id that became of each entry."""
    index, count = Index(entries), 0
    followed = dict(stored)
    for entry, place in zip(entries, places, strict=True):
        resource = dict(followed.get(place or "", {}))
        # A bundle inside is kept as it is: its links are its own.
        if place is None or resource.get("resourceType") in (None, "Bundle"):
            continue

        def link(written: str, entry: Body = entry) -> str:
            nonlocal count
            meant = index.meant(written, entry)
            name = places[meant[0]] if meant else None
            if meant is None or name is None or written == name + meant[1]:
                return written
            count += 1
            return name + meant[1]

        # The canonical url of a definition is its name, and no link.
        own = {"url": resource.pop("url")} if "url" in resource else {}
        followed[place] = linked(resource, link) | own
    return followed, count


class Index:
    """The entries of a bundle by what links may call them."""

    def __init__(self, entries: Sequence[Body]) -> None:
        self.urls: dict[str, int] = {}
        self.names: dict[str, list[int]] = {}
        for number, entry in enumerate(entries):
            if isinstance(entry.get("fullUrl"), str):
                self.urls[_folded(entry["fullUrl"])] = number
            resource = entry.get("resource") or {}
            name = f"{resource.get('resourceType')}/{resource.get('id')}"
            self.names.setdefault(name, []).append(number)

    def meant(self, link: str, container: Body) -> tuple[int, str] | None:
        """The entry, and what comes after its address: https://hl7.org/fhir/R4/bundle.html#references"""
        found = _VERSION.fullmatch(link)
        if not found or not found[1]:
            return None
        number = self.urls.get(_folded(found[1]))
        root = _ROOT.fullmatch(str(container.get("fullUrl")))
        if number is None and root:
            number = self.urls.get(root[1] + found[1])
        if number is None and len(self.names.get(found[1], [])) == 1:
            (number,) = self.names[found[1]]  # the specification leaves this open
        return None if number is None else (number, (found[2] or "") + (found[3] or ""))


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("reference"), str):
            yield node["reference"]
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from _references(each)


def _folded(url: str) -> str:
    return url.lower() if url.lower().startswith("urn:uuid:") else url
