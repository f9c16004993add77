"""What one HTTP request to the FHIR server carries, as it is kept and as it is sent. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from integration import exact_json
from integration.model import Request

# https://learn.microsoft.com/azure/healthcare-apis/fhir/rest-api-capabilities: the default differs
# between pages and code, so it is always stated.
_HEADERS = {
    "content-type": "application/fhir+json",
    "accept": "application/fhir+json",
    "x-bundle-processing-logic": "sequential",
}


# Bytes of a bundle around its entries.
ENVELOPE = 200


@dataclass(frozen=True, slots=True)
class Limits:
    """What the FHIR server takes in one request, and what to do with a transaction above it."""

    entries: int = 500
    bytes: int = 28_000_000
    over: str = "split"  # or reject


@dataclass(frozen=True, slots=True)
class UnitEntry:
    """One entry, serialised. `target` is its Type/id, or a placeholder when it is conditional;
    `awaits` are placeholders in it for which an earlier unit's answer must be put in."""

    position: int
    where: str  # how an issue names it to the sender
    target: str
    full_url: str | None
    created: bool
    deletes: bool
    awaits: tuple[str, ...]
    body: exact_json.Raw
    # (position, full url) of later entries that ask for the very same conditional create
    same: tuple[tuple[int, str | None], ...] = ()

    @property
    def positions(self) -> list[int]:
        """Every entry of the sender that it answers for."""
        return [self.position, *(position for position, _ in self.same)]


@dataclass(frozen=True, slots=True)
class Unit:
    """A transaction or a batch within the server's limits."""

    kind: str
    entries: tuple[UnitEntry, ...]


@dataclass(frozen=True, slots=True)
class Lane:
    """Units that go one after the other."""

    units: tuple[Unit, ...]

    @property
    def positions(self) -> list[int]:
        """The entries of the lane."""
        return [n for unit in self.units for entry in unit.entries for n in entry.positions]


_lane = msgspec.json.Decoder(Lane)


def kept(lane: Lane) -> bytes:
    """A lane as the journal keeps it."""
    return exact_json.encode(lane)


def restored(data: bytes) -> Lane:
    """What `kept` gave."""
    return _lane.decode(data)


def request(unit: Unit, entries: Sequence[UnitEntry], answers: Mapping[str, str]) -> Request:
    """The request for these entries of a unit; `answers` are Type/id by placeholder."""
    bodies = [_filled(entry, answers) for entry in entries]
    bundle = {"resourceType": "Bundle", "type": unit.kind, "entry": bodies}
    return Request("POST", "", exact_json.encode(bundle), _HEADERS)


def inquiry(entries: Sequence[UnitEntry]) -> Request:
    """A batch of reads: which of these entries are on the server?"""
    reads = [{"request": {"method": "GET", "url": entry.target}} for entry in entries]
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": reads}
    return Request("POST", "", exact_json.encode(bundle), _HEADERS)


def _filled(entry: UnitEntry, answers: Mapping[str, str]) -> exact_json.Raw:
    """Text replacement is safe here, and only here: no sender can know our placeholders."""
    body = bytes(entry.body)
    for name in entry.awaits:
        body = body.replace(name.encode(), answers[name].encode())
    return exact_json.Raw(body)
