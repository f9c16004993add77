"""A concern: one thing that is not where it should be. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from integration.core.model import EntryResult
from integration.journal.bounds import bound_text
from integration.journal.table_keys import build_audit_id

# Characters of a reason: enough for the first issue, and the delivery has the rest.
MAX_REASON_LENGTH = 500

# Positions of entries that are named; the others are counted.
MAX_POSITIONS = 20


class ConcernKind(StrEnum):
    """What kind of thing it is, and so what an operator can do."""

    ENTRIES = "entries"  # of a delivery that is done, and that were refused
    PARKED = "parked"  # a delivery, or a lane of it
    HELD = "held"  # kept for an operator, since its sender is not to hear of a refusal
    WAITING = "waiting"  # a delivery that waits until an operator mends something
    ROW_REFUSED = "row-refused"  # all of it, or rows of its children and concepts
    ROW_PARKED = "row-parked"
    ROW_WAITING = "row-waiting"  # until an operator mends something
    ROW_INCOMPLETE = "row-incomplete"  # a lookup waits for the row of another resource


class ConcernGroup(StrEnum):
    """What the parameter `attention` of a list chooses."""

    ENTRIES = "entries"
    DELIVERY = "delivery"
    ROWS = "rows"
    ANY = "any"


ROW_KINDS = frozenset(kind for kind in ConcernKind if kind.startswith("row-"))

KINDS_OF_GROUPS = {
    ConcernGroup.ENTRIES: frozenset({ConcernKind.ENTRIES}),
    ConcernGroup.DELIVERY: frozenset({ConcernKind.PARKED, ConcernKind.HELD, ConcernKind.WAITING}),
    ConcernGroup.ROWS: ROW_KINDS,
    ConcernGroup.ANY: frozenset(ConcernKind),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Concern:
    """One thing that needs attention. Codes, ids and element paths only, no values."""

    id: str  # sorts by time, the newest first
    since: datetime
    kind: ConcernKind
    delivery: str
    sender: str
    reason: str
    lane: int | None = None
    positions: tuple[int, ...] = ()  # of the refused entries, the first of them
    number: int = 0  # of all refused entries
    resource: str | None = None  # Type/id, whose row it is
    table: str | None = None
    # Of what waits: how many attempts failed, and when the next one is due.
    attempts: int = 0
    next_attempt: datetime | None = None


def build_concern_id(since: datetime, thing: str) -> str:
    """Return the id of a concern: of the same thing and time it is the same. `thing`: a delivery,
    or a resource."""
    return build_audit_id(since, hashlib.sha256(thing.encode()).hexdigest()[:16])


def build_delivery_concern(
    kind: ConcernKind,
    delivery: str,
    sender: str,
    since: datetime,
    *,
    reason: str,
    lane: int | None = None,
    attempts: int = 0,
    next_attempt: datetime | None = None,
) -> Concern:
    """Build the concern of a delivery that is parked or held, or waits for an operator."""
    return Concern(
        id=build_concern_id(since, delivery),
        since=since,
        kind=kind,
        delivery=delivery,
        sender=sender,
        reason=bound_text(reason, MAX_REASON_LENGTH),
        lane=lane,
        attempts=attempts,
        next_attempt=next_attempt,
    )


def build_entries_concern(
    delivery: str, sender: str, since: datetime, refused: Sequence[EntryResult]
) -> Concern:
    """Build the concern of a delivery that is done and has refused entries. Its reason is that of
    the first: the issues of the others are in the answer of the delivery."""
    return Concern(
        id=build_concern_id(since, delivery),
        since=since,
        kind=ConcernKind.ENTRIES,
        delivery=delivery,
        sender=sender,
        reason=bound_text(_describe_refusal(refused[0]), MAX_REASON_LENGTH),
        positions=tuple(result.position for result in refused[:MAX_POSITIONS]),
        number=len(refused),
    )


def _describe_refusal(result: EntryResult) -> str:
    """Return the status and the codes of a refusal: equal ones of several deliveries have one
    reason, so the position is beside it. The texts of its issues may be those of the
    FHIR server, which may quote a value; no table holds one."""
    codes = dict.fromkeys(str(issue.get("code", "")) for issue in result.issues or ())
    words = [code for code in codes if code.isascii() and code.replace("-", "").isalpha()]
    return " ".join([str(result.status), *words])
