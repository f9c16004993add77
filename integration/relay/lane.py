"""One lane to the FHIR server, unit by unit, noting every outcome before the next unit goes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from integration.core.activity import about, category_of, doing
from integration.core.errors import Issue, Misconfigured, Unavailable
from integration.core.model import Category, Delivery, EntryResult, Status, WorkItem
from integration.fhir import entry_results, previous_attempt, units
from integration.fhir.client import FhirServer
from integration.fhir.grammar import is_id, is_type
from integration.fhir.progress import Progress, born, identity, targets
from integration.fhir.units import Lane, Unit, UnitEntry
from integration.journal import write_guard
from integration.journal.store import Journal
from integration.journal.write_guard import HeldLocks, SendState, WriteGuard
from integration.queues.queue_sender import ChangeQueues, QueueSender
from integration.relay import preflight
from integration.relay.preflight import Preflight

_SUPERSEDED = Issue(
    "conflict",
    "superseded: a later delivery has written this resource already",
    severity="warning",
)


@dataclass(frozen=True, slots=True)
class LaneContext:
    """What carrying a lane needs. `followed`: who hears of what is written."""

    journal: Journal
    queue: QueueSender
    fhir: FhirServer
    guard: WriteGuard
    followed: ChangeQueues


@dataclass(slots=True, kw_only=True)
class _LaneRun(Progress):
    """The progress of one lane, and who carries it. `began`: an earlier try of it did."""

    context: LaneContext
    delivery: Delivery
    lane: int
    attempt: int
    began: float | None


async def process_lane(
    context: LaneContext, delivery: Delivery, lane: Lane, claim: WorkItem
) -> list[EntryResult] | None:
    """The outcomes of the lane, all noted; None when the delivery was cancelled on the way.

    Raises Unavailable when entries are left to be tried again; what is settled stays settled.
    """
    number = claim.lane or 0
    began = await context.journal.begin(delivery.id, number, context.guard.now())
    progress = _LaneRun(
        context=context, delivery=delivery, lane=number, attempt=claim.attempt, began=began
    )
    noted = [] if began is None else await context.journal.outcomes(delivery.id, number)
    known = {item.position: item for item in noted}
    begun = [unit for unit in lane.units if any(n in known for n in targets(unit))]
    for index, unit in enumerate(lane.units):
        progress.remember(unit, [known[n] for n in targets(unit) if n in known])
        if begun and unit is begun[-1]:
            await _end_turns(progress, unit, f"{number}.{index}")
        if not progress.left(unit):
            continue
        if index and await _cancelled(context, delivery):
            return None
        await _send_unit(progress, unit, f"{number}.{index}")
    return [progress.settled[position] for position in lane.positions]


async def _send_unit(progress: _LaneRun, unit: Unit, name: str) -> None:
    """Settle every entry of the unit, or raise Unavailable with the rest left over."""
    carrier = progress.context
    await _settle(progress, unit, name, progress.blocked(unit))
    taken = HeldLocks(progress.delivery.id, name, carrier.guard.token())
    trip = UnitAttempt(progress, unit, name, taken)
    try:
        await _go(trip)
    except (Unavailable, Misconfigured) as error:
        unheard = isinstance(error, Unavailable) and error.unheard
        if trip.fate is SendState.UNHEARD and not unheard:
            trip.fate = SendState.ANSWERED
        await write_guard.release(carrier.guard, taken, progress.written(unit), trip.fate)
        raise
    await write_guard.release(carrier.guard, taken, progress.written(unit))


async def _end_turns(progress: _LaneRun, unit: Unit, name: str) -> None:
    """An earlier try may have ended between noting what it did and giving back its turns. Others
    cannot tell by looking: a delete of what was not there leaves no trace on the server."""
    carrier, delivery = progress.context, progress.delivery
    scout = Preflight(carrier.fhir, carrier.guard, delivery, progress.answers)
    taken = HeldLocks(delivery.id, name, carrier.guard.token())
    left = progress.left(unit)
    entries = [entry for entry in unit.entries if entry not in left]
    found = {
        entry.position: [identity(progress.settled[entry.position], "")]
        for entry in entries
        if entry.condition and entry.method != "POST" and progress.settled[entry.position].location
    }
    await preflight.release_previous_locks(scout, taken, entries, found, progress.written(unit))


async def _wait_for_later(trip: UnitAttempt) -> None:
    """Raises Unavailable while a later delivery that tried the same is on its way: whether it has
    written is for it to find out."""
    journal = trip.progress.context.journal
    for rival in sorted(trip.taken.later_deliveries):
        later = await journal.delivery(rival)
        if later is not None and later.status in (Status.ACCEPTED, Status.PROCESSING):
            raise Unavailable("order", "a later delivery has begun to write the same resource")


@dataclass(slots=True)
class UnitAttempt:
    """One unit on its way to the server."""

    progress: _LaneRun
    unit: Unit
    name: str
    taken: HeldLocks
    fate: SendState = SendState.NOT_SENT


async def _go(trip: UnitAttempt) -> None:
    progress, unit, taken = trip.progress, trip.unit, trip.taken
    carrier, delivery = progress.context, progress.delivery
    scout = Preflight(carrier.fhir, carrier.guard, delivery, progress.answers)
    followed = await carrier.followed()
    found = await preflight.acquire_locks(scout, taken, progress.left(unit), followed)
    # Perhaps by another claim of this lane, while the turn was waited for.
    if any(turn.delivery == delivery.id for turn in taken.found.values()):
        noted = await carrier.journal.outcomes(delivery.id, progress.lane)
        positions = {n for entry in unit.entries for n in entry.positions}
        progress.remember(unit, [item for item in noted if item.position in positions])
    await _settle(progress, unit, trip.name, _superseded(trip, found))
    await _wait_for_later(trip)
    settled = progress.settled.values()
    done = await preflight.find_already_applied(
        scout, unit, progress.left(unit), taken, found, progress.began, settled
    )
    await _settle(progress, unit, trip.name, done)
    doubtful = await preflight.ambiguous(scout, progress.left(unit))
    await _settle(progress, unit, trip.name, progress.ambiguous(unit, doubtful))
    todo = progress.left(unit)
    if not todo:
        return
    trip.fate = SendState.UNHEARD
    still = partial(write_guard.ensure_time_left, carrier.guard, taken)
    request = units.request(unit, todo, progress.answers)
    with doing(action=f"write unit {trip.name}", resource=_sole(todo)):
        response = await carrier.fhir.send(request, delivery.id, still)
        trip.fate = SendState.ANSWERED
        answer = entry_results.of_unit(unit, todo, response, progress.attempt)
        if response.status == 200:
            _note_refusals(trip, answer.settled)
    await _settle(progress, unit, trip.name, answer.settled, found)
    if scout.guarded:
        await write_guard.record_writes(carrier.guard, delivery.id, born(todo, answer.settled))
    if answer.unfinished:
        why = f"{len(answer.unfinished)} of {len(todo)} entries are unfinished"
        raise Unavailable(carrier.fhir.upstream.name, why, answer.retry_after)


async def _settle(
    progress: _LaneRun,
    unit: Unit,
    name: str,
    outcomes: Sequence[EntryResult],
    found: Mapping[int, Sequence[str]] | None = None,
) -> None:
    """Queue who follows first, then note: a crash between repeats that, which is harmless."""
    if not outcomes:
        return
    carrier, delivery = progress.context, progress.delivery
    names = targets(unit)
    written = [item for item in outcomes if item.written]
    changed = {identity(item, names[item.position]) for item in written}
    changed.update(one for item in written for one in (found or {}).get(item.position, ()))
    followed = await carrier.followed()
    queues = {one: followed.get(one.partition("/")[0]) for one in sorted(changed)}
    await asyncio.gather(
        *(
            carrier.queue.send(queue, WorkItem(delivery.id, resource=one))
            for one, queue in queues.items()
            if queue is not None
        )
    )
    named = [replace(item, unit=name) for item in outcomes]
    await carrier.journal.note(delivery.id, progress.lane, named)
    progress.remember(unit, named)


def _superseded(trip: UnitAttempt, found: Mapping[int, Sequence[str]]) -> list[EntryResult]:
    """Writes that come after a later one of the same resource."""
    return [
        previous_attempt.left_alone(entry, preflight.name_of(entry, found), _SUPERSEDED)
        for entry in trip.progress.left(trip.unit)
        if entry.position in trip.taken.superseded
    ]


def _sole(entries: Sequence[UnitEntry]) -> str | None:
    """Type/id of what is written, if that is one resource and the server need not say which."""
    kind, _, id_ = entries[0].target.partition("/") if len(entries) == 1 else ("", "", "")
    return entries[0].target if is_type(kind) and is_id(id_) else None


def _note_refusals(trip: UnitAttempt, outcomes: Sequence[EntryResult]) -> None:
    """In the activity log: a batch is answered 200, whatever is in it."""
    statuses = sorted(Counter(item.status for item in outcomes if not item.written).items())
    if statuses:
        neighbour = trip.progress.context.fhir.upstream
        notes = tuple(f"{status}: {count} of {len(outcomes)}" for status, count in statuses)
        category = max((category_of(status) for status, _ in statuses), key=list(Category).index)
        neighbour.activities.note(category, neighbour.name, "refused", about(), notes=notes)


async def _cancelled(carrier: LaneContext, delivery: Delivery) -> bool:
    current = await carrier.journal.delivery(delivery.id)
    return current is not None and current.status is Status.CANCELLED
