"""VERB process: plan a delivery, write each unit to the FHIR server, record every result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from integration.core.activity_recorder import ActivityRecorder
from integration.core.byte_budget import ByteBudget
from integration.core.errors import Issue, Misconfigured, Unavailable
from integration.core.log_events import log_event
from integration.core.model import Delivery, EntryResult, Status, WorkItem
from integration.core.offload import offload
from integration.fhir import operation_outcome, units
from integration.fhir.plan import Plan, plan
from integration.fhir.resource_ids import Naming
from integration.fhir.units import Lane, Limits
from integration.journal.store import NO_LANE, Journal
from integration.queues.names import RELAY_QUEUE
from integration.queues.queue_sender import QueueSender
from integration.queues.retry import plan_retry
from integration.relay import fetch
from integration.relay.fetch import NO_SOURCES, Sources
from integration.relay.lane import LaneContext, process_lane

# A late work item does not bring back a delivery that is done, parked or cancelled.
_ACTIVE = frozenset({Status.ACCEPTED, Status.PROCESSING})

# Storage operations of one delivery that run at the same time.
_MAX_CONCURRENT = 16

# The kinds of delivery for which something may be fetched, or was at an earlier attempt.
_FETCHING = ("searchset", "notification")

# Seconds: far less than `functionTimeout` of host.json, which ends the worker.
_MAX_WAIT = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """What processing needs.

    In seconds, `max_age`: an older work item is parked; `max_wait`: planning that has waited so
    long for its share of the budget goes back to the queue.
    """

    context: LaneContext
    limits: Limits
    now: Callable[[], datetime]
    max_age: float
    sources: Sources = NO_SOURCES
    activities: ActivityRecorder = field(default_factory=ActivityRecorder)
    budget: ByteBudget = field(default_factory=ByteBudget)  # of planning
    max_wait: float = _MAX_WAIT

    @property
    def journal(self) -> Journal:
        return self.context.journal

    @property
    def queue(self) -> QueueSender:
        return self.context.queue


async def process(relay: Relay, item: WorkItem) -> None:
    """Process a delivery, or one lane of it. If an upstream fails, requeue or park it.

    Raises LookupError when the journal does not know the delivery, and Unavailable when the work
    item cannot be requeued.
    """
    async with relay.activities.track(delivery=item.delivery):
        try:
            await _process_item(relay, item)
        except (Unavailable, Misconfigured) as error:
            await _requeue_or_park(relay, item, error)


async def park(journal: Journal, item: WorkItem, reason: str) -> None:
    """Give up on a delivery until an operator replays it. Nothing of it is lost."""
    log_event(
        "delivery.parked",
        delivery=item.delivery,
        lane=item.lane,
        attempt=item.attempt,
        reason=reason,
    )
    await journal.update_delivery(
        item.delivery, only_if=_ACTIVE, status=Status.PARKED, reason=reason
    )


async def _requeue_or_park(
    relay: Relay, item: WorkItem, error: Unavailable | Misconfigured
) -> None:
    retry = plan_retry(item, error, relay.now(), relay.max_age)
    if retry.delay is None:
        await park(relay.journal, item, str(error))
        return
    log_event(
        "delivery.requeued",
        error,
        delivery=item.delivery,
        lane=item.lane,
        attempt=item.attempt,
        reason=str(error),
    )
    await relay.queue.send(RELAY_QUEUE, retry.item, retry.delay)


async def _process_item(relay: Relay, item: WorkItem) -> None:
    delivery = await relay.journal.get_delivery(item.delivery)
    if delivery is None:
        raise LookupError(f"delivery {item.delivery} is queued but not in the journal")
    if delivery.status in (Status.DONE, Status.CANCELLED):
        return
    if item.lane is not None:
        await _process_queued_lane(relay, delivery, item, item.lane)
    else:
        await _process_delivery(relay, delivery, item)


async def _process_queued_lane(
    relay: Relay, delivery: Delivery, item: WorkItem, number: int
) -> None:
    """Process a lane that was stored by a fan-out. The last lane finishes the delivery."""
    lane = units.decode_lane(await relay.journal.get_lane(delivery.id, number))
    results = await process_lane(relay.context, delivery, lane, item)
    if results is not None and await relay.journal.finish_lane(delivery.id, number):
        await _finish(relay, delivery, await relay.journal.list_entry_results(delivery.id))


async def _process_delivery(relay: Relay, delivery: Delivery, item: WorkItem) -> None:
    """Plan a delivery. Process its one lane, or queue each of its lanes."""
    delivery, delivery_plan = await _make_plan(relay, delivery)
    refused = await _record_refused(relay, delivery, delivery_plan)
    lanes = delivery_plan.lanes
    delivery = replace(
        delivery,
        lanes=len(lanes),
        units=sum(len(lane.units) for lane in lanes),
        split=delivery_plan.split,
    )
    if len(lanes) > 1:
        await _fan_out(relay, delivery, lanes)
        return
    results = await process_lane(relay.context, delivery, lanes[0] if lanes else Lane(()), item)
    if results is not None:
        await _finish(relay, delivery, [*refused, *results])


async def _make_plan(relay: Relay, delivery: Delivery) -> tuple[Delivery, Plan]:
    """Return the plan, and the delivery with the entries that were fetched for it."""
    async with relay.budget.take(_estimate_bytes(relay, delivery), relay.max_wait):
        payload = await relay.journal.get_payload(delivery.id)
        contents, size = await fetch.read_contents(
            relay.sources, relay.journal, delivery.id, payload
        )
        counted = replace(delivery, entries=len(contents.entries), more=contents.has_next_page)
        if counted != delivery:
            await relay.journal.update_delivery(
                delivery.id, entries=counted.entries, more=counted.more
            )
        naming = Naming(delivery.sender, delivery.key)
        make_plan = partial(plan, contents, naming, relay.limits, delivery.write_order)
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
        )
        for entry, issue in delivery_plan.refused
    ]
    if refused:
        await relay.journal.begin_lane(delivery.id, NO_LANE, relay.now().timestamp())
        await relay.journal.add_entry_results(delivery.id, NO_LANE, refused)
    return refused


def _choose_status(issue: Issue) -> int:
    """Return the status of an entry that is not sent: left out as it should be, or refused."""
    return 204 if issue.severity == "information" else 422


async def _fan_out(relay: Relay, delivery: Delivery, lanes: Sequence[Lane]) -> None:
    """Store the lanes and queue a work item for each, so that the work spreads over instances."""
    semaphore = asyncio.Semaphore(_MAX_CONCURRENT)

    async def save_lane(number: int, lane: Lane) -> None:
        async with semaphore:
            await relay.journal.save_lane(delivery.id, number, units.encode_lane(lane))

    async def queue_lane(number: int) -> None:
        async with semaphore:
            await relay.queue.send(RELAY_QUEUE, WorkItem(delivery.id, lane=number))

    await asyncio.gather(*(save_lane(number, lane) for number, lane in enumerate(lanes)))
    is_active = await relay.journal.update_delivery(
        delivery.id,
        only_if=_ACTIVE,
        status=Status.PROCESSING,
        lanes=delivery.lanes,
        units=delivery.units,
        split=delivery.split,
    )
    if is_active:
        await asyncio.gather(*(queue_lane(number) for number in range(len(lanes))))


async def _finish(relay: Relay, delivery: Delivery, results: Sequence[EntryResult]) -> None:
    written = sum(result.is_written for result in results)
    superseded = sum(result.superseded for result in results)
    await relay.journal.update_delivery(
        delivery.id,
        status=Status.DONE,
        lanes=delivery.lanes,
        units=delivery.units,
        split=delivery.split,
        written=written,
        refused=len(results) - written - superseded,
        superseded=superseded,
        finished=relay.now(),
        reason=None,
    )
    log_event(
        "delivery.done",
        delivery=delivery.id,
        entries=delivery.entries,
        written=written,
        superseded=superseded,
        units=delivery.units,
        split=delivery.split,
    )
