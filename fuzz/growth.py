"""Shapes that would take more than linear time, if anything did: each in growing sizes."""

from __future__ import annotations

import gc
import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from fuzz.cases import Case
from fuzz.seeds import JSON, LINES
from fuzz.trial import BROKEN, Verdict, tried
from integration.core.model import DEFAULT_POLICY
from integration.fhir.units import Limits
from integration.intake.http_request import IncomingRequest

# Of a shape, in parts.
SIZES = (250, 1_000, 4_000, 16_000)

# Linear is 1: by how much more than its bytes the time of a shape may grow in one step. What takes
# no time is not looked at.
_MOST = 2.5
_FLOOR, _LEAST = 0.2, 0.01

# A size is left out where the one before took so long already.
_ENOUGH = 1.5

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Grown:
    """A shape of so many parts and bytes, and how long it took."""

    parts: int
    size: int
    verdict: Verdict

    @property
    def seconds(self) -> float:
        return self.verdict.seconds


@dataclass(frozen=True, slots=True)
class Growth:
    """A shape in its sizes."""

    name: str
    steps: Sequence[Grown]

    @property
    def broken(self) -> list[str]:
        """What went wrong otherwise."""
        return [step.verdict.why for step in self.steps if step.verdict.end == BROKEN]

    @property
    def too_fast(self) -> bool:
        """Whether the time grew by far more than the bytes, in one of the steps."""
        return any(
            after.seconds
            > max(_FLOOR, _MOST * max(before.seconds, _LEAST) * after.size / before.size)
            for before, after in pairwise(self.steps)
        )

    def __str__(self) -> str:
        times = " ".join(f"{step.parts}={step.seconds:.3f}" for step in self.steps)
        told = "too fast; " * self.too_fast + "; ".join(self.broken)
        return f"growth of {self.name} (parts=seconds): {times} {told}".rstrip()


def growths(sizes: Sequence[int] = SIZES) -> Iterator[Growth]:
    """Every shape in these sizes."""
    for name, shape in SHAPES.items():
        steps: list[Grown] = []
        for parts in sizes:
            if steps and steps[-1].seconds > _ENOUGH:
                break
            gc.collect()  # what the last one has left is not this one's time
            body = shape(parts)
            steps.append(Grown(parts, len(body), tried(_case(name, body))))
        yield Growth(name, steps)


def _case(name: str, body: bytes) -> Case:
    headers = {"content-type": LINES if name.startswith("lines") else JSON}
    if body.startswith(b"\x1f\x8b"):
        headers["content-encoding"] = "gzip"
    ask = IncomingRequest("POST", None, None, headers, body)
    return Case(1, name, ask, Limits(), DEFAULT_POLICY, "version", False, b"", max_bytes=50_000_000)


def _urn(number: int) -> str:
    return f"urn:uuid:00000000-0000-4000-8000-{number:012x}"


def _bundle(kind: str, entries: Sequence[Body]) -> bytes:
    return json.dumps({"resourceType": "Bundle", "type": kind, "entry": entries}).encode()


def _made(number: int, resource: Body, **request: str) -> Body:
    asked = {"method": "POST", "url": resource["resourceType"], **request}
    return {"fullUrl": _urn(number), "resource": resource, "request": asked}


def _patient(**elements: Any) -> Body:
    return {"resourceType": "Patient", **elements}


def _list(references: Sequence[str]) -> Body:
    items = [{"item": {"reference": reference}} for reference in references]
    return {"resourceType": "List", "entry": items}


def _alone(resource: Body) -> bytes:
    return _bundle("transaction", [_made(0, resource)])


def _narrative(text: str) -> Callable[[int], bytes]:
    return lambda n: _alone(_patient(text={"status": "generated", "div": f"href {text * n}"}))


def _chain(n: int, kind: str = "transaction") -> bytes:
    links = [
        _made(k, _patient(link=[{"other": {"reference": _urn((k + 1) % n)}}])) for k in range(n)
    ]
    return _bundle(kind, links)


def _named(n: int, query: Callable[[int], str], kind: str = "batch", same: str = "1") -> bytes:
    """Creates with one identifier, and as many references that search for it."""
    patients = [_made(k, _patient(identifier=[{"value": same}])) for k in range(n)]
    seen = [_made(n + k, _list([f"Patient?{query(k)}"])) for k in range(n)]
    return _bundle(kind, [*patients, *seen])


def _awaited(n: int, kind: str) -> bytes:
    """A list of what only the server can say."""
    found = [_made(k, _patient(), ifNoneExist=f"identifier={k}") for k in range(n)]
    return _bundle(kind, [*found, _made(n, _list([_urn(k) for k in range(n)]))])


