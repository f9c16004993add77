"""VERB carry: plan a delivery, write each unit to the FHIR server, note every outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from integration.core.activity import ActivityRecorder
from integration.core.errors import Issue, Misconfigured, Unavailable
from integration.core.log_events import log_event
from integration.core.model import Delivery, EntryResult, Status, WorkItem
from integration.core.offload import offload
from integration.fhir import issues, units
from integration.fhir.identity import Naming
from integration.fhir.plan import Plan, plan
from integration.fhir.units import Lane, Limits
from integration.journal.store import NO_LANE, Journal
from integration.queues.names import RELAY_QUEUE
from integration.queues.queue_sender import QueueSender
from integration.queues.retry import plan_retry
from integration.relay import fetch
from integration.relay.fetch import NO_SOURCES, Sources
from integration.relay.lane import LaneContext, process_lane

# A delivery that has ended, as done, parked or cancelled, is not brought back by a late claim.
_ACTIVE = frozenset({Status.ACCEPTED, Status.PROCESSING})

# Storage operations of one delivery that may be under way at once.
_MAX_CONCURRENT = 16


@dataclass(frozen=True, slots=True)
class Relay:
    """What carrying needs. Ages in seconds."""

    context: LaneContext
    limits: Limits
    now: Callable[[], datetime]
    max_age: float
    sources: Sources = NO_SOURCES
    activities: ActivityRecorder = field(default_factory=ActivityRecorder)

    @property
    def journal(self) -> Journal:
        return self.context.journal

    @property
    def queue(self) -> QueueSender:
        return self.context.queue


async def process(relay: Relay, item: WorkItem) -> None:
    """Carry a delivery, or one lane of it. Trouble of a neighbour puts the claim back."""
    async with relay.activities.track(delivery=item.delivery):
        await _process_or_requeue(relay, item)


async def _process_or_requeue(relay: Relay, item: WorkItem) -> None:
    try:
        await _process_item(relay, item)
    except (Unavailable, Misconfigured) as error:
        retry = plan_retry(item, error, relay.now(), relay.max_age)
        if retry.delay is None:
            await park(relay.journal, item, str(error))
        else:
            log_event(
                "delivery.requeued",
                error,
                delivery=item.delivery,
                lane=item.lane,
                attempt=item.attempt,
                reason=str(error),
            )
            await relay.queue.send(RELAY_QUEUE, retry.item, retry.delay)


async def park(journal: Journal, item: WorkItem, reason: str) -> None:
    """Give up on a delivery until an operator looks at it. Nothing of it is lost."""
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


async def _process_item(relay: Relay, item: WorkItem) -> None:
    delivery = await relay.journal.get_delivery(item.delivery)
    if delivery is None:
        raise LookupError(f"delivery {item.delivery} is queued but not in the journal")
    if delivery.status in (Status.DONE, Status.CANCELLED):
        return
    if item.lane is not None:
        lane = units.decode_lane(await relay.journal.get_lane(delivery.id, item.lane))
        results = await process_lane(relay.context, delivery, lane, item)
        if results is not None and await relay.journal.finish_lane(delivery.id, item.lane):
            await _finish(relay, delivery, await relay.journal.list_entry_results(delivery.id))
        return
    delivery, made_plan = await _make_plan(relay, delivery)
    refused = await _record_refused(relay, delivery, made_plan)
    delivery = replace(
        delivery,
        lanes=len(made_plan.lanes),
        units=sum(len(lane.units) for lane in made_plan.lanes),
        split=made_plan.split,
    )
    if len(made_plan.lanes) > 1:
        await _fan_out(relay, delivery, made_plan.lanes)
        return
    lane = made_plan.lanes[0] if made_plan.lanes else Lane(())
    results = await process_lane(relay.context, delivery, lane, item)
    if results is not None:
        await _finish(relay, delivery, [*refused, *results])


async def _make_plan(relay: Relay, delivery: Delivery) -> tuple[Delivery, Plan]:
    """The plan, and the delivery with what was fetched for it counted in."""
    kept = await relay.journal.get_payload(delivery.id)
    contents, size = await fetch.read_contents(relay.sources, relay.journal, delivery.id, kept)
    counted = replace(delivery, entries=len(contents.entries), more=contents.has_next_page)
    if counted != delivery:
        await relay.journal.update_delivery(delivery.id, entries=counted.entries, more=counted.more)
    naming = Naming(delivery.sender, delivery.key)
    run_plan = partial(plan, contents, naming, relay.limits, delivery.write_order)
    return counted, await offload(size, run_plan)


async def _record_refused(relay: Relay, delivery: Delivery, made_plan: Plan) -> list[EntryResult]:
    refused = [
        EntryResult(
            entry.position,
            _choose_status(issue),
            full_url=entry.full_url,
            issues=[issues.as_json(issue)],
        )
        for entry, issue in made_plan.refused
    ]
    if refused:
        await relay.journal.begin_lane(delivery.id, NO_LANE, relay.now().timestamp())
        await relay.journal.add_entry_results(delivery.id, NO_LANE, refused)
    return refused


def _choose_status(issue: Issue) -> int:
    """The status of an entry that stays here: refused, or left out as it should be."""
    return 204 if issue.severity == "information" else 422


async def _fan_out(relay: Relay, delivery: Delivery, lanes: Sequence[Lane]) -> None:
    """One message for each lane, so that the work spreads over instances."""
    semaphore = asyncio.Semaphore(_MAX_CONCURRENT)

    async def keep_lane(number: int, lane: Lane) -> None:
        async with semaphore:
            await relay.journal.save_lane(delivery.id, number, units.encode_lane(lane))

    async def queue_lane(number: int) -> None:
        async with semaphore:
            await relay.queue.send(RELAY_QUEUE, WorkItem(delivery.id, lane=number))

    await asyncio.gather(*(keep_lane(number, lane) for number, lane in enumerate(lanes)))
    is_active = await relay.journal.update_delivery(
        delivery.id,
        only_if=_ACTIVE,
        status=Status.PROCESSING,
        lanes=delivery.lanes,
        units=delivery.units,
        split=delivery.split,
    )
    if not is_active:
        return
    await asyncio.gather(*(queue_lane(number) for number in range(len(lanes))))


async def _finish(relay: Relay, delivery: Delivery, results: Sequence[EntryResult]) -> None:
    written = sum(item.is_written for item in results)
    superseded = sum(item.superseded for item in results)
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
