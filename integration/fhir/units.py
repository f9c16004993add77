"""What one HTTP request to the FHIR server carries, as it is kept and as it is sent. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from integration.core import decimal_json
from integration.core.errors import Issue
from integration.core.model import Request
from integration.fhir.identity import PLACEHOLDER

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
    """One entry, serialised. `target` is its Type/id, or a placeholder when only the server can
    say; `awaits` are placeholders in it, each for the answer to another entry."""

    position: int
    where: str  # how an issue names it to the sender
    target: str
    full_url: str | None
    method: str  # as it is sent: a create of ours is a PUT
    created: bool  # its id is ours, so nobody else can have written it
    awaits: tuple[str, ...]
    body: decimal_json.Raw
    # Type?query by which the server finds a conditional entry's resource; may hold placeholders
    condition: str | None = None
    source_version: str | None = (
        None  # where it stands among all writes of its resource, if the source says
    )
    # (position, full url) of later entries that ask for the very same conditional create
    same: tuple[tuple[int, str | None], ...] = ()
    # (Type?query, target): before it goes, the server must know no match but that target, which
    # may be a placeholder too: the entry refers to the one match, and the delivery brings one
    sole: tuple[tuple[str, str], ...] = ()
    notes: tuple[Issue, ...] = ()  # what its outcome must tell besides

    @property
    def positions(self) -> list[int]:
        """Every entry of the sender that it answers for."""
        return [self.position, *(position for position, _ in self.same)]

    @property
    def is_read(self) -> bool:
        """It changes nothing."""
        return self.method in ("GET", "HEAD")


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


_decoder = msgspec.json.Decoder(Lane)


def encode_lane(lane: Lane) -> bytes:
    """A lane as the journal keeps it."""
    return decimal_json.encode(lane)


def decode_lane(data: bytes) -> Lane:
    """What `kept` gave."""
    return _decoder.decode(data)


def build_request(
    unit: Unit, entries: Sequence[UnitEntry], identities: Mapping[str, str]
) -> Request:
    """The request for these entries of a unit; `answers` are Type/id by placeholder. Inside a
    transaction the server itself follows the placeholders of what is sent with it."""
    inside = {entry.target for entry in entries} if unit.kind == "transaction" else set()
    bodies = [_fill_entry(entry, inside, identities) for entry in entries]
    bundle = {"resourceType": "Bundle", "type": unit.kind, "entry": bodies}
    return Request("POST", "", decimal_json.encode(bundle), _HEADERS)


def _fill_entry(
    entry: UnitEntry, inside: Container[str], identities: Mapping[str, str]
) -> decimal_json.Raw:
    awaits = [name for name in entry.awaits if name not in inside]
    return (
        decimal_json.Raw(fill_placeholders(bytes(entry.body), awaits, identities))
        if awaits
        else entry.body
    )


def build_reads(addresses: Sequence[str]) -> Request:
    """A batch of reads and searches, relative to the server's base."""
    entries = [{"request": {"method": "GET", "url": address}} for address in addresses]
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": entries}
    return Request("POST", "", decimal_json.encode(bundle), _HEADERS)


def fill_placeholders(text: bytes, awaits: Iterable[str], identities: Mapping[str, str]) -> bytes:
    """Text replacement is safe here, and only here: no sender can know our placeholders."""
    replacements = {name.encode(): identities[name].encode() for name in awaits}
    # Once through the text, however many they are.
    return (
        PLACEHOLDER.sub(lambda name: replacements.get(name[0], name[0]), text)
        if replacements
        else text
    )