def _searching(n: int) -> bytes:
    made = [_made(k, _list([f"List?code=a{k}"])) for k in range(n)]
    return _bundle("batch", made)


def _row(n: int, *requests: Body) -> bytes:
    entries = [
        {"request": {name: value.format(k) for name, value in request.items()}}
        for k in range(n)
        for request in requests
    ]
    for entry in entries:
        if entry["request"]["method"] in ("PUT", "POST"):
            entry["resource"] = _patient()
    return _bundle("batch", entries)


def _history(n: int) -> bytes:
    asked = {"method": "PUT", "url": "Patient/p1"}
    versions = [
        {"resource": _patient(id="p1", meta={"versionId": f"{n - k}"}), "request": asked}
        for k in range(n)
    ]
    return _bundle("history", versions)


_GET = {"method": "GET", "url": "Patient/p{}"}
_SEARCH = {"method": "GET", "url": "Patient?name=a{}"}
_PUT = {"method": "PUT", "url": "Patient/p{}"}
_SAME = {"method": "PUT", "url": "Patient/p1"}
_PATCH = {"method": "PUT", "url": "Patient?identifier=a{}"}
_DELETE = {"method": "DELETE", "url": "Patient?identifier=b{}"}

SHAPES: dict[str, Callable[[int], bytes]] = {
    "narrative of open tags": _narrative("<a "),
    "narrative of tags without a quote": _narrative("<a href="),
    "narrative of open quotes": _narrative("<a href=\"x' "),
    "narrative of one tag": lambda n: _narrative(" href  ")(n).replace(b"href ", b"<a ", 1),
    "narrative of spaces": lambda n: _narrative(" ")(n).replace(b"href ", b"<a href", 1),
    "narrative of links": _narrative(f'<a href="{_urn(0)}">'),
    "queries of many urns": lambda n: _alone(
        _list(["Patient?" + "&".join(f"link={_urn(0)}" for _ in range(n))])
    ),
    "a query of one long urn": lambda n: _alone(_list([f"Patient?link=urn:uuid:{'a' * 40 * n}|"])),
    "a long address": lambda n: _alone(_list([f"http://{'aaaa/' * 8 * n}?"])),
    "conditions of many parameters": lambda n: _bundle(
        "batch", [_made(0, _patient(), ifNoneExist="&".join(["identifier=a"] * n))]
    ),
    "one reference, many times": lambda n: _alone(_list([_urn(0)] * n)),
    "references to strangers": lambda n: _alone(
        _list([f"http://x.example/a/{k}" for k in range(n)])
    ),
    "a circle of a transaction": _chain,
    "a circle of a batch": lambda n: _chain(n, "batch"),
    "searches for one identifier": lambda n: _named(n, lambda k: "identifier=1"),
    "searches for it in other words": lambda n: _named(
        n, lambda k: f"identifier=1&{'&' * (k % 99)}"
    ),
    "searches for it in a transaction": lambda n: _named(
        n, lambda k: "identifier=1", "transaction"
    ),
    "a list of what is awaited, batch": lambda n: _awaited(n, "batch"),
    "a list of what is awaited, transaction": lambda n: _awaited(n, "transaction"),
    "one conditional create, many times": lambda n: _bundle(
        "batch", [_made(k, _patient(), ifNoneExist="identifier=1") for k in range(n)]
    ),
    "what searches its own type": _searching,
    "writes of one resource": lambda n: _row(n, _SAME),
    "writes and reads": lambda n: _row(n, _PUT, _GET, _SEARCH),
    "conditions, deletes and reads": lambda n: _row(n, _PATCH, _DELETE, _SEARCH, _GET, _PUT),
    "versions of one resource": _history,
    "one fullUrl, many times": lambda n: _bundle("batch", [_made(0, _patient())] * n),
    "entries that are none": lambda n: _bundle("batch", [{}] * n),
    "lines that are none": lambda n: b"{\n" * n + b'{"resourceType":"Patient"}',
    "lines without a resource": lambda n: b"{}\n" * n,
    "lines of one resource": lambda n: b'{"resourceType":"Patient","id":"p"}\n' * n,
    "open brackets": lambda n: b"[" * 100 * n,
    "a number of many digits": lambda n: _alone(_patient(a="@")).replace(b'"@"', b"1" * 100 * n),
    "a decimal of many digits": lambda n: _alone(_patient(a="@")).replace(
        b'"@"', b"0." + b"1" * 100 * n
    ),
    "members of gzip": lambda n: gzip.compress(b" ", 1) * n,
}
