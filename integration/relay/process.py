"""VERB carry: plan a delivery, write each unit to the FHIR server, note every outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from integration.core.activity import Activities
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
_ON_THEIR_WAY = frozenset({Status.ACCEPTED, Status.PROCESSING})

# Storage operations of one delivery that may be under way at once.
_SIDE_BY_SIDE = 16


@dataclass(frozen=True, slots=True)
class Relay:
    """What carrying needs. Ages in seconds."""

    context: LaneContext
    limits: Limits
    now: Callable[[], datetime]
    max_age: float
    sources: Sources = NO_SOURCES
    activities: Activities = field(default_factory=Activities)

    @property
    def journal(self) -> Journal:
        return self.context.journal

    @property
    def queue(self) -> QueueSender:
        return self.context.queue


async def process(relay: Relay, claim: WorkItem) -> None:
    """Carry a delivery, or one lane of it. Trouble of a neighbour puts the claim back."""
    async with relay.activities.verb(delivery=claim.delivery):
        await _carried(relay, claim)


async def _carried(relay: Relay, claim: WorkItem) -> None:
    try:
        await _carry(relay, claim)
    except (Unavailable, Misconfigured) as error:
        back = plan_retry(claim, error, relay.now(), relay.max_age)
        if back.delay is None:
            await park(relay.journal, claim, str(error))
        else:
            log_event(
                "delivery.requeued",
                error,
                delivery=claim.delivery,
                lane=claim.lane,
                attempt=claim.attempt,
                reason=str(error),
            )
            await relay.queue.send(RELAY_QUEUE, back.item, back.delay)


async def park(journal: Journal, claim: WorkItem, reason: str) -> None:
    """Give up on a delivery until an operator looks at it. Nothing of it is lost."""
    log_event(
        "delivery.parked",
        delivery=claim.delivery,
        lane=claim.lane,
        attempt=claim.attempt,
        reason=reason,
    )
    await journal.change(claim.delivery, only_if=_ON_THEIR_WAY, status=Status.PARKED, reason=reason)


async def _carry(relay: Relay, claim: WorkItem) -> None:
    delivery = await relay.journal.delivery(claim.delivery)
    if delivery is None:
        raise LookupError(f"delivery {claim.delivery} is queued but not in the journal")
    if delivery.status in (Status.DONE, Status.CANCELLED):
        return
    if claim.lane is not None:
        lane = units.restored(await relay.journal.lane(delivery.id, claim.lane))
        carried = await process_lane(relay.context, delivery, lane, claim)
        if carried is not None and await relay.journal.lane_done(delivery.id, claim.lane):
            await _finish(relay, delivery, await relay.journal.outcomes(delivery.id))
        return
    delivery, planned = await _planned(relay, delivery)
    refused = await _note_refused(relay, delivery, planned)
    delivery = replace(
        delivery,
        lanes=len(planned.lanes),
        units=sum(len(lane.units) for lane in planned.lanes),
        split=planned.split,
    )
    if len(planned.lanes) > 1:
        await _fan_out(relay, delivery, planned.lanes)
        return
    lane = planned.lanes[0] if planned.lanes else Lane(())
    carried = await process_lane(relay.context, delivery, lane, claim)
    if carried is not None:
        await _finish(relay, delivery, [*refused, *carried])


async def _planned(relay: Relay, delivery: Delivery) -> tuple[Delivery, Plan]:
    """The plan, and the delivery with what was fetched for it counted in."""
    kept = await relay.journal.kept(delivery.id)
    contents, size = await fetch.contents(relay.sources, relay.journal, delivery.id, kept)
    known = replace(delivery, entries=len(contents.entries), more=contents.more)
    if known != delivery:
        await relay.journal.change(delivery.id, entries=known.entries, more=known.more)
    naming = Naming(delivery.sender, delivery.key)
    planned = partial(plan, contents, naming, relay.limits, delivery.write_order)
    return known, await offload(size, planned)


async def _note_refused(relay: Relay, delivery: Delivery, planned: Plan) -> list[EntryResult]:
    refused = [
        EntryResult(
            entry.position, _not_sent(issue), entry.full_url, issues=[issues.as_json(issue)]
        )
        for entry, issue in planned.refused
    ]
    if refused:
        await relay.journal.begin(delivery.id, NO_LANE, relay.now().timestamp())
        await relay.journal.note(delivery.id, NO_LANE, refused)
    return refused


def _not_sent(issue: Issue) -> int:
    """The status of an entry that stays here: refused, or left out as it should be."""
    return 204 if issue.severity == "information" else 422


async def _fan_out(relay: Relay, delivery: Delivery, lanes: Sequence[Lane]) -> None:
    """One message for each lane, so that the work spreads over instances."""
    places = asyncio.Semaphore(_SIDE_BY_SIDE)

    async def keep(number: int, lane: Lane) -> None:
        async with places:
            await relay.journal.keep_lane(delivery.id, number, units.kept(lane))

    async def queue(number: int) -> None:
        async with places:
            await relay.queue.send(RELAY_QUEUE, WorkItem(delivery.id, lane=number))

    await asyncio.gather(*(keep(number, lane) for number, lane in enumerate(lanes)))
    going_on = await relay.journal.change(
        delivery.id,
        only_if=_ON_THEIR_WAY,
        status=Status.PROCESSING,
        lanes=delivery.lanes,
        units=delivery.units,
        split=delivery.split,
    )
    if not going_on:
        return
    await asyncio.gather(*(queue(number) for number in range(len(lanes))))


async def _finish(relay: Relay, delivery: Delivery, outcomes: Sequence[EntryResult]) -> None:
    written = sum(item.written for item in outcomes)
    superseded = sum(item.superseded for item in outcomes)
    await relay.journal.change(
        delivery.id,
        status=Status.DONE,
        lanes=delivery.lanes,
        units=delivery.units,
        split=delivery.split,
        written=written,
        refused=len(outcomes) - written - superseded,
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
