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
from integration.journal.keys import new_delivery_id
from integration.journal.store import Journal
from integration.queues.names import RELAY_QUEUE
from integration.queues.queue_sender import QueueSender

# The most deliveries that one run acts on, of those on their way and of those that are over.
MOST = 1000

# The most entries of the activity log that one run removes: a hundred transactions.
MOST_ACTIVITY = 10_000

# Deliveries that are worked on at the same time.
_SIDE_BY_SIDE = 16

# Carrying begins within seconds; a lane takes minutes.
_BEGINS_WITHIN = timedelta(minutes=10)
_GOES_ON_WITHIN = timedelta(hours=1)

# How much longer than its claims a delivery may take: they may wait in the queue, too.
_GRACE = timedelta(hours=1)

_ON_THEIR_WAY = frozenset({Status.ACCEPTED, Status.PROCESSING})
_OVER = frozenset({Status.DONE, Status.CANCELLED})

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

    most: timedelta
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


def due(delivery: Delivery, now: datetime, ages: Ages) -> Step | None:
    """What is to be done with a delivery at this moment. Pure."""
    if delivery.status in _OVER:
        ended = delivery.finished or delivery.accepted
        return Step.FORGET if now - ended >= ages.retention else None
    if delivery.status not in _ON_THEIR_WAY:
        return None
    begun = delivery.replayed or delivery.accepted
    if now - begun > ages.most + _GRACE:
        return Step.PARK
    patience = _BEGINS_WITHIN if delivery.status is Status.ACCEPTED else _GOES_ON_WITHIN
    last = max(begun, delivery.looked or begun)
    # Each time twice as long: what waits in a long queue must not make it longer and longer.
    return Step.QUEUE if now - last >= max(patience, last - begun) else None


async def sweep(it: Housekeeping) -> None:
    """One run; what is left over is for the next. Raises the first error, after all was tried."""
    now = it.now()
    on_their_way, more = await _found(it, _ON_THEIR_WAY, now, now - _BEGINS_WITHIN)
    # Nothing is over before it was accepted, so younger days are not looked through.
    over, more_over = await _found(it, _OVER, now, now - it.ages.retention)
    places = asyncio.Semaphore(_SIDE_BY_SIDE)

    async def taken(delivery: Delivery, step: Step) -> Step | None:
        async with places:
            return await _take(it, delivery, step, now)

    results = await asyncio.gather(
        *(taken(*found) for found in (*on_their_way, *over)), return_exceptions=True
    )
    failed = [result for result in results if isinstance(result, BaseException)]
    turns = await _forget_turns(it, now)
    activity = await it.activity.forget(now - it.ages.activity, MOST_ACTIVITY)
    log_event(
        "housekeeping.done",
        queued=results.count(Step.QUEUE),
        parked=results.count(Step.PARK),
        forgotten=results.count(Step.FORGET),
        locks=turns,
        activity=activity,
        failed=len(failed),
        more=more or more_over or activity == MOST_ACTIVITY,
    )
    if failed:
        raise failed[0]


async def _forget_turns(it: Housekeeping, now: datetime) -> int:
    """Those that no delivery asks for any more: parked ones may be replayed, however old."""
    oldest = now - it.ages.retention
    waiting = frozenset({Status.PARKED, *_ON_THEIR_WAY})
    async for delivery in it.journal.scan(waiting, None, oldest):
        oldest = min(oldest, delivery.accepted)
    return await it.guard_store.forget(new_delivery_id(oldest, 0), now.timestamp(), MOST)


async def _found(
    it: Housekeeping, statuses: frozenset[Status], now: datetime, until: datetime
) -> tuple[list[tuple[Delivery, Step]], bool]:
    """What is due, up to a bound, and whether there is more."""
    found: list[tuple[Delivery, Step]] = []
    async for delivery in it.journal.scan(statuses, None, until):
        step = due(delivery, now, it.ages)
        if step is None:
            continue
        if len(found) == MOST:
            return found, True
        found.append((delivery, step))
    return found, False


async def _take(it: Housekeeping, delivery: Delivery, step: Step, now: datetime) -> Step | None:
    """Do what is due; None where nothing was to be done after all."""
    match step:
        case Step.FORGET:
            await it.journal.forget(delivery.id)
            return step
        case Step.PARK:
            return step if await _parked(it, delivery) else None
        case Step.QUEUE:
            return step if await _queued(it, delivery, now) else None


async def _parked(it: Housekeeping, delivery: Delivery) -> bool:
    parked = await it.journal.change(
        delivery.id, only_if=_ON_THEIR_WAY, status=Status.PARKED, reason=_TOO_OLD
    )
    if parked:
        log_event("delivery.parked", delivery=delivery.id, lane=None, attempt=0, reason=_TOO_OLD)
    return parked


async def _queued(it: Housekeeping, delivery: Delivery, now: datetime) -> bool:
    """Queue again what does not go on, then note the look: if this ends in between, it is queued
    once more."""
    claims = await _lost(it.journal, delivery)
    for claim in claims:
        await it.queue.send(RELAY_QUEUE, claim)
    if claims:
        log_event(
            "delivery.queued_again",
            delivery=delivery.id,
            status=delivery.status,
            work_items=len(claims),
        )
    await it.journal.change(
        delivery.id,
        only_if=frozenset({delivery.status}),
        looked=now,
        looked_done=delivery.lanes_done,
    )
    return bool(claims)


async def _lost(journal: Journal, delivery: Delivery) -> list[WorkItem]:
    """The claims that may have been lost. What has begun is put back by who carries it."""
    if delivery.status is Status.ACCEPTED:
        return [] if await journal.begun(delivery.id) else [WorkItem(delivery.id)]
    if delivery.lanes_done != delivery.looked_done:
        return []
    # With all lanes done, only the end is missing: any lane finds that out.
    lanes = await journal.lanes_left(delivery.id) or [0]
    return [WorkItem(delivery.id, lane=lane) for lane in lanes]
