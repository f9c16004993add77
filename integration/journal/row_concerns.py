"""Concerns of rows: one for each resource, whichever delivery it is about.

The record of a row's key names its concern. The mirror reads that record anyway, but for a row that
it has just created, so that a row that is well costs nothing, and a later delivery's success drops
the concern of an earlier one.
"""

from __future__ import annotations

from datetime import datetime

from integration.core.model import RowResult
from integration.journal.bounds import bound_text
from integration.journal.concern import MAX_REASON_LENGTH, Concern, ConcernKind, build_concern_id
from integration.journal.row_keys import RecordedRow, RowKeys
from integration.journal.store import Journal
from integration.journal.table_keys import parse_activity_time


def choose_row_kind(result: RowResult) -> ConcernKind | None:
    """Return what kind of concern a row result is; None: it needs no attention. Pure."""
    if result.action == "refused" or result.left_out:
        return ConcernKind.ROW_REFUSED
    if result.action == "parked":
        return ConcernKind.ROW_PARKED
    return ConcernKind.ROW_INCOMPLETE if result.waits else None


async def raise_row_concern(
    journal: Journal,
    row_keys: RowKeys,
    result: RowResult,
    kind: ConcernKind,
    now: datetime,
    *,
    attempts: int = 0,
    next_attempt: datetime | None = None,
) -> None:
    """Record that a row needs attention, since `now` unless it did before. `attempts`,
    `next_attempt`: of one that waits.

    The record of its key names the concern before there is one: so every concern is found by a
    later success, wherever a worker ends.
    """
    type_, _, id_ = result.resource.partition("/")
    recorded = await row_keys.read(type_, id_)
    concern_id = recorded.concern or build_concern_id(now, result.resource)
    delivery = await journal.get_delivery(result.delivery)
    await row_keys.name_concern(type_, id_, concern_id)
    waits = f"waits for {', '.join(result.waits)}"
    reason = waits if kind is ConcernKind.ROW_INCOMPLETE else "; ".join(result.notes)
    await journal.put_concern(
        Concern(
            id=concern_id,
            since=parse_activity_time(concern_id),
            kind=kind,
            delivery=result.delivery,
            sender=delivery.sender if delivery else "",
            reason=bound_text(reason, MAX_REASON_LENGTH),
            resource=result.resource,
            table=result.table or None,
            attempts=attempts,
            next_attempt=next_attempt,
        )
    )


async def drop_row_concern(
    journal: Journal, row_keys: RowKeys, resource: str, recorded: RecordedRow
) -> None:
    """Drop the concern of a row that is well, unless somebody has raised it again since the record
    was read: then it fails to be unnamed, and stays."""
    if recorded.concern is None:
        return
    type_, _, id_ = resource.partition("/")
    if await row_keys.unname_concern(type_, id_, recorded):
        await journal.delete_concern(recorded.concern)
