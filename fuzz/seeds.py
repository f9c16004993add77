"""Valid deliveries to start from, at least one of each kind."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.deliveries import DeliveryFactory
from faults.kinds import KINDS
from integration.fhir.patches import JSON_PATCH
from local.samples import load_samples

JSON = "application/fhir+json"
LINES = "application/fhir+ndjson"
FORMATS = {JSON: "json", LINES: "ndjson", JSON_PATCH: "json-patch"}

Body = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """A delivery before mutation; `body` is not compressed."""

    name: str
    body: bytes
    media: str = JSON
    method: str = "POST"
    address: tuple[str, ...] = ()


def load_seeds() -> list[Seed]:
    """Return the samples, one of every kind, and the files of BUNDLES_DIR, in a fixed order."""
    return [
        *_read_samples(),
        *_read_kinds(),
        *_build_own(),
        *_read_folder(os.environ.get("BUNDLES_DIR")),
    ]


def _read_samples() -> Iterator[Seed]:
    for sample in load_samples():
        address = tuple(sample.path.removeprefix("/api/fhir").strip("/").split("/"))
        body = _decompress(sample.body)
        yield Seed(
            name=sample.name,
            body=body,
            media=sample.content_type,
            method=sample.method,
            address=address if address[0] else (),
        )


def _read_kinds() -> Iterator[Seed]:
    """Yield the deliveries of `faults`: conditional, split, deleting and repeated ones."""
    for kind in KINDS:
        for sent in kind(DeliveryFactory("fuzz")):
            address = tuple(part for part in sent.path.split("/") if part)
            media = sent.headers.get("content-type", JSON)
            yield Seed(
                name=sent.name,
                body=_decompress(sent.body),
                media=media,
                method=sent.method,
                address=address,
            )


def _read_folder(folder: str | None) -> Iterator[Seed]:
    endings = (".json", ".fhir", ".ndjson", ".gz")
    for path in sorted(Path(folder).rglob("*")) if folder else ():
        if path.name.endswith(endings):
            media = LINES if ".ndjson" in path.suffixes else JSON
            yield Seed(name=path.name, body=_decompress(path.read_bytes()), media=media)


def _decompress(body: bytes) -> bytes:
    return gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body


def _build_own() -> Iterator[Seed]:
    patient = {"resourceType": "Patient", "id": "p1", "name": [{"family": "Example"}]}
    versioned = {**patient, "meta": {"versionId": "2", "lastUpdated": "2026-01-02T03:04:05.6Z"}}
    observation = {
        "resourceType": "Observation",
        "id": "o1",
        "subject": {"reference": "Patient/p1"},
    }
    header = {"resourceType": "MessageHeader", "id": "m1", "focus": [{"reference": "Patient/p1"}]}
    composition = {
        "resourceType": "Composition",
        "id": "c1",
        "subject": {"reference": "Patient/p1"},
    }
    base = "https://fhir.example/r4"
    put, get = {"method": "PUT", "url": "Patient/p1"}, {"method": "GET", "url": "Patient/p1"}
    delete = {"method": "DELETE", "url": "Patient/p1"}
    yield _build_bundle(
        "collection",
        {"resource": patient, "fullUrl": f"{base}/Patient/p1"},
        _wrap_resource(observation),
    )
    yield _build_bundle(
        "message", _wrap_resource(header), _wrap_resource(patient), _wrap_resource(observation)
    )
    yield _build_bundle("document", _wrap_resource(composition), _wrap_resource(patient))
    yield _build_bundle(
        "searchset",
        {"resource": patient, "search": {"mode": "match"}},
        {"resource": {"resourceType": "OperationOutcome"}, "search": {"mode": "outcome"}},
        link=[{"relation": "next", "url": f"{base}?page=2"}],
    )
    yield _build_bundle(
        "history",
        {"request": delete, "response": {"status": "204", "etag": 'W/"3"'}},
        {"resource": versioned, "request": put, "response": {"status": "200", "etag": 'W/"2"'}},
    )
    yield from _build_notifications(base, patient)
    yield _build_bundle("batch", *_build_conditional_entries(patient, observation))
    yield _build_bundle("transaction", *_build_conditional_entries(patient, observation)[:-1])
    yield _build_bundle("batch", {"request": get}, {"request": {**get, "url": "Patient?_id=p1"}})
    operations = [{"op": "replace", "path": "/active", "value": True}]
    patch = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": []}]}
    address = ("Patient", "p1")
    yield Seed(name="patch", body=json.dumps(patch).encode(), method="PATCH", address=address)
    yield Seed(
        name="json patch",
        body=json.dumps(operations).encode(),
        media=JSON_PATCH,
        method="PATCH",
        address=address,
    )
    yield Seed(name="delete", body=b"", method="DELETE", address=address)


def _build_notifications(base: str, patient: Body) -> Iterator[Seed]:
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
    status_request = {"method": "GET", "url": f"{base}/Subscription/s1/$status"}
    put = {"method": "PUT", "url": "Patient/p1"}
    for kind, first in (("subscription-notification", status), ("history", parameters)):
        begin = {"resource": first, "request": status_request}
        yield _build_bundle(kind, begin, {"resource": patient, "request": put})
        yield _build_bundle(kind, begin, {"fullUrl": f"{base}/Patient/p1", "request": put})
        yield _build_bundle(kind, begin)


def _build_conditional_entries(patient: Body, seen: Body) -> list[Body]:
    urn, query = "urn:uuid:00000000-0000-4000-8000-000000000001", "identifier=urn:x|1"
    about = {
        **seen,
        "subject": {"reference": urn},
        "performer": [{"reference": f"Patient?{query}"}],
    }
    text = {"status": "generated", "div": f'<div><a href="{urn}">p</a></div>'}
    identified = {**patient, "identifier": [{"system": "urn:x", "value": "1"}]}
    create = {"method": "POST", "url": "Patient", "ifNoneExist": query}
    update = {"method": "PUT", "url": f"Observation?subject={urn}"}
    return [
        {"fullUrl": urn, "resource": identified, "request": create},
        {"resource": {**about, "text": text}, "request": update},
        {"resource": {**about, "id": "o2"}, "request": {"method": "PUT", "url": "Observation/o2"}},
        {"request": {"method": "DELETE", "url": "Observation?code=x"}},
    ]


def _wrap_resource(resource: Body) -> Body:
    return {"resource": resource}


def _build_bundle(kind: str, *entries: Body, **more: Any) -> Seed:
    bundle = {"resourceType": "Bundle", "type": kind, "entry": entries, **more}
    return Seed(name=kind, body=json.dumps(bundle).encode())
