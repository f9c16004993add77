"""Values that are shared by several folders. All are immutable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal

from integration.core.state_version import StateVersion

# A FHIR resource as decoded JSON. It is shared between values, so copy it before you change it.
FhirResource = dict[str, Any]

# A row of Dataverse as the Web API returns it: values by column name, and annotations.
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request to an upstream.

    `path` is relative to the upstream's base URL. `max_bytes`: of the response; None: no limit.
    """

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    _: KW_ONLY
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """The response of an upstream. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def retry_after(self) -> float | None:
        """Return seconds, from either header: `x-ms-retry-after-ms` is Microsoft's, and finer."""
        for name, scale in (("x-ms-retry-after-ms", 0.001), ("retry-after", 1.0)):
            value = self.headers.get(name, "").strip()
            if value.isascii() and value.isdigit() and len(value) <= 9:
                return int(value) * scale
        return None


@dataclass(frozen=True, slots=True)
class Policy:
    """How a bundle is read where FHIR leaves that to the receiver."""

    messages: str = "resources"  # or refuse
    documents: str = "bundle"  # or resources, or both
    dangling: str = "refuse"  # or note
    validate: bool = False  # every resource, against FHIR R4
    trust: str = "nothing"  # or uuids: a urn:uuid: names the same resource in each delivery
    # Base addresses below which the delivery may have resources fetched; relative references of
    # notifications begin at the first. None: below any of FETCH_FROM.
    fetch_from: tuple[str, ...] | None = None


DEFAULT_POLICY = Policy()

