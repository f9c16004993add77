"""VERB sweep: queue what was lost on its way, park what takes too long, forget what is over.

What it does twice, or in two instances at the same time, does no harm: a claim for what is settled
sends nothing, a state is changed only from the one that was seen, and a delivery that is half
forgotten is found again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from integration.core.log_events import log_event
from integration.core.model import Delivery, Status, WorkItem
from integration.journal.activity import ActivityLog
from integration.journal.guard_store import GuardStore
from integration.journal.keys import make_delivery_id
from integration.journal.store import Journal
from integration.queues.names import RELAY_QUEUE
from integration.queues.queue_sender import QueueSender

# The most deliveries that one run acts on, of those on their way and of those that are over.
MAX_DELIVERIES = 1000

# The most entries of the activity log that one run removes: a hundred transactions.
MAX_ACTIVITY = 10_000

# Deliveries that are worked on at the same time.
_MAX_CONCURRENT = 16

# Carrying begins within seconds; a lane takes minutes.
_START_TIMEOUT = timedelta(minutes=10)
_PROGRESS_TIMEOUT = timedelta(hours=1)

# How much longer than its claims a delivery may take: they may wait in the queue, too.
_GRACE = timedelta(hours=1)

_ACTIVE = frozenset({Status.ACCEPTED, Status.PROCESSING})
_ENDED = frozenset({Status.DONE, Status.CANCELLED})

_TOO_OLD = "not done within MAX_AGE and an hour: mend what held it up, then replay it"


class Step(StrEnum):
    """What a delivery needs. Parked ones need nothing: they wait for an operator."""

    QUEUE = "queued"  # again, unless it goes on
    PARK = "parked"
    FORGET = "forgotten"


@dataclass(frozen=True, slots=True)
class Ages:
    """How long a delivery may take, how long it is kept when it is over, and how long the entries
    of the activity log are."""

    max_age: timedelta
    retention: timedelta
    activity: timedelta


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """What sweeping needs."""

    journal: Journal
    guard_store: GuardStore
    queue: QueueSender
    activity: ActivityLog
    now: Callable[[], datetime]
    ages: Ages


def choose_step(delivery: Delivery, now: datetime, ages: Ages) -> Step | None:
    """What is to be done with a delivery at this moment. Pure."""
    if delivery.status in _ENDED:
        ended = delivery.finished or delivery.accepted
        return Step.FORGET if now - ended >= ages.retention else None
    if delivery.status not in _ACTIVE:
        return None
    started = delivery.replayed or delivery.accepted
    if now - started > ages.max_age + _GRACE:
        return Step.PARK
    timeout = _START_TIMEOUT if delivery.status is Status.ACCEPTED else _PROGRESS_TIMEOUT
    last_look = max(started, delivery.checked or started)
    # Each time twice as long: what waits in a long queue must not make it longer and longer.
    return Step.QUEUE if now - last_look >= max(timeout, last_look - started) else None


async def sweep(housekeeping: Housekeeping) -> None:
    """One run; what is left over is for the next. Raises the first error, after all was tried."""
    now = housekeeping.now()
    active, more_active = await _find_due(housekeeping, _ACTIVE, now, now - _START_TIMEOUT)
    # Nothing is over before it was accepted, so younger days are not looked through.
    ended, more_ended = await _find_due(
        housekeeping, _ENDED, now, now - housekeeping.ages.retention
    )
    semaphore = asyncio.Semaphore(_MAX_CONCURRENT)

    async def run_step(delivery: Delivery, step: Step) -> Step | None:
        async with semaphore:
            return await _run_step(housekeeping, delivery, step, now)

    results = await asyncio.gather(
        *(run_step(*due) for due in (*active, *ended)), return_exceptions=True
    )
    failed = [result for result in results if isinstance(result, BaseException)]
    locks = await _forget_locks(housekeeping, now)
    activity = await housekeeping.activity.delete_before(
        now - housekeeping.ages.activity, MAX_ACTIVITY
    )
    log_event(
        "housekeeping.done",
        queued=results.count(Step.QUEUE),
        parked=results.count(Step.PARK),
        forgotten=results.count(Step.FORGET),
        locks=locks,
        activity=activity,
        failed=len(failed),
        more=more_active or more_ended or activity == MAX_ACTIVITY,
    )
    if failed:
        raise failed[0]


async def _forget_locks(housekeeping: Housekeeping, now: datetime) -> int:
    """Those that no delivery asks for any more: parked ones may be replayed, however old."""
    oldest = now - housekeeping.ages.retention
    needed = frozenset({Status.PARKED, *_ACTIVE})
    async for delivery in housekeeping.journal.scan_deliveries(needed, None, oldest):
        oldest = min(oldest, delivery.accepted)
    return await housekeeping.guard_store.delete_old(
        make_delivery_id(oldest, 0), now.timestamp(), MAX_DELIVERIES
    )


async def _find_due(
    housekeeping: Housekeeping, statuses: frozenset[Status], now: datetime, until: datetime
) -> tuple[list[tuple[Delivery, Step]], bool]:
    """What is due, up to a bound, and whether there is more."""
    due: list[tuple[Delivery, Step]] = []
    async for delivery in housekeeping.journal.scan_deliveries(statuses, None, until):
        step = choose_step(delivery, now, housekeeping.ages)
        if step is None:
            continue
        if len(due) == MAX_DELIVERIES:
            return due, True
        due.append((delivery, step))
    return due, False


async def _run_step(
    housekeeping: Housekeeping, delivery: Delivery, step: Step, now: datetime
) -> Step | None:
    """Do what is due; None where nothing was to be done after all."""
    match step:
        case Step.FORGET:
            await housekeeping.journal.delete_delivery(delivery.id)
            return step
        case Step.PARK:
            return step if await _park(housekeeping, delivery) else None
        case Step.QUEUE:
            return step if await _requeue(housekeeping, delivery, now) else None


async def _park(housekeeping: Housekeeping, delivery: Delivery) -> bool:
    parked = await housekeeping.journal.update_delivery(
        delivery.id, only_if=_ACTIVE, status=Status.PARKED, reason=_TOO_OLD
    )
    if parked:
        log_event("delivery.parked", delivery=delivery.id, lane=None, attempt=0, reason=_TOO_OLD)
    return parked


async def _requeue(housekeeping: Housekeeping, delivery: Delivery, now: datetime) -> bool:
    """Queue again what does not go on, then note the look: if this ends in between, it is queued
    once more."""
    items = await _list_lost_items(housekeeping.journal, delivery)
    for item in items:
        await housekeeping.queue.send(RELAY_QUEUE, item)
    if items:
        log_event(
            "delivery.queued_again",
            delivery=delivery.id,
            status=delivery.status,
            work_items=len(items),
        )
    await housekeeping.journal.update_delivery(
        delivery.id,
        only_if=frozenset({delivery.status}),
        checked=now,
        lanes_done_at_check=delivery.lanes_done,
    )
    return bool(items)


async def _list_lost_items(journal: Journal, delivery: Delivery) -> list[WorkItem]:
    """The claims that may have been lost. What has begun is put back by who carries it."""
    if delivery.status is Status.ACCEPTED:
        return [] if await journal.has_begun(delivery.id) else [WorkItem(delivery.id)]
    if delivery.lanes_done != delivery.lanes_done_at_check:
        return []
    # With all lanes done, only the end is missing: any lane finds that out.
    lanes = await journal.list_open_lanes(delivery.id) or [0]
    return [WorkItem(delivery.id, lane=lane) for lane in lanes]
