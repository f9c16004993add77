"""Units: the requests to the FHIR server, as the journal keeps them and as they are sent. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from integration.core import decimal_json
from integration.core.errors import Issue
from integration.core.model import Request
from integration.fhir.resource_ids import PLACEHOLDER

# https://learn.microsoft.com/azure/healthcare-apis/fhir/rest-api-capabilities: the
# documented default differs from the code's, so the header is always sent.
_HEADERS = {
    "content-type": "application/fhir+json",
    "accept": "application/fhir+json",
    "x-bundle-processing-logic": "sequential",
}


# Bytes of a bundle around its entries.
ENVELOPE = 200


@dataclass(frozen=True, slots=True)
class Limits:
    """The FHIR server's limits for one request, and what to do with a larger transaction."""

    entries: int = 500
    bytes: int = 28_000_000
    over: str = "split"  # or reject


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitEntry:
    """One entry of a unit, serialised.

    `target` is its Type/id, or a placeholder where only the server can say the id. `awaits` are the
    placeholders in `body`; each is filled with the identity that another entry gets.
    """

    position: int
    where: str  # how an issue names the entry to the sender
    target: str
    full_url: str | None
    method: str  # as it is sent: a create with an id of this app is a PUT
    created: bool  # this app gave the id, so nobody else can have written the resource
    awaits: tuple[str, ...]
    body: decimal_json.Raw
    # Type?query by which the server finds a conditional entry's resource; may hold placeholders
    condition: str | None = None
    source_version: str | None = None  # its place among the writes of its resource, if stated
    # (position, full url) of later entries with the same conditional create
    same: tuple[tuple[int, str | None], ...] = ()
    # (Type?query, target) of each conditional reference that matches an entry of the delivery.
    # The server must not have another match when the entry is sent. A target may be a placeholder
    sole: tuple[tuple[str, str], ...] = ()
    notes: tuple[Issue, ...] = ()  # issues to add to its result

    @property
    def positions(self) -> list[int]:
        """Return the positions of all entries that its result is for."""
        return [self.position, *(position for position, _ in self.same)]

    @property
    def is_read(self) -> bool:
        """Whether it changes nothing."""
        return self.method in ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Unit:
    """A transaction or a batch within the server's limits."""

    kind: str
    entries: tuple[UnitEntry, ...]


@dataclass(frozen=True, slots=True)
class Lane:
    """Units that are sent one after the other."""

    units: tuple[Unit, ...]

    @property
    def positions(self) -> list[int]:
        """Return the positions of the lane's entries."""
        return [n for unit in self.units for entry in unit.entries for n in entry.positions]


_decoder = msgspec.json.Decoder(Lane)


def encode_lane(lane: Lane) -> bytes:
    """Serialise a lane for the journal."""
    return decimal_json.encode(lane)


def decode_lane(data: bytes) -> Lane:
    """Parse what `encode_lane` returned."""
    return _decoder.decode(data)


def build_request(
    unit: Unit, entries: Sequence[UnitEntry], identities: Mapping[str, str]
) -> Request:
    """Build the request for these entries of a unit. `identities` are Type/id by placeholder.

    Raises KeyError if one is missing. Inside a transaction the server itself resolves the
    placeholders of entries that are sent together.
    """
    inside = {entry.target for entry in entries} if unit.kind == "transaction" else set()
    bodies = [_fill_entry(entry, inside, identities) for entry in entries]
    bundle = {"resourceType": "Bundle", "type": unit.kind, "entry": bodies}
    return Request("POST", "", decimal_json.encode(bundle), _HEADERS)


def _fill_entry(
    entry: UnitEntry, inside: Container[str], identities: Mapping[str, str]
) -> decimal_json.Raw:
    awaits = [name for name in entry.awaits if name not in inside]
    if not awaits:
        return entry.body
    return decimal_json.Raw(fill_placeholders(bytes(entry.body), awaits, identities))


def build_reads(addresses: Sequence[str]) -> Request:
    """Build a batch of reads and searches, with addresses relative to the server's base."""
    entries = [{"request": {"method": "GET", "url": address}} for address in addresses]
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": entries}
    return Request("POST", "", decimal_json.encode(bundle), _HEADERS)


def fill_placeholders(text: bytes, awaits: Iterable[str], identities: Mapping[str, str]) -> bytes:
    """Replace the placeholders by Type/id.

    Text replacement is safe only here, since no sender can guess the placeholders of this app.
    """
    replacements = {name.encode(): identities[name].encode() for name in awaits}
    if not replacements:
        return text
    # One pass over the text, however many there are.
    return PLACEHOLDER.sub(lambda name: replacements.get(name[0], name[0]), text)
