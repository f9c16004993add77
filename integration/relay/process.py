"""VERB process: plan a delivery, write each unit to the FHIR server, record every result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial

from integration.core.errors import Issue, Misconfigured, Rejected, Unavailable
from integration.core.log_events import log_event
from integration.core.model import (
    TO_BE_PLANNED,
    Delivery,
    EntryResult,
    Status,
    WorkItem,
)
from integration.core.offload import offload
from integration.fhir import operation_outcome, units
from integration.fhir.plan import PLANNER, Plan, plan
from integration.fhir.resource_ids import Naming
from integration.fhir.rights import FORBIDDEN
from integration.fhir.units import Lane, Limits
from integration.journal.corrections import close_corrected, take_place
from integration.journal.lane_bits import has_lane, list_unqueued_lanes
from integration.journal.store import NO_LANE, list_settled
from integration.queues.names import RELAY_QUEUE
from integration.queues.queue_sender import queue_answer
from integration.queues.retry import hasten_unseen, plan_retry
from integration.relay import fetch
from integration.relay.corrections import record_taken_over
from integration.relay.end import ACTIVE, finish, finish_from_journal, park, record_cancelled
from integration.relay.lane import (
    TimeUp,
    can_begin_at_once,
    process_lane,
    process_only_unit,
)
from integration.relay.lane_run import DeliveryChanged
from integration.relay.parts import Relay
from integration.relay.waiting import record_waiting

# Storage operations of one delivery that run at the same time.
_MAX_CONCURRENT = 16

# The kinds of delivery for which something may be fetched, or was at an earlier attempt.
_FETCHING = ("searchset", "notification")

# Until then the row of a delivery is as intake has added it, unless its sender cancels it. What
# waits for ten minutes in the queue, housekeeping looks at, which changes the row.
_FRESH = timedelta(minutes=5)


async def process(relay: Relay, item: WorkItem) -> None:
    """Process a delivery, or one lane of it. If an upstream fails, requeue or park it; if it takes
    long, queue the rest.

    Raises LookupError when the journal does not know the delivery, and Unavailable when the work
    item cannot be requeued.
    """
    async with relay.activities.track(delivery=item.delivery):
        try:
            await _process_item(relay, item)
        except (Unavailable, Misconfigured) as error:
            await _requeue_or_park(relay, item, error)
        except TimeUp:
            await _hand_on(relay, item)
        except Rejected as error:
            # It was kept for an operator, and still cannot be read; or it can correct nothing.
            await park(relay.journal, item, f"refused: {error}", relay.now())


async def _requeue_or_park(
    relay: Relay, item: WorkItem, error: Unavailable | Misconfigured
) -> None:
    if item.once:
        reason = str(error)
        log_event("delivery.tried", error, delivery=item.delivery, lane=item.lane, reason=reason)
        return
    retry = plan_retry(item, error, relay.now(), relay.max_age)
    if retry.delay is None:
        await park(relay.journal, item, str(error), relay.now())
        return
    reason, delay = str(error), retry.delay
    try:
        await record_waiting(relay.journal, retry, error, relay.now())
    except (Unavailable, Misconfigured) as failure:  # it may be the storage that it waits for
        reason = f"{reason}; not recorded: {failure}"
        if isinstance(error, Misconfigured):
            delay = hasten_unseen(delay)
    log_event(
        "delivery.requeued",
        error,
        delivery=item.delivery,
        lane=item.lane,
        attempt=item.attempt,
        reason=reason,
    )
    await relay.queue.send(RELAY_QUEUE, retry.item, delay)


async def _hand_on(relay: Relay, item: WorkItem) -> None:
    """Queue the rest of a lane that is healthy. It is no failure, and no attempt."""
    rest = WorkItem(item.delivery, lane=item.lane, plan=item.plan, once=item.once)
    await relay.queue.send(RELAY_QUEUE, rest)
    log_event("delivery.handed_on", delivery=item.delivery, lane=item.lane)


async def _process_item(relay: Relay, item: WorkItem) -> None:
    if item.accepted is not None and _is_probably_unchanged(relay, item.accepted):
        try:
            await _process_delivery(relay, item.accepted, item)
            return
        except DeliveryChanged:
            pass
    item = replace(item, accepted=None)
    delivery = await relay.journal.get_delivery(item.delivery)
    if delivery is None:
        raise LookupError(f"delivery {item.delivery} is queued but not in the journal")
    if delivery.status in (Status.DONE, Status.CANCELLED):
        # Whoever ended it may have been ended itself before it did what follows.
        if delivery.status is Status.DONE and delivery.corrects is not None:
            await close_corrected(relay.journal, delivery)
        await queue_answer(relay.queue, delivery)
        return
    if item.lane is not None and item.plan != delivery.plan:
        return  # the delivery was planned anew since
    if item.lane is None:
        await _process_delivery(relay, delivery, item)
    elif delivery.planner == PLANNER:
        await _process_queued_lane(relay, delivery, item, item.lane)
    else:
        # Another version of this app has stored the lane: the delivery is to be planned anew.
        await relay.queue.send(RELAY_QUEUE, WorkItem(delivery.id, once=item.once))


def _is_probably_unchanged(relay: Relay, accepted: Delivery) -> bool:
    """Whether to process a delivery as intake has added it, without reading its row. If it has
    changed all the same, that is found before anything is sent, but it was planned in vain."""
    is_fresh = relay.now() - accepted.accepted < _FRESH
    return is_fresh and accepted.planner == PLANNER and accepted.kind not in _FETCHING


def _start_timer(relay: Relay) -> Callable[[], bool]:
    """Return whether `max_duration` is over, each time that it is called."""
    started = relay.now()
    return lambda: (relay.now() - started).total_seconds() >= relay.max_duration


async def _process_queued_lane(
    relay: Relay, delivery: Delivery, item: WorkItem, number: int
) -> None:
    """Process a lane that was stored by a fan-out. The last lane finishes the delivery."""
    journal = relay.journal
    if has_lane(delivery.done_lanes, number):
        is_finished = delivery.lanes_done >= delivery.lanes
    else:
        timer = _start_timer(relay)
        lane = units.decode_lane(await journal.get_lane(delivery.id, delivery.plan, number))
        results = await process_lane(relay.context, delivery, lane, item, timer)
        if results is None:
            await record_cancelled(relay, delivery)
            return
        is_finished = await journal.finish_lane(delivery.id, delivery.plan, number)
    if is_finished:
        # It has changed since it was read: not to be taken for what is there now.
        await finish_from_journal(relay, replace(delivery, etag=None))


async def _process_delivery(relay: Relay, delivery: Delivery, item: WorkItem) -> None:
    """Plan a delivery. Process its one lane, or queue each of its lanes.

    Raises DeliveryChanged when its row is no longer as its first work item says.
    """
    timer = _start_timer(relay)
    delivery = await _ensure_planner(relay, delivery)
    if delivery.corrects is not None:
        await _begin_correction(relay, delivery)
    delivery, delivery_plan = await _make_plan(relay, delivery)
    lanes = delivery_plan.lanes
    is_small = len(lanes) == 1 and not delivery_plan.refused and can_begin_at_once(lanes[0])
    if item.accepted is not None and not is_small:
        current = await relay.journal.get_delivery(delivery.id)
        if current is None or current.etag != delivery.etag:
            raise DeliveryChanged
    refused = await _record_refused(relay, delivery, delivery_plan)
    are_saved = delivery.status is Status.PROCESSING and delivery.lanes == len(lanes)
    delivery = replace(
        delivery,
        lanes=len(lanes),
        units=sum(len(lane.units) for lane in lanes),
        split=delivery_plan.split,
    )
    if len(lanes) > 1:
        if are_saved or await _save_lanes(relay, delivery, lanes):
            await _queue_lanes(relay, delivery, list_unqueued_lanes(delivery))
        return
    lane = lanes[0] if lanes else Lane(())
    if item.accepted is not None and is_small:
        begun, settled = await process_only_unit(relay.context, delivery, lane, item)
        await finish(relay, begun, settled)
        return
    results = await process_lane(relay.context, delivery, lane, item, timer)
    if results is None:
        await record_cancelled(relay, delivery)
    elif delivery.round:  # what was settled in earlier rounds counts, too
        await finish_from_journal(relay, delivery)
    else:
        await finish(relay, delivery, [*refused, *results])


async def _begin_correction(relay: Relay, delivery: Delivery) -> None:
    """Take the place of the delivery that is corrected, and take over what it has written. Raises
    Rejected where it is not to be corrected any more."""
    if not await take_place(relay.journal, delivery, relay.now()):
        text = (
            f"{delivery.corrects} cannot be corrected any more: it was replayed, cancelled or "
            "corrected otherwise"
        )
        raise Rejected(Issue("conflict", text), status=409)
    corrected = await relay.journal.get_delivery(delivery.corrects or "")
    size = delivery.bytes + (corrected.bytes if corrected is not None else 0)
    async with relay.budget.take(size, relay.max_wait):
        await record_taken_over(relay.journal, delivery)


async def _ensure_planner(relay: Relay, delivery: Delivery) -> Delivery:
    """Return the delivery with the number and the limits of a plan that this app's planner makes.

    A plan stands as long as the planner is the same. Of another planner's plan the limits stay;
    after a replay they are those of now. Results are found by the positions of entries, so what is
    settled stays settled.
    """
    if delivery.planner == PLANNER:
        return delivery
    limits = relay.limits if delivery.planner == TO_BE_PLANNED else _get_limits(delivery)
    await relay.journal.begin_plan(
        delivery.id,
        delivery.plan + 1,
        planner=PLANNER,
        unit_max_entries=limits.entries,
        unit_max_bytes=limits.bytes,
        over_limit=limits.over,
    )
    planned = await relay.journal.get_delivery(delivery.id)
    if planned is None or planned.planner != PLANNER:
        raise Unavailable("journal", "another worker is planning the delivery")
    return planned


def _get_limits(delivery: Delivery) -> Limits:
    """Return the limits that the delivery is planned with."""
    return Limits(delivery.unit_max_entries, delivery.unit_max_bytes, delivery.over_limit)


async def _make_plan(relay: Relay, delivery: Delivery) -> tuple[Delivery, Plan]:
    """Return the plan, and the delivery with the entries that were fetched for it."""
    async with relay.budget.take(_estimate_bytes(relay, delivery), relay.max_wait):
        payload = await relay.journal.get_payload(delivery.id)
        contents, size = await fetch.read_contents(
            relay.sources, relay.journal, delivery.id, payload
        )
        counted = replace(
            delivery,
            # What was held could not be read when it came.
            kind=contents.kind if delivery.kind == "held" else delivery.kind,
            entries=len(contents.entries),
            more=contents.has_next_page,
        )
        if counted != delivery:
            await relay.journal.update_delivery(
                delivery.id, kind=counted.kind, entries=counted.entries, more=counted.more
            )
            counted = replace(counted, etag=None)
        trusts_uuids = payload.request.policy.trust == "uuids"
        naming = Naming(delivery.sender, delivery.key, trusts_uuids)
        make_plan = partial(
            plan,
            contents,
            naming,
            _get_limits(delivery),
            delivery.write_order,
            is_correction=delivery.corrects is not None,
        )
        return counted, await offload(size, make_plan)


def _estimate_bytes(relay: Relay, delivery: Delivery) -> int:
    """Return the most bytes that planning a delivery parses: its own, and what may be fetched."""
    may_fetch = delivery.kind in _FETCHING and relay.sources.upstreams
    return delivery.bytes + (relay.sources.max_bytes if may_fetch else 0)


async def _record_refused(
    relay: Relay, delivery: Delivery, delivery_plan: Plan
) -> list[EntryResult]:
    """Record the entries that the plan leaves out. Return their results."""
    refused = [
        EntryResult(
            entry.position,
            _choose_status(issue),
            full_url=entry.full_url,
            issues=[operation_outcome.as_json(issue)],
            skipped=issue.severity == "information",
            round=delivery.round,
        )
        for entry, issue in delivery_plan.refused
    ]
    if refused and delivery.round:  # of a transaction that was split, others may be written
        known = await relay.journal.list_entry_results(delivery.id)
        settled = {result.position for result in list_settled(known, delivery.round)}
        refused = [result for result in refused if result.position not in settled]
    if refused:
        await relay.journal.begin_lane(delivery.id, NO_LANE)
        await relay.journal.add_entry_results(delivery.id, NO_LANE, refused)
    return refused


def _choose_status(issue: Issue) -> int:
    """Return the status of an entry that is not sent: left out as it should be, outside of what
    its sender may do, or refused."""
    if issue.severity == "information":
        return 204
    return 403 if issue.code == FORBIDDEN else 422


async def _save_lanes(relay: Relay, delivery: Delivery, lanes: Sequence[Lane]) -> bool:
    """Store the lanes, so that the work can spread over instances. Return whether they are still
    to be queued."""
    semaphore = asyncio.Semaphore(_MAX_CONCURRENT)
    number = delivery.plan

    async def save_lane(lane_number: int, lane: Lane) -> None:
        async with semaphore:
            await relay.journal.save_lane(delivery.id, number, lane_number, units.encode_lane(lane))

    await asyncio.gather(*(save_lane(position, lane) for position, lane in enumerate(lanes)))
    return await relay.journal.update_delivery(
        delivery.id,
        only_if=ACTIVE,
        only_plan=number,
        seen=delivery,
        status=Status.PROCESSING,
        lanes=delivery.lanes,
        units=delivery.units,
        split=delivery.split,
    )


async def _queue_lanes(relay: Relay, delivery: Delivery, lanes: Sequence[int]) -> None:
    """Queue a work item for each of these lanes, and record which are queued.

    A fan-out that is repeated queues only the others, so that each lane has one work item. If a
    worker ends before it has recorded them, a lane has two: the second finds the lane done, or
    waits for the first. Raises Unavailable when the queue did not take all of them.
    """
    semaphore = asyncio.Semaphore(_MAX_CONCURRENT)

    async def queue_lane(number: int) -> None:
        async with semaphore:
            item = WorkItem(delivery.id, lane=number, plan=delivery.plan)
            await relay.queue.send(RELAY_QUEUE, item)

    sent = await asyncio.gather(*(queue_lane(number) for number in lanes), return_exceptions=True)
    errors = [error for error in sent if error is not None]
    queued = [number for number, error in zip(lanes, sent, strict=True) if error is None]
    if queued:
        await relay.journal.record_queued_lanes(delivery.id, delivery.plan, queued)
    if errors:
        raise errors[0]
