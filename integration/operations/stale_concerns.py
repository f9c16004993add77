"""Drop the concerns of what was mended, where the worker that mended it ended before it did so.

A row may be parked just after another work item has brought it up to date: which of the two came
last, nobody can tell without asking both servers. So housekeeping has it tried once more.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from integration.core.model import Delivery, Status
from integration.journal.attention import ConcernFilter
from integration.journal.concern import ROW_KINDS, Concern, ConcernKind
from integration.journal.row_keys import RowKeys
from integration.journal.store import Journal
from integration.operations.lost_rows import build_row_item
from integration.queues.names import MIRROR_QUEUE
from integration.queues.queue_sender import QueueSender

# The most concerns that one run looks at, the newest first. Each costs a read or two.
MAX_CONCERNS = 5000

_PAGE = 500

# Concerns that are looked at at the same time.
_MAX_CONCURRENT = 16

# A concern is added before its delivery names it: for so long it may not be named yet.
_GRACE = timedelta(minutes=10)

# A row that was parked is tried once more, by the one or two runs of housekeeping between these
# ages of its concern. After them it waits for a person: a service that is away for days is not
# asked for each of its rows every ten minutes.
_TRIED_AFTER, _TRIED_UNTIL = timedelta(minutes=10), timedelta(minutes=25)

# So long after a row needed attention, a delivery that is not there was deleted.
_DELETED_AFTER = timedelta(days=1)

_STATUSES = {
    ConcernKind.PARKED: frozenset({Status.PARKED}),
    ConcernKind.HELD: frozenset({Status.PARKED}),
    ConcernKind.WAITING: frozenset({Status.ACCEPTED, Status.PROCESSING}),
    ConcernKind.ENTRIES: frozenset({Status.DONE}),
}


async def drop_stale_concerns(
    journal: Journal, row_keys: RowKeys, queue: QueueSender, now: datetime
) -> int:
    """Drop the concerns that nobody names any more, or that do not fit the state of their delivery.
    Return how many. Rows that were parked lately are tried once more. Raises Unavailable."""
    semaphore = asyncio.Semaphore(_MAX_CONCURRENT)

    async def check(concern: Concern) -> bool:
        async with semaphore:
            if await _drop_if_stale(journal, row_keys, concern, now):
                return True
            await _try_again(journal, queue, concern, now)
            return False

    dropped, after = 0, None
    for _ in range(MAX_CONCERNS // _PAGE):
        page = await journal.list_concerns(ConcernFilter(), _PAGE, after)
        dropped += sum(await asyncio.gather(*map(check, page.concerns)))
        after = page.after
        if after is None:
            break
    return dropped


async def _drop_if_stale(
    journal: Journal, row_keys: RowKeys, concern: Concern, now: datetime
) -> bool:
    delivery = await journal.get_delivery(concern.delivery)
    if concern.kind in ROW_KINDS:
        is_deleted = delivery is None and now - concern.since >= _DELETED_AFTER
        return await _drop_row_concern_if_stale(journal, row_keys, concern, is_deleted=is_deleted)
    if now - concern.since < _GRACE or is_current(concern, delivery):
        return False
    if delivery is not None and delivery.attention == concern.id:
        await journal.update_delivery(
            delivery.id, only_if=frozenset({delivery.status}), seen=delivery, attention=""
        )
    await journal.delete_concern(concern.id)
    return True


async def _try_again(journal: Journal, queue: QueueSender, concern: Concern, now: datetime) -> None:
    """Queue a row that was parked lately. If it is well by now, its concern is dropped; if not, it
    stays parked."""
    is_due = _TRIED_AFTER <= now - concern.since < _TRIED_UNTIL
    if concern.kind is not ConcernKind.ROW_PARKED or not is_due or concern.resource is None:
        return
    delivery = await journal.get_delivery(concern.delivery)
    if delivery is not None:
        await queue.send(MIRROR_QUEUE, build_row_item(delivery, concern.resource, once=True))


def is_current(concern: Concern, delivery: Delivery | None) -> bool:
    """Whether a concern of a delivery tells of its present state. Pure."""
    return (
        delivery is not None
        and delivery.attention == concern.id
        and (delivery.status in _STATUSES[concern.kind] or _waits_for_correction(delivery))
    )


def _waits_for_correction(delivery: Delivery) -> bool:
    """Whether it is to be seen until its correction has ended. One that was parked is cancelled
    when another takes its place."""
    return delivery.corrected_by is not None and delivery.status is Status.CANCELLED


async def _drop_row_concern_if_stale(
    journal: Journal, row_keys: RowKeys, concern: Concern, *, is_deleted: bool
) -> bool:
    """A row whose delivery is deleted can no longer be replayed: nobody can do anything about it
    but in FHIR or Dataverse."""
    type_, _, id_ = (concern.resource or "").partition("/")
    recorded = await row_keys.read(type_, id_)
    is_named = recorded.concern == concern.id
    if is_named and not is_deleted:
        return False
    if is_named and not await row_keys.unname_concern(type_, id_, recorded):
        return False  # raised again just now
    await journal.delete_concern(concern.id)
    return True
