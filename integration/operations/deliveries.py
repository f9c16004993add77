"""VERBS get_status, cancel, replay, replay_all: what becomes of deliveries."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from integration.core.errors import Issue, Rejected
from integration.core.log_events import log_event
from integration.core.model import (
    TO_BE_PLANNED,
    Delivery,
    EntryResult,
    RowResult,
    Status,
    WorkItem,
    count_results,
)
from integration.journal.concerns import change_with_concern
from integration.journal.store import Journal
from integration.journal.table_keys import is_delivery_id
from integration.operations import query_parameters
from integration.operations.lost_rows import list_rows_without_result
from integration.queues.names import MIRROR_QUEUE, RELAY_QUEUE
from integration.queues.queue_sender import QueueSender

_CANCELLABLE = frozenset({Status.ACCEPTED, Status.PROCESSING, Status.PARKED, Status.CANCELLED})
_PARKED = frozenset({Status.PARKED})
_REPLAYABLE = frozenset({Status.PARKED, Status.ACCEPTED})  # accepted: where a replay broke off

_UNDER_WAY = frozenset({Status.ACCEPTED, Status.PROCESSING})

# Seconds between two looks at a delivery whose sender waits. Each costs one storage operation.
_FIRST_PAUSE = 0.1
_LAST_PAUSE = 2.0

# The row actions after which an operator can replay a row.
_REPLAYABLE_ACTIONS = ("parked", "refused")

# The query parameters that choose what is replayed.
REPLAY_PARAMETERS = ("status", "reason", "sender", "since", "until", "_count", "after")


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """The status report of a delivery. It has results only at its end, and rows once it is done."""

    delivery: Delivery
    results: Sequence[EntryResult] = ()
    rows: Sequence[RowResult] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayFilter:
    """Which parked deliveries to replay: those for which all of this holds."""

    reason: str = ""  # a part of the reason
    sender: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: str | None = None  # the last delivery of the page before
    count: int = 50


@dataclass(frozen=True, slots=True)
class ReplayPage:
    """Replayed deliveries, the oldest first. `after`: continues the list, None at its end."""

    deliveries: tuple[Delivery, ...]
    after: str | None


async def get_status(journal: Journal, id_: str, sender: str | None = None) -> DeliveryStatus:
    """Return the status report of a delivery. Raises Rejected with 404 for an unknown one.

    `sender`: who asks, and sees its own deliveries only; None: an operator, who sees all.
    """
    delivery = await _get_delivery(journal, id_, sender)
    if delivery.status is Status.CANCELLED:
        written = await journal.list_entry_results(id_)
        return DeliveryStatus(replace(delivery, **count_results(written)), written)
    if delivery.status is not Status.DONE:
        return DeliveryStatus(delivery)  # a sender who polls costs one storage operation
    results, rows = await asyncio.gather(
        journal.list_entry_results(id_), journal.list_row_results(id_)
    )
    return DeliveryStatus(delivery, results, rows)


async def wait_for_end(
    journal: Journal, id_: str, seconds: float, sleep: Callable[[float], Awaitable[None]]
) -> DeliveryStatus:
    """Return the status report of a delivery at its end, or after so many seconds."""
    waited, pause = 0.0, _FIRST_PAUSE
    status = await get_status(journal, id_)
    while status.delivery.status in _UNDER_WAY and waited < seconds:
        await sleep(pause)
        waited, pause = waited + pause, min(pause * 1.5, _LAST_PAUSE)
        status = await get_status(journal, id_)
    return status


async def cancel(journal: Journal, id_: str, now: datetime, sender: str | None = None) -> Delivery:
    """Send nothing more of a delivery. What is written stays written. `sender`: see get_status.

    Raises Rejected: with 404 for an unknown delivery, with 409 for one that is done.
    """
    delivery = await _get_delivery(journal, id_, sender)
    if delivery.answer_due:
        await journal.index_delivery(id_, now)  # housekeeping queues the answer of a parked one
    if not await change_with_concern(
        journal, delivery, None, only_if=_CANCELLABLE, status=Status.CANCELLED, finished=now
    ):
        text = "the delivery is done already and can no longer be cancelled"
        raise Rejected(Issue("conflict", text), status=409)
    log_event("delivery.cancelled", delivery=id_)
    return delivery


async def replay(journal: Journal, queue: QueueSender, id_: str, now: datetime) -> Delivery:
    """Queue a parked delivery again, or the rows of one that is done: the parked and refused ones,
    and those that have no result.

    The delivery's id, the ids of its resources and what is settled stay as they are. Raises
    Rejected: with 404 for an unknown delivery, with 409 when there is nothing to replay.
    """
    delivery = await _get_delivery(journal, id_)
    if delivery.status is Status.DONE:
        await _replay_rows(journal, queue, id_)
    elif not await _requeue(journal, queue, delivery, now):
        text = f"only a parked delivery can be replayed, and this one is {delivery.status}"
        raise Rejected(Issue("conflict", text), status=409)
    return delivery


async def replay_all(
    journal: Journal,
    queue: QueueSender,
    replay_filter: ReplayFilter,
    now: datetime,
    *,
    dry_run: bool,
) -> ReplayPage:
    """Replay parked deliveries, the oldest first. `dry_run`: only find them.

    A request that breaks off can be repeated: what is queued is not parked any more.
    """
    since, until = replay_filter.since, replay_filter.until
    oldest: deque[Delivery] = deque(maxlen=replay_filter.count + 1)
    # The newest first.
    async for delivery in journal.scan_deliveries(_REPLAYABLE, since, until):
        if delivery.status is Status.ACCEPTED and not delivery.unqueued:
            continue
        if _is_match(delivery, replay_filter):
            oldest.append(delivery)
    page = list(reversed(oldest))[: replay_filter.count]
    after = page[-1].id if len(oldest) > len(page) else None
    if not dry_run:
        page = [item for item in page if await _requeue(journal, queue, item, now)]
    return ReplayPage(tuple(page), after)


def parse_replay_filter(params: Mapping[str, str]) -> ReplayFilter:
    """Parse the query parameters of a replay. Raises Rejected."""
    if params.get("status", Status.PARKED) != Status.PARKED:
        raise Rejected(Issue("value", "only parked deliveries can be replayed", "status"))
    return ReplayFilter(
        reason=params.get("reason", ""),
        sender=params.get("sender"),
        since=query_parameters.parse_datetime(params, "since"),
        until=query_parameters.parse_datetime(params, "until"),
        after=query_parameters.parse_after(params.get("after")),
        count=query_parameters.parse_count(params.get("_count", query_parameters.DEFAULT_COUNT)),
    )


async def _replay_rows(journal: Journal, queue: QueueSender, id_: str) -> None:
    rows = await journal.list_row_results(id_)
    items = [
        WorkItem(id_, resource=row.resource) for row in rows if row.action in _REPLAYABLE_ACTIONS
    ]
    items += await list_rows_without_result(journal, id_)
    if not items:
        text = "this delivery has no parked or refused rows to replay, and none without a result"
        raise Rejected(Issue("conflict", text), status=409)
    await asyncio.gather(*(queue.send(MIRROR_QUEUE, item) for item in items))


async def _requeue(journal: Journal, queue: QueueSender, delivery: Delivery, now: datetime) -> bool:
    """Queue a parked delivery again, or one whose replay broke off. Return whether it was either.

    It is planned anew, with the limits of now: they may be what was mended.
    """
    # The status first, since a worker that gets the work item early must find it accepted. If this
    # ends in between, `unqueued` tells housekeeping, and the next replay.
    id_ = delivery.id
    if delivery.unqueued and delivery.status is Status.ACCEPTED:
        is_due = True
    else:
        await journal.index_delivery(id_, now)  # for housekeeping, which looks at it soon
        is_due = await change_with_concern(
            journal,
            delivery,
            None,
            only_if=_PARKED,
            status=Status.ACCEPTED,
            reason=None,
            parked=None,
            replayed=now,
            unqueued=True,
            planner=TO_BE_PLANNED,
        )
    if is_due:
        await queue.send(RELAY_QUEUE, WorkItem(id_))
        await journal.update_delivery(id_, unqueued=False)
    return is_due


def _is_match(delivery: Delivery, replay_filter: ReplayFilter) -> bool:
    return (
        replay_filter.reason in (delivery.reason or "")
        and replay_filter.sender in (None, delivery.sender)
        and (replay_filter.after is None or delivery.id > replay_filter.after)
    )


async def _get_delivery(journal: Journal, id_: str, sender: str | None = None) -> Delivery:
    delivery = await journal.get_delivery(id_) if is_delivery_id(id_) else None
    if delivery is None or sender not in (None, delivery.sender):
        raise Rejected(Issue("not-found", "no delivery has this id"), status=404)
    return delivery
