"""Sound deliveries to begin with, one of each kind at least."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.deliveries import Maker
from faults.kinds import KINDS
from integration.fhir.patches import JSON_PATCH
from local.samples import samples

JSON = "application/fhir+json"
LINES = "application/fhir+ndjson"
FORMATS = {JSON: "json", LINES: "ndjson", JSON_PATCH: "json-patch"}

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seed:
    """A delivery as its sender means it; `body` is not packed."""

    name: str
    body: bytes
    media: str = JSON
    method: str = "POST"
    address: tuple[str, ...] = ()


def seeds() -> list[Seed]:
    """The samples, one of every kind, and what BUNDLES_DIR holds; always in the same order."""
    return [*_samples(), *_kinds(), *_own(), *_elsewhere(os.environ.get("BUNDLES_DIR"))]


def _samples() -> Iterator[Seed]:
    for sample in samples():
        address = tuple(sample.path.removeprefix("/api/fhir").strip("/").split("/"))
        body = _unpacked(sample.body)
        yield Seed(
            sample.name, body, sample.content_type, sample.method, address if address[0] else ()
        )


def _kinds() -> Iterator[Seed]:
    """Those of the faults have conditions, parts, deletes and repeats."""
    for kind in KINDS:
        for sent in kind(Maker("fuzz")):
            address = tuple(part for part in sent.path.split("/") if part)
            media = sent.headers.get("content-type", JSON)
            yield Seed(sent.name, _unpacked(sent.body), media, sent.method, address)


def _elsewhere(folder: str | None) -> Iterator[Seed]:
    endings = (".json", ".fhir", ".ndjson", ".gz")
    for path in sorted(Path(folder).rglob("*")) if folder else ():
        if path.name.endswith(endings):
            media = LINES if ".ndjson" in path.suffixes else JSON
            yield Seed(path.name, _unpacked(path.read_bytes()), media)


def _unpacked(body: bytes) -> bytes:
    return gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body


def _own() -> Iterator[Seed]:
    patient = {"resourceType": "Patient", "id": "p1", "name": [{"family": "Example"}]}
    versioned = {**patient, "meta": {"versionId": "2", "lastUpdated": "2026-01-02T03:04:05.6Z"}}
    seen = {"resourceType": "Observation", "id": "o1", "subject": {"reference": "Patient/p1"}}
    header = {"resourceType": "MessageHeader", "id": "m1", "focus": [{"reference": "Patient/p1"}]}
    paper = {"resourceType": "Composition", "id": "c1", "subject": {"reference": "Patient/p1"}}
    base = "https://fhir.example/r4"
    put, get = {"method": "PUT", "url": "Patient/p1"}, {"method": "GET", "url": "Patient/p1"}
    gone = {"method": "DELETE", "url": "Patient/p1"}
    yield _bundle("collection", {"resource": patient, "fullUrl": f"{base}/Patient/p1"}, _of(seen))
    yield _bundle("message", _of(header), _of(patient), _of(seen))
    yield _bundle("document", _of(paper), _of(patient))
    yield _bundle(
        "searchset",
        {"resource": patient, "search": {"mode": "match"}},
        {"resource": {"resourceType": "OperationOutcome"}, "search": {"mode": "outcome"}},
        link=[{"relation": "next", "url": f"{base}?page=2"}],
    )
    yield _bundle(
        "history",
        {"request": gone, "response": {"status": "204", "etag": 'W/"3"'}},
        {"resource": versioned, "request": put, "response": {"status": "200", "etag": 'W/"2"'}},
    )
    yield from _notifications(base, patient)
    yield _bundle("batch", *_conditions(patient, seen))
    yield _bundle("transaction", *_conditions(patient, seen)[:-1])
    yield _bundle("batch", {"request": get}, {"request": {**get, "url": "Patient?_id=p1"}})
    operations = [{"op": "replace", "path": "/active", "value": True}]
    patch = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": []}]}
    to = ("Patient", "p1")
    yield Seed("patch", json.dumps(patch).encode(), method="PATCH", address=to)
    yield Seed("json patch", json.dumps(operations).encode(), JSON_PATCH, "PATCH", to)
    yield Seed("delete", b"", method="DELETE", address=to)


def _notifications(base: str, patient: Body) -> Iterator[Seed]:
    subscription = {"reference": f"{base}/Subscription/s1"}
    focus = {"reference": f"{base}/Patient/p1"}
    event = {"eventNumber": "7", "focus": focus}
    status = {
        "resourceType": "SubscriptionStatus",
        "type": "event-notification",
        "subscription": subscription,
        "eventsSinceSubscriptionStart": "7",
        "notificationEvent": [event],
    }
    parts = [
        {"name": "event-number", "valueString": "7"},
        {"name": "focus", "valueReference": focus},
    ]
    parameters = {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "subscription", "valueReference": subscription},
            {"name": "type", "valueCode": "event-notification"},
            {"name": "events-since-subscription-start", "valueString": "7"},
            {"name": "notification-event", "part": parts},
        ],
    }
    asked = {"method": "GET", "url": f"{base}/Subscription/s1/$status"}
    told = {"method": "PUT", "url": "Patient/p1"}
    for kind, first in (("subscription-notification", status), ("history", parameters)):
        begin = {"resource": first, "request": asked}
        yield _bundle(kind, begin, {"resource": patient, "request": told})
        yield _bundle(kind, begin, {"fullUrl": f"{base}/Patient/p1", "request": told})
        yield _bundle(kind, begin)


def _conditions(patient: Body, seen: Body) -> list[Body]:
    urn, query = "urn:uuid:00000000-0000-4000-8000-000000000001", "identifier=urn:x|1"
    about = {
        **seen,
        "subject": {"reference": urn},
        "performer": [{"reference": f"Patient?{query}"}],
    }
    text = {"status": "generated", "div": f'<div><a href="{urn}">p</a></div>'}
    known = {**patient, "identifier": [{"system": "urn:x", "value": "1"}]}
    made = {"method": "POST", "url": "Patient", "ifNoneExist": query}
    found = {"method": "PUT", "url": f"Observation?subject={urn}"}
    return [
        {"fullUrl": urn, "resource": known, "request": made},
        {"resource": {**about, "text": text}, "request": found},
        {"resource": {**about, "id": "o2"}, "request": {"method": "PUT", "url": "Observation/o2"}},
        {"request": {"method": "DELETE", "url": "Observation?code=x"}},
    ]


def _of(resource: Body) -> Body:
    return {"resource": resource}


def _bundle(kind: str, *entries: Body, **more: Any) -> Seed:
    bundle = {"resourceType": "Bundle", "type": kind, "entry": entries, **more}
    return Seed(kind, json.dumps(bundle).encode())
