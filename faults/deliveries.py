"""Build deliveries whose entries can be found again. Pure.

Every version of a tracked resource carries two identifiers: one names the resource, whoever
assigns its id; the other, the marker, names the entry that wrote the version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any
from uuid import UUID

from integration.core import decimal_json

TRACKED_SYSTEM = "urn:faults:thing"
MARKER_SYSTEM = "urn:faults:mark"

# An instant that servers write otherwise: https://hl7.org/fhir/R4/datatypes.html#instant
ISSUED = "2026-03-01T10:00:00.230Z"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TrackedResource:
    """One resource. `identity` is Type/id if the sender assigns the id."""

    type: str
    name: str
    identity: str | None = None

    @property
    def query(self) -> str:
        return f"identifier={TRACKED_SYSTEM}|{self.name}"


@dataclass(frozen=True, slots=True)
class EntryIntent:
    """What one entry must achieve. `action`: `sets` a state, `ensures` that the resource exists,
    `deletes` it, or `fails`, because the entry or one it depends on is invalid. `sequence` orders
    the entries of one resource within a delivery."""

    action: str
    tracked: TrackedResource
    marker: str
    sequence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One delivery. The sender sends it `times` times, whatever the response. `sender`: who proves
    itself by `headers`; None: whoever has the function key."""

    name: str
    body: bytes
    intents: tuple[EntryIntent, ...]
    method: str = "POST"
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1
    sender: str | None = None


# Deliveries of one sender, in order: each is sent when the one before is accepted.
Stream = Sequence[Delivery]


class DeliveryFactory:
    """Makes tracked resources, ids and intents. The same seed makes the same ones."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self.random = Random(seed)
        self._numbers = count(1)

    def make_guid(self) -> str:
        return str(UUID(int=self.random.getrandbits(128), version=4))

    def make_resource(self, type_: str, *, given: bool = False) -> TrackedResource:
        name = f"{self.seed}-{next(self._numbers)}"
        return TrackedResource(type_, name, f"{type_}/{self.make_guid()}" if given else None)

    def make_intent(self, action: str, tracked: TrackedResource, sequence: int = 0) -> EntryIntent:
        return EntryIntent(action, tracked, f"{tracked.name}.{next(self._numbers)}", sequence)

    def make_clinic(self) -> TrackedResource:
        """Return one of three organizations that many deliveries share."""
        return TrackedResource("Organization", f"{self.seed}-clinic-{self.random.randrange(3)}")


def build_resource(intent: EntryIntent, subject: str | None = None, **more: Any) -> Json:
    """Return the resource in the state that the entry sets."""
    tracked = intent.tracked
    document: Json = {"resourceType": tracked.type}
    if tracked.identity:
        document["id"] = tracked.identity.partition("/")[2]
    document["identifier"] = [
        {"system": TRACKED_SYSTEM, "value": tracked.name},
        {"system": MARKER_SYSTEM, "value": intent.marker},
    ]
    match tracked.type:
        case "Patient":
            document |= {"name": [{"family": intent.marker, "given": ["Ada"]}], "gender": "female"}
        case "Organization":
            document |= {"name": "Clinic"}
        case "Observation":
            document |= {"status": "final", "code": {"text": "weight"}, "issued": ISSUED}
            document |= {"subject": {"reference": subject}} if subject else {}
    return document | more


def build_entry(intent: EntryIntent, full_url: str | None = None, **content: Any) -> Json:
    """Return the bundle entry: a create, or an update or delete if the sender assigns the id."""
    tracked = intent.tracked
    if intent.action == "deletes":
        return {"request": {"method": "DELETE", "url": tracked.identity}}
    request = {"method": "POST", "url": tracked.type}
    if tracked.identity:
        request = {"method": "PUT", "url": tracked.identity}
    if intent.action == "ensures":
        request["ifNoneExist"] = tracked.query
    named = {"fullUrl": full_url} if full_url else {}
    return {**named, "resource": build_resource(intent, **content), "request": request}


def build_bundle(kind: str, entries: Sequence[Json]) -> bytes:
    return decimal_json.encode({"resourceType": "Bundle", "type": kind, "entry": list(entries)})
