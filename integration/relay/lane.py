"""One lane to the FHIR server, unit by unit, noting every outcome before the next unit goes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from integration.core.activity import add_activity_context, categorize_status, get_activity_context
from integration.core.errors import Issue, Misconfigured, Unavailable
from integration.core.model import Category, Delivery, EntryResult, Status, WorkItem
from integration.fhir import entry_results, previous_attempt, units
from integration.fhir.client import FhirServer
from integration.fhir.grammar import is_id, is_type
from integration.fhir.progress import Progress, get_identity, map_created, map_targets
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
    change_queues: ChangeQueues


@dataclass(slots=True, kw_only=True)
class _LaneRun(Progress):
    """The progress of one lane, and who carries it. `began`: an earlier try of it did."""

    context: LaneContext
    delivery: Delivery
    lane: int
    attempt_number: int
    previous_start: float | None


async def process_lane(
    context: LaneContext, delivery: Delivery, lane: Lane, item: WorkItem
) -> list[EntryResult] | None:
    """The outcomes of the lane, all noted; None when the delivery was cancelled on the way.

    Raises Unavailable when entries are left to be tried again; what is settled stays settled.
    """
    number = item.lane or 0
    previous_start = await context.journal.begin_lane(delivery.id, number, context.guard.now())
    progress = _LaneRun(
        context=context,
        delivery=delivery,
        lane=number,
        attempt_number=item.attempt,
        previous_start=previous_start,
    )
    recorded = (
        []
        if previous_start is None
        else await context.journal.list_entry_results(delivery.id, number)
    )
    by_position = {item.position: item for item in recorded}
    started = [unit for unit in lane.units if any(n in by_position for n in map_targets(unit))]
    for index, unit in enumerate(lane.units):
        progress.record(unit, [by_position[n] for n in map_targets(unit) if n in by_position])
        if started and unit is started[-1]:
            await _release_previous_locks(progress, unit, f"{number}.{index}")
        if not progress.list_unsettled(unit):
            continue
        if index and await _is_cancelled(context, delivery):
            return None
        await _send_unit(progress, unit, f"{number}.{index}")
    return [progress.settled[position] for position in lane.positions]


async def _send_unit(progress: _LaneRun, unit: Unit, name: str) -> None:
    """Settle every entry of the unit, or raise Unavailable with the rest left over."""
    context = progress.context
    await _settle(progress, unit, name, progress.refuse_blocked(unit))
    locks = HeldLocks(progress.delivery.id, name, context.guard.token())
    attempt = UnitAttempt(progress, unit, name, locks)
    try:
        await _attempt_unit(attempt)
    except (Unavailable, Misconfigured) as error:
        is_unheard = isinstance(error, Unavailable) and error.is_outcome_unknown
        if attempt.send_state is SendState.UNANSWERED and not is_unheard:
            attempt.send_state = SendState.ANSWERED
        await write_guard.release(
            context.guard, locks, progress.map_written(unit), attempt.send_state
        )
        raise
    await write_guard.release(context.guard, locks, progress.map_written(unit))


async def _release_previous_locks(progress: _LaneRun, unit: Unit, name: str) -> None:
    """An earlier try may have ended between noting what it did and giving back its turns. Others
    cannot tell by looking: a delete of what was not there leaves no trace on the server."""
    context, delivery = progress.context, progress.delivery
    checks = Preflight(context.fhir, context.guard, delivery, progress.identities)
    locks = HeldLocks(delivery.id, name, context.guard.token())
    unsettled = progress.list_unsettled(unit)
    entries = [entry for entry in unit.entries if entry not in unsettled]
    matches = {
        entry.position: [get_identity(progress.settled[entry.position], "")]
        for entry in entries
        if entry.condition and entry.method != "POST" and progress.settled[entry.position].location
    }
    await preflight.release_previous_locks(
        checks, locks, entries, matches, progress.map_written(unit)
    )


async def _ensure_later_deliveries_ended(attempt: UnitAttempt) -> None:
    """Raises Unavailable while a later delivery that tried the same is on its way: whether it has
    written is for it to find out."""
    journal = attempt.progress.context.journal
    for delivery_id in sorted(attempt.locks.later_deliveries):
        later = await journal.get_delivery(delivery_id)
        if later is not None and later.status in (Status.ACCEPTED, Status.PROCESSING):
            raise Unavailable("order", "a later delivery has begun to write the same resource")


@dataclass(slots=True)
class UnitAttempt:
    """One unit on its way to the server."""

    progress: _LaneRun
    unit: Unit
    name: str
    locks: HeldLocks
    send_state: SendState = SendState.NOT_SENT


async def _attempt_unit(attempt: UnitAttempt) -> None:
    progress, unit, locks = attempt.progress, attempt.unit, attempt.locks
    context, delivery = progress.context, progress.delivery
    checks = Preflight(context.fhir, context.guard, delivery, progress.identities)
    change_queues = await context.change_queues()
    matches = await preflight.acquire_locks(
        checks, locks, progress.list_unsettled(unit), change_queues
    )
    # Perhaps by another claim of this lane, while the turn was waited for.
    if any(lock.written_by == delivery.id for lock in locks.previous.values()):
        recorded = await context.journal.list_entry_results(delivery.id, progress.lane)
        positions = {n for entry in unit.entries for n in entry.positions}
        progress.record(unit, [item for item in recorded if item.position in positions])
    await _settle(progress, unit, attempt.name, _find_superseded(attempt, matches))
    await _ensure_later_deliveries_ended(attempt)
    settled = progress.settled.values()
    already_applied = await preflight.find_already_applied(
        checks,
        unit,
        progress.list_unsettled(unit),
        locks,
        matches,
        progress.previous_start,
        settled,
    )
    await _settle(progress, unit, attempt.name, already_applied)
    ambiguous = await preflight.find_ambiguous(checks, progress.list_unsettled(unit))
    await _settle(progress, unit, attempt.name, progress.refuse_ambiguous(unit, ambiguous))
    todo = progress.list_unsettled(unit)
    if not todo:
        return
    attempt.send_state = SendState.UNANSWERED
    ensure_time_left = partial(write_guard.ensure_time_left, context.guard, locks)
    request = units.build_request(unit, todo, progress.identities)
    with add_activity_context(
        action=f"write unit {attempt.name}", resource=_get_single_target(todo)
    ):
        response = await context.fhir.send(request, delivery.id, ensure_time_left)
        attempt.send_state = SendState.ANSWERED
        unit_results = entry_results.read_response(unit, todo, response, progress.attempt_number)
        if response.status == 200:
            _record_refusals(attempt, unit_results.settled)
    await _settle(progress, unit, attempt.name, unit_results.settled, matches)
    if checks.guarded:
        await write_guard.record_writes(
            context.guard, delivery.id, map_created(todo, unit_results.settled)
        )
    if unit_results.unfinished:
        reason = f"{len(unit_results.unfinished)} of {len(todo)} entries are unfinished"
        raise Unavailable(context.fhir.upstream.name, reason, unit_results.retry_after)


async def _settle(
    progress: _LaneRun,
    unit: Unit,
    name: str,
    results: Sequence[EntryResult],
    matches: Mapping[int, Sequence[str]] | None = None,
) -> None:
    """Queue who follows first, then note: a crash between repeats that, which is harmless."""
    if not results:
        return
    context, delivery = progress.context, progress.delivery
    targets_by_position = map_targets(unit)
    written = [item for item in results if item.is_written]
    changed = {get_identity(item, targets_by_position[item.position]) for item in written}
    changed.update(
        resource for item in written for resource in (matches or {}).get(item.position, ())
    )
    change_queues = await context.change_queues()
    queues = {
        resource: change_queues.get(resource.partition("/")[0]) for resource in sorted(changed)
    }
    await asyncio.gather(
        *(
            context.queue.send(queue, WorkItem(delivery.id, resource=resource))
            for resource, queue in queues.items()
            if queue is not None
        )
    )
    with_unit = [replace(item, unit=name) for item in results]
    await context.journal.add_entry_results(delivery.id, progress.lane, with_unit)
    progress.record(unit, with_unit)


def _find_superseded(
    attempt: UnitAttempt, matches: Mapping[int, Sequence[str]]
) -> list[EntryResult]:
    """Writes that come after a later one of the same resource."""
    return [
        previous_attempt.build_superseded_result(
            entry, preflight.get_target(entry, matches), _SUPERSEDED
        )
        for entry in attempt.progress.list_unsettled(attempt.unit)
        if entry.position in attempt.locks.superseded
    ]


def _get_single_target(entries: Sequence[UnitEntry]) -> str | None:
    """Type/id of what is written, if that is one resource and the server need not say which."""
    type_, _, id_ = entries[0].target.partition("/") if len(entries) == 1 else ("", "", "")
    return entries[0].target if is_type(type_) and is_id(id_) else None


def _record_refusals(attempt: UnitAttempt, results: Sequence[EntryResult]) -> None:
    """In the activity log: a batch is answered 200, whatever is in it."""
    statuses = sorted(Counter(item.status for item in results if not item.is_written).items())
    if statuses:
        upstream = attempt.progress.context.fhir.upstream
        notes = tuple(f"{status}: {count} of {len(results)}" for status, count in statuses)
        category = max(
            (categorize_status(status) for status, _ in statuses), key=list(Category).index
        )
        upstream.activities.record(
            category, upstream.name, "refused", get_activity_context(), notes=notes
        )


async def _is_cancelled(context: LaneContext, delivery: Delivery) -> bool:
    current = await context.journal.get_delivery(delivery.id)
    return current is not None and current.status is Status.CANCELLED
