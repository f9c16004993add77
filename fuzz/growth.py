"""Measure how time grows with size, for inputs that could take more than linear time."""

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
from fuzz.trial import BROKEN, CaseResult, try_case
from integration.core.model import DEFAULT_POLICY
from integration.fhir.units import Limits
from integration.intake.http_request import IncomingRequest

# Sizes of a shape, in parts.
SIZES = (250, 1_000, 4_000, 16_000)

# How much faster than its bytes the time of a shape may grow in one step (linear is 1). Times
# below the floor are not compared.
_MAX_RATIO = 2.5
_FLOOR, _MIN_SECONDS = 0.2, 0.01

# Larger sizes are skipped if one took this many seconds.
_MAX_SECONDS = 1.5

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Measurement:
    """The result for a shape with this many parts and bytes."""

    parts: int
    size: int
    result: CaseResult

    @property
    def seconds(self) -> float:
        return self.result.seconds


@dataclass(frozen=True, slots=True)
class Growth:
    """The measurements of a shape, smallest first."""

    name: str
    steps: Sequence[Measurement]

    @property
    def broken(self) -> list[str]:
        """The errors of cases that raised an unexpected exception."""
        return [step.result.why for step in self.steps if step.result.outcome == BROKEN]

    @property
    def is_superlinear(self) -> bool:
        """Whether the time grew much faster than the bytes in one of the steps."""
        return any(
            after.seconds
            > max(_FLOOR, _MAX_RATIO * max(before.seconds, _MIN_SECONDS) * after.size / before.size)
            for before, after in pairwise(self.steps)
        )

    def __str__(self) -> str:
        times = " ".join(f"{step.parts}={step.seconds:.3f}" for step in self.steps)
        problems = "grows too fast; " * self.is_superlinear + "; ".join(self.broken)
        return f"growth of {self.name} (parts=seconds): {times} {problems}".rstrip()


def measure_growths(sizes: Sequence[int] = SIZES) -> Iterator[Growth]:
    """Measure every shape in these sizes."""
    for name, shape in SHAPES.items():
        steps: list[Measurement] = []
        for parts in sizes:
            if steps and steps[-1].seconds > _MAX_SECONDS:
                break
            gc.collect()  # collecting the last case's garbage must not count as this one's time
            body = shape(parts)
            steps.append(Measurement(parts, len(body), try_case(_build_case(name, body))))
        yield Growth(name, steps)


def _build_case(name: str, body: bytes) -> Case:
    headers = {"content-type": LINES if name.startswith("lines") else JSON}
    if body.startswith(b"\x1f\x8b"):
        headers["content-encoding"] = "gzip"
    request = IncomingRequest(method="POST", type=None, id=None, headers=headers, body=body)
    return Case(
        number=1,
        name=name,
        request=request,
        limits=Limits(),
        policy=DEFAULT_POLICY,
        write_order="version",
        fetched=b"",
        max_bytes=50_000_000,
    )


def _make_urn(number: int) -> str:
    return f"urn:uuid:00000000-0000-4000-8000-{number:012x}"


def _encode_bundle(kind: str, entries: Sequence[Body]) -> bytes:
    return json.dumps({"resourceType": "Bundle", "type": kind, "entry": entries}).encode()


def _make_entry(number: int, resource: Body, **request: str) -> Body:
    entry_request = {"method": "POST", "url": resource["resourceType"], **request}
    return {"fullUrl": _make_urn(number), "resource": resource, "request": entry_request}


def _make_patient(**elements: Any) -> Body:
    return {"resourceType": "Patient", **elements}


def _make_list(references: Sequence[str]) -> Body:
    items = [{"item": {"reference": reference}} for reference in references]
    return {"resourceType": "List", "entry": items}


def _encode_alone(resource: Body) -> bytes:
    return _encode_bundle("transaction", [_make_entry(0, resource)])


def _make_narrative(text: str) -> Callable[[int], bytes]:
    return lambda n: _encode_alone(
        _make_patient(text={"status": "generated", "div": f"href {text * n}"})
    )


def _make_chain(n: int, kind: str = "transaction") -> bytes:
    links = [
        _make_entry(k, _make_patient(link=[{"other": {"reference": _make_urn((k + 1) % n)}}]))
        for k in range(n)
    ]
    return _encode_bundle(kind, links)


def _make_searches(
    n: int, query: Callable[[int], str], kind: str = "batch", same: str = "1"
) -> bytes:
    """Return creates with one identifier, and as many references that search for it."""
    patients = [_make_entry(k, _make_patient(identifier=[{"value": same}])) for k in range(n)]
    seen = [_make_entry(n + k, _make_list([f"Patient?{query(k)}"])) for k in range(n)]
    return _encode_bundle(kind, [*patients, *seen])


def _make_conditional_list(n: int, kind: str) -> bytes:
    """Return conditional creates, and a list that refers to all of them."""
    found = [_make_entry(k, _make_patient(), ifNoneExist=f"identifier={k}") for k in range(n)]
    return _encode_bundle(
        kind, [*found, _make_entry(n, _make_list([_make_urn(k) for k in range(n)]))]
    )