# https://hl7.org/fhir/R4/http.html#create and the interactions after it, by their methods.
WriteMethod = Literal["POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What a sender may do at the FHIR server: a table of `senders.toml`.

    By default it may create, update and patch resources of every type, and read nothing.
    """

    methods: tuple[WriteMethod, ...] = ("POST", "PUT", "PATCH")
    # (): every type but those that change what the FHIR server does (fhir/rights.py).
    types: tuple[str, ...] = ()
    reads: bool = False  # GET and HEAD in a batch or transaction
    conditional_deletes: bool = False
    # The systems of identifiers that it may write, or name in a condition; (): every system.
    identifier_systems: tuple[str, ...] = ()
    # What the ids of resources begin with that it updates, patches or deletes; (): anything.
    id_prefixes: tuple[str, ...] = ()


ALL_RIGHTS = Rights(
    methods=("POST", "PUT", "PATCH", "DELETE"), reads=True, conditional_deletes=True
)


@dataclass(frozen=True, slots=True)
class DeliveryRequest:
    """A sender's request apart from its body: stored beside the body, for the relay to read."""

    method: str  # POST, PUT, PATCH or DELETE
    _: KW_ONLY
    type: str | None = None  # the resource type in the address; None for /api/fhir itself
    id: str | None = None
    format: str = "json"  # json, json-patch or ndjson
    if_match: str | None = None
    if_none_match: str | None = None
    if_none_exist: str | None = None
    query: str | None = None  # of Type?query in the address: a conditional update or delete
    confirm: bool = False  # a DELETE of what its server has no more: that is asked for first
    policy: Policy = DEFAULT_POLICY  # at the time when the delivery was accepted
    rights: Rights = ALL_RIGHTS  # of its sender at that time
    answer_to: str | None = None  # the blob of the answer, for what came as a file


class Status(StrEnum):
    """The state of a delivery."""

    ACCEPTED = "accepted"  # stored and queued
    PROCESSING = "processing"  # its lanes are queued one by one
    DONE = "done"  # every entry is written or refused
    CANCELLED = "cancelled"  # by its sender
    PARKED = "parked"  # not tried again until an operator replays it


# An open delivery has not ended: it is under way, or waits for an operator.
UNDER_WAY = frozenset({Status.ACCEPTED, Status.PROCESSING})
OPEN = UNDER_WAY | {Status.PARKED}

# A set of lanes: see integration.journal.lane_bits.
LaneBits = bytes

# Versions of resources: see integration.journal.bases.
BaseVersions = bytes

TO_BE_PLANNED = 0  # the planner of a delivery whose plan is no longer to be followed


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One accepted HTTP request, as the journal lists it. Holds no patient data."""

    id: str
    sender: str
    key: str  # ids are derived from it: see integration.intake
    digest: str  # of its bytes and its address
    accepted: datetime
    status: Status
    kind: str  # the type of the bundle, or resource or ndjson
    entries: int
    bytes: int
    # what decides which of two writes is later: arrival, lastUpdated, version, or off
    write_order: str = "arrival"
    repeat: bool = False  # the same bytes were accepted before
    # The relay has begun with it, by its first work item: see `Journal.begin_delivery`. `bases`:
    # the versions that its entries found then.
    begun: bool = False
    bases: BaseVersions = b""
    # Its plan: lanes, and which of them are queued or done, belong to one plan.
    plan: int = 1
    planner: int = TO_BE_PLANNED  # the version of the planner that makes it
    unit_max_entries: int = 0  # the limits of the plan, whatever the settings are by now
    unit_max_bytes: int = 0
    over_limit: str = ""
    lanes: int = 0
    lanes_done: int = 0
    queued_lanes: LaneBits = b""
    done_lanes: LaneBits = b""
    written: int = 0
    skipped: int = 0  # left out on purpose
    refused: int = 0
    superseded: int = 0
    queued_rows: int = 0  # resources that were queued for the mirror
    units: int = 0
    split: bool = False  # a transaction that was not sent as one
    more: bool = False  # it has a next page that was not followed
    holds_refused: bool = False  # with refused entries it ends parked, not done
    answer_due: bool = False  # it came as a file, and its answer is not written yet
    gap: str | None = None  # the events of its subscription that were missing before it
    finished: datetime | None = None  # done or cancelled
    reason: str | None = None  # why it is parked, or why it waits
    # It waits to be tried again: since when, how many attempts failed, when the next one is due.
    waiting: datetime | None = None
    attempts: int = 0
    next_attempt: datetime | None = None
    for_operator: bool = False  # it waits until somebody mends something
    parked: datetime | None = None  # when it was parked
    attention: str = ""  # the id of its concern: see integration.journal.attention
    # The delivery in whose place this one was sent by an operator, and the one in its own place.
    corrects: str | None = None
    corrected_by: str | None = None
    round: int = 0  # how often its refused entries were sent again
    replayed: datetime | None = None  # by an operator; its age counts from here
    job: str = ""  # the id of the job that has replayed or cancelled it last
    unqueued: bool = False  # replayed, and its work item is not known to be in the queue yet
    checked: datetime | None = None  # when housekeeping last checked its progress
    lanes_done_at_check: int = 0  # lanes that were done at that time
    etag: str | None = field(default=None, compare=False, repr=False)  # of its row when it was read


@dataclass(frozen=True, slots=True)
class EntryResult:
    """The result of one entry at the FHIR server, or why it was not sent."""

    position: int
    status: int
    _: KW_ONLY
    full_url: str | None = None
    location: str | None = None  # Type/id/_history/version
    etag: str | None = None
    last_modified: str | None = None
    issues: list[dict[str, Any]] | None = None  # OperationOutcome.issue
    unit: str | None = None  # lane.number of the unit that the entry was sent in
    superseded: bool = False  # not sent, or not again, because of a later write
    skipped: bool = False  # left out on purpose: there was nothing to write
    resource: str | None = None  # what a read found, as JSON text, which keeps all digits
    queued: list[str] | None = None  # Type/id of each resource that was queued for the mirror
    round: int = 0  # how often refused entries of the delivery had been sent again before

    @property
    def is_written(self) -> bool:
        """Whether the server did what was requested; else it refused."""
        return 200 <= self.status < 300 or self.status == 304

    @property
    def is_refused(self) -> bool:
        """Whether it is not written, and no later write stands in its place."""
        return not (self.is_written or self.superseded)


def count_results(results: Iterable[EntryResult]) -> dict[str, Any]:
    """Return how many entries were written, skipped, refused and superseded, and how many rows were
    queued for the mirror, as a delivery states it."""
    counts = {"written": 0, "skipped": 0, "refused": 0, "superseded": 0}
    queued: set[str] = set()
    for result in results:
        queued.update(result.queued or ())
        if result.is_written:
            counts["skipped" if result.skipped else "written"] += 1
        else:
            counts["superseded" if result.superseded else "refused"] += 1
    return {**counts, "queued_rows": len(queued)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """The result of mirroring one resource. Codes and element paths only, no values."""

    delivery: str
    resource: str  # Type/id
    table: str
    row: str | None  # the primary key
    action: str  # created, updated, unchanged, deactivated, refused, absent, skipped, parked
    version: str | None = None
    notes: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()  # Type/id of each resource whose row a lookup of this one waits for
    left_out: int = 0  # rows of children and concepts that Dataverse refused
    remarks: tuple[str, ...] = ()  # what was done besides, that somebody may ask about
    # Which map has made the row, not what became of it: the version of the configuration, and what
    # tells apart the maps of a type.
    configuration: int = field(default=0, compare=False)
    map_digest: str = field(default="", compare=False)

    @property
    def is_replayable(self) -> bool:
        """Whether an operator can replay it: the row, or a part of it, is not written."""
        return self.action in ("parked", "refused") or self.left_out > 0


class Category(StrEnum):
    """How much an entry of the activity log matters."""

    INFORMATION = "information"
    WARNING = "warning"  # tried again, or incomplete
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """A call to an upstream, or the result of several. Holds no patient data."""

    time: datetime
    category: Category
    upstream: str
    action: str  # read, look-up, write unit 0.1, create, update, mirror, …
    status: str  # of HTTP, or a word: unreachable, unchanged, refused, …
    delivery: str | None = None
    resource: str | None = None  # Type/id
    table: str | None = None
    row: str | None = None  # the primary key
    notes: tuple[str, ...] = ()  # what was not mapped and why: codes and element paths
    duration: int = 0  # milliseconds
    # Which entries were made by one run of a verb. None: by none, or an earlier version noted it.
    operation: str | None = None


# The actions of entries that say what an operation came to. All others are calls.
RESULT_ACTIONS = ("mirror", "notify")

# The action of the calls by which the app sees whether upstreams answer.
HEALTH_ACTION = "health"


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A queue message: which work waits in the journal, never the work itself."""

    delivery: str
    _: KW_ONLY
    # relay, of the first work item of a delivery: its row as intake has added it, which saves to
    # read it. No other item has it, so it says nothing about which work is meant.
    accepted: Delivery | None = field(default=None, compare=False, repr=False)
    lane: int | None = None  # relay: one lane of a fanned-out delivery
    plan: int = 1  # the number of the plan that the lane belongs to
    resource: str | None = None  # mirror: Type/id
    attempt: int = 0
    since: float | None = None  # when the first attempt failed, seconds since 1970
    conflicts: int = 0  # how often in a row the server answered `conflicted_unit` with 408 or 409
    conflicted_unit: str | None = None
    # mirror: what the sender of the item has heard of. A read that shows less is no current state.
    # None: nothing is known, or the message is of an earlier version of this app.
    version: StateVersion | None = None
    is_create: bool = False  # it has heard that the resource was created
    # mirror: somebody has written the row. Nothing is known of the resource: the row names it.
    is_edit: bool = False
    # mirror: a row that somebody has made shows no resource yet: one of this name is made of it.
    is_new_row: bool = False
    file: str | None = None  # inbox: the sender, and the digest of the name of its file
    # mirror: who sent the delivery, so that its rows are counted with it; None: it is not known.
    sender: str | None = field(default=None, compare=False, kw_only=True)
    # An operator has it tried at once, besides its own turn: if it fails, nothing is queued again.
    once: bool = False
    job: str | None = None  # jobs: the id of the job of which a slice is to be done


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, as the tenant's metadata describes it."""

    name: str
    type: str  # Dataverse's AttributeType: String, Memo, Picklist, State, DateTime, Lookup, …
    _: KW_ONLY
    max_length: int | None = None
    options: frozenset[int] | None = None
    targets: Mapping[str, str] = field(default_factory=dict)  # table -> navigation property
    # Of a DateTime: DateOnly or DateAndTime. Of a String: Text, TextArea, Email, Phone, …
    format: str | None = None
    behavior: str | None = None  # of a DateTime: DateOnly, UserLocal or TimeZoneIndependent
    minimum: int | Decimal | None = None
    maximum: int | Decimal | None = None
    precision: int | None = None  # digits after the decimal point
    required: bool = False  # by forms at least
    enforced: bool = False  # by the platform
    writable_on_create: bool = True
    writable_on_update: bool = True
    secured: bool = False  # by a profile: who may not read it is shown nothing


# The columns of a table by name, and those of several tables by the table's name.
Columns = Mapping[str, Column]
Tables = Mapping[str, Columns]
