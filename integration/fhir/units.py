"""Units: the requests to the FHIR server, as the journal keeps them and as they are sent. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from integration.core import decimal_json
from integration.core.errors import Issue
from integration.core.model import FhirResource, Request
from integration.core.write_order import WriteRank
from integration.fhir import write_mark
from integration.fhir.resource_ids import PLACEHOLDER
from integration.fhir.resource_states import ResourceState
from integration.fhir.write_mark import Mark

# https://learn.microsoft.com/azure/healthcare-apis/fhir/rest-api-capabilities: the
# documented default differs from the code's, so the header is always sent.
_HEADERS = {
    "content-type": "application/fhir+json",
    "accept": "application/fhir+json",
    "x-bundle-processing-logic": "sequential",
}


# What stands for the delivery in the mark of a created resource: it sorts before all ids.
CREATED = "0"

# What comes before the resource of a serialised entry: see prepare.
_RESOURCE = b'"resource":'

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
    mark_at: int | None = None  # where the text of its mark goes in `body`; None: nowhere
    has_precondition: bool = False  # the sender's own: ifMatch or ifNoneMatch
    # Type?query by which the server finds a conditional entry's resource; may hold placeholders
    condition: str | None = None
    source_version: str | None = None  # its place among the writes of its resource, if stated
    # (position, full url) of later entries that are the same: a conditional create, or a delete
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

    def rank(self, delivery: str) -> WriteRank:
        """Return its place among the writes of its resource.

        A create is the earliest, and the same for each delivery of the same bytes: two of these
        that write it at the same time write the same, which makes no second version.
        """
        return WriteRank(CREATED if self.created else delivery, self.source_version)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What is added to the entries of one request.

    `delivery`, and whether it is `ordered`, go into the marks. `conditions`: by position, the state
    that the entry may replace: its version becomes ifMatch. `names`: by position, the Type/id that
    the condition of an entry matches. It is sent to that resource, since no server checks both a
    condition and a version.
    """

    delivery: str
    ordered: bool = True
    conditions: Mapping[int, ResourceState] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)


def build_request(
    unit: Unit,
    entries: Sequence[UnitEntry],
    identities: Mapping[str, str],
    stamp: Stamp | None = None,
) -> Request:
    """Build the request for these entries of a unit. `identities` are Type/id by placeholder.

    Without a stamp, marks stay empty. Raises KeyError if an identity is missing. Inside a
    transaction the server itself resolves the placeholders of entries that are sent together.
    """
    names = stamp.names if stamp is not None else {}
    inside = {entry.target for entry in entries if entry.position not in names}
    if unit.kind != "transaction":
        inside = set()
    known = {entry.target: names[entry.position] for entry in entries if entry.position in names}
    identities = {**identities, **known} if known else identities
    bodies = [_fill_entry(entry, inside, identities, stamp) for entry in entries]
    bundle = {"resourceType": "Bundle", "type": unit.kind, "entry": bodies}
    return Request("POST", "", decimal_json.encode(bundle), _HEADERS)


def build_entry(entry: UnitEntry, identities: Mapping[str, str], stamp: Stamp) -> bytes:
    """Return one entry as it is sent. A placeholder that `identities` does not have stays."""
    unknown = {name for name in entry.awaits if name not in identities}
    return bytes(_fill_entry(entry, unknown, identities, stamp))


def compute_digest(entry: UnitEntry, identities: Mapping[str, str]) -> str:
    """Return a digest of what an update writes, by which a repeat of it is found.

    Links count as what they lead to, since a condition may find another resource another time. So
    it is empty where only the server resolves a link, and for what is no update.
    """
    is_known = all(name in identities for name in entry.awaits)
    if entry.mark_at is None or entry.created or not is_known:
        return ""
    body = fill_placeholders(bytes(entry.body), entry.awaits, identities)
    # The full url of a conditional entry is another one in each delivery.
    return write_mark.compute_digest(body.partition(_RESOURCE)[2])


def _fill_entry(
    entry: UnitEntry,
    inside: Container[str],
    identities: Mapping[str, str],
    stamp: Stamp | None,
) -> decimal_json.Raw:
    awaits = [name for name in entry.awaits if name not in inside]
    if not awaits and stamp is None:
        return entry.body
    body = bytes(entry.body) if stamp is None else _add_stamp(entry, identities, stamp)
    return decimal_json.Raw(fill_placeholders(body, awaits, identities))


def _add_stamp(entry: UnitEntry, identities: Mapping[str, str], stamp: Stamp) -> bytes:
    """Return the serialised entry with its mark and its condition."""
    body, state = bytes(entry.body), stamp.conditions.get(entry.position)
    mark = Mark(
        delivery=entry.rank(stamp.delivery).delivery,
        position=entry.position,
        digest=compute_digest(entry, identities),
        source_version=entry.source_version,
        ordered=stamp.ordered,
    )
    if entry.mark_at is not None:
        body = write_mark.fill_mark(body, entry.mark_at, mark)
    if entry.position in stamp.names:
        body = _address(body, stamp.names[entry.position])
    if state is None:
        return body
    if entry.method == "PATCH":
        patched = write_mark.add_mark_to_patch(decimal_json.decode(body), state.meta, mark)
        body = decimal_json.encode(patched)
    # `request` is the last member of an entry, and never empty: see prepare.
    condition = decimal_json.encode({"ifMatch": f'W/"{state.version}"'})
    return b"".join((body[:-2], b",", condition[1:], b"}"))


def _address(body: bytes, name: str) -> bytes:
    """Return a conditional entry as one that names its resource."""
    entry = decimal_json.decode(body)
    sent = {"request": {**entry["request"], "url": name}}
    if entry["request"]["method"] == "PUT":
        sent = {"resource": {**entry["resource"], "id": name.partition("/")[2]}, **sent}
    elif "resource" in entry:
        sent = {"resource": entry["resource"], **sent}
    return decimal_json.encode(sent)


def build_announcements(states: Mapping[str, ResourceState], delivery: str) -> Request:
    """Build the batch that announces the deletes of these Type/id, on condition of the versions."""
    entries = [
        {
            "resource": write_mark.build_announcement(state.meta, delivery),
            "request": {"method": "PATCH", "url": name, "ifMatch": f'W/"{state.version}"'},
        }
        for name, state in states.items()
    ]
    return _build_batch(*entries)


def build_reads(addresses: Sequence[str]) -> Request:
    """Build a batch of reads and searches, with addresses relative to the server's base."""
    entries = [{"request": {"method": "GET", "url": address}} for address in addresses]
    return _build_batch(*entries)


def build_update(name: str, resource: FhirResource, version: str) -> Request:
    """Build the update of a resource to an earlier state of it, on condition of its version; an
    empty one: without a condition."""
    server_set = ("versionId", "lastUpdated")
    meta = {key: value for key, value in resource["meta"].items() if key not in server_set}
    request = {"method": "PUT", "url": name}
    if version:
        request["ifMatch"] = f'W/"{version}"'
    return _build_batch({"resource": {**resource, "meta": meta}, "request": request})


def _build_batch(*entries: Mapping[str, Any]) -> Request:
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