def _make_self_searches(n: int) -> bytes:
    made = [_make_entry(k, _make_list([f"List?code=a{k}"])) for k in range(n)]
    return _encode_bundle("batch", made)


def _make_requests(n: int, requests: Sequence[Body]) -> bytes:
    entries = [
        {"request": {name: value.format(k) for name, value in request.items()}}
        for k in range(n)
        for request in requests
    ]
    for entry in entries:
        if entry["request"]["method"] in ("PUT", "POST"):
            entry["resource"] = _make_patient()
    return _encode_bundle("batch", entries)


def _make_history(n: int) -> bytes:
    request = {"method": "PUT", "url": "Patient/p1"}
    versions = [
        {"resource": _make_patient(id="p1", meta={"versionId": f"{n - k}"}), "request": request}
        for k in range(n)
    ]
    return _encode_bundle("history", versions)


_GET = {"method": "GET", "url": "Patient/p{}"}
_SEARCH = {"method": "GET", "url": "Patient?name=a{}"}
_PUT = {"method": "PUT", "url": "Patient/p{}"}
_SAME = {"method": "PUT", "url": "Patient/p1"}
_PATCH = {"method": "PUT", "url": "Patient?identifier=a{}"}
_DELETE = {"method": "DELETE", "url": "Patient?identifier=b{}"}

SHAPES: dict[str, Callable[[int], bytes]] = {
    "narrative of open tags": _make_narrative("<a "),
    "narrative of tags without a quote": _make_narrative("<a href="),
    "narrative of open quotes": _make_narrative("<a href=\"x' "),
    "narrative of one tag": lambda n: _make_narrative(" href  ")(n).replace(b"href ", b"<a ", 1),
    "narrative of spaces": lambda n: _make_narrative(" ")(n).replace(b"href ", b"<a href", 1),
    "narrative of links": _make_narrative(f'<a href="{_make_urn(0)}">'),
    "queries of many urns": lambda n: _encode_alone(
        _make_list(["Patient?" + "&".join(f"link={_make_urn(0)}" for _ in range(n))])
    ),
    "a query of one long urn": lambda n: _encode_alone(
        _make_list([f"Patient?link=urn:uuid:{'a' * 40 * n}|"])
    ),
    "a long address": lambda n: _encode_alone(_make_list([f"http://{'aaaa/' * 8 * n}?"])),
    "conditions of many parameters": lambda n: _encode_bundle(
        "batch", [_make_entry(0, _make_patient(), ifNoneExist="&".join(["identifier=a"] * n))]
    ),
    "one reference, many times": lambda n: _encode_alone(_make_list([_make_urn(0)] * n)),
    "references to strangers": lambda n: _encode_alone(
        _make_list([f"http://x.example/a/{k}" for k in range(n)])
    ),
    "a circle of a transaction": _make_chain,
    "a circle of a batch": lambda n: _make_chain(n, "batch"),
    "searches for one identifier": lambda n: _make_searches(n, lambda k: "identifier=1"),
    "searches for it in other words": lambda n: _make_searches(
        n, lambda k: f"identifier=1&{'&' * (k % 99)}"
    ),
    "searches for it in a transaction": lambda n: _make_searches(
        n, lambda k: "identifier=1", "transaction"
    ),
    "a list of what is awaited, batch": lambda n: _make_conditional_list(n, "batch"),
    "a list of what is awaited, transaction": lambda n: _make_conditional_list(n, "transaction"),
    "one conditional create, many times": lambda n: _encode_bundle(
        "batch", [_make_entry(k, _make_patient(), ifNoneExist="identifier=1") for k in range(n)]
    ),
    "what searches its own type": _make_self_searches,
    "writes of one resource": lambda n: _make_requests(n, [_SAME]),
    "writes and reads": lambda n: _make_requests(n, [_PUT, _GET, _SEARCH]),
    "conditions, deletes and reads": lambda n: _make_requests(
        n, [_PATCH, _DELETE, _SEARCH, _GET, _PUT]
    ),
    "versions of one resource": _make_history,
    "one fullUrl, many times": lambda n: _encode_bundle(
        "batch", [_make_entry(0, _make_patient())] * n
    ),
    "entries that are none": lambda n: _encode_bundle("batch", [{}] * n),
    "lines that are none": lambda n: b"{\n" * n + b'{"resourceType":"Patient"}',
    "lines without a resource": lambda n: b"{}\n" * n,
    "lines of one resource": lambda n: b'{"resourceType":"Patient","id":"p"}\n' * n,
    "open brackets": lambda n: b"[" * 100 * n,
    "a number of many digits": lambda n: _encode_alone(_make_patient(a="@")).replace(
        b'"@"', b"1" * 100 * n
    ),
    "a decimal of many digits": lambda n: _encode_alone(_make_patient(a="@")).replace(
        b'"@"', b"0." + b"1" * 100 * n
    ),
    "members of gzip": lambda n: gzip.compress(b" ", 1) * n,
}
