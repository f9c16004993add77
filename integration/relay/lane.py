"""Process one lane: write its units to the FHIR server, one after the other.

The results of a unit are recorded before the next unit is sent.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from integration.core.activity_recorder import (
    add_activity_context,
    categorize_status,
    get_activity_context,
)
from integration.core.errors import Misconfigured, Unavailable, UnitConflict
from integration.core.model import Category, Delivery, EntryResult, Status, WorkItem
from integration.core.state_version import StateVersion
from integration.fhir import entry_results, units, write_decisions
from integration.fhir.client import FhirServer
from integration.fhir.grammar import is_id, is_type
from integration.fhir.progress import Progress, map_targets
from integration.fhir.units import Lane, Stamp, Unit, UnitEntry
from integration.fhir.write_decisions import Attempt
from integration.journal import write_guard
from integration.journal.bases import MAX_ENTRIES, decode_bases
from integration.journal.store import Journal, list_settled
from integration.journal.write_guard import HeldLocks, SendState, WriteGuard
from integration.queues.names import MIRROR_QUEUE
from integration.queues.queue_sender import ChangeQueues, QueueSender
from integration.queues.retry import count_conflicts
from integration.relay.changes import list_changes
from integration.relay.overtaken import check_overtaken, restore_later
from integration.relay.preflight import UNGUARDED, Findings, Preflight

# Looks at the resources of a unit before its work item goes back to the queue, since others keep
# changing them.
_MAX_ROUNDS = 6

# Seconds between looks, where reads lag behind writes.
_LAG_PAUSES = (0.2, 0.4, 0.8, 1.6, 2.0)


class DeliveryChanged(Exception):
    """The row of the delivery is no longer as its first work item says. Nothing was sent."""


class TimeUp(Exception):
    """The time for one invocation is over, between two units. Nothing has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneContext:
    """What processing a lane needs. `change_queues`: which queue receives each change."""

    journal: Journal
    queue: QueueSender
    fhir: FhirServer
    guard: WriteGuard
    change_queues: ChangeQueues


@dataclass(slots=True, kw_only=True)
class _LaneRun(Progress):
    """The progress of one lane. `bases`: see `write_decisions`, by position. `is_begun`: that the
    lane begins is recorded. `has_results`: results can be appended."""

    context: LaneContext
    delivery: Delivery
    item: WorkItem
    is_retry: bool = False
    is_begun: bool = True
    has_results: bool = True
    bases: dict[int, str] = field(default_factory=dict)

    @property
    def lane(self) -> int:
        return self.item.lane or 0

    @property
    def results_lane(self) -> int | None:
        """Where the results of this lane's entries may be: with those of its own number, or, after
        the delivery was planned anew, or if it has taken over results, with those of any."""
        is_own = self.delivery.plan == 1 and self.delivery.corrects is None
        return self.lane if is_own else None


@dataclass(slots=True, kw_only=True)
class UnitAttempt:
    """One attempt to write a unit. `name`: `lane.number` of the unit. `was_contested`: the server
    has refused entries that were sent on condition of a version."""

    progress: _LaneRun
    unit: Unit
    name: str
    locks: HeldLocks
    send_state: SendState = SendState.NOT_SENT
    was_contested: bool = False


async def process_only_unit(
    context: LaneContext, delivery: Delivery, lane: Lane, item: WorkItem
) -> tuple[Delivery, list[EntryResult]]:
    """Write the only unit of a delivery that nobody has begun, as its first work item says. Return
    the delivery as its row is now, and the results of its entries.

    It is recorded that the delivery begins when all is known but before anything is done, so one
    operation holds that and the versions that were found. It also tells whether the row is still
    as intake has added it, which therefore is not read. Until then a worker may end at any point:
    the next one finds the row as it was. Raises Unavailable as `process_lane` does, and
    DeliveryChanged when somebody has begun, cancelled or replayed the delivery.
    """
    (unit,) = lane.units
    run = _LaneRun(context=context, delivery=delivery, item=item, is_begun=False, has_results=False)
    await _write_unit(run, unit, _name_unit(delivery, 0, 0))
    return run.delivery, [run.settled[position] for position in lane.positions]


def can_begin_at_once(lane: Lane) -> bool:
    """Whether `process_only_unit` can write the lane. A delete is announced before it is known
    which version it deletes, so that takes two records."""
    return (
        len(lane.units) == 1
        and len(lane.units[0].entries) <= MAX_ENTRIES
        and all(entry.method != "DELETE" for entry in lane.units[0].entries)
    )


async def process_lane(
    context: LaneContext,
    delivery: Delivery,
    lane: Lane,
    item: WorkItem,
    is_time_up: Callable[[], bool],
) -> list[EntryResult] | None:
    """Write the lane. Return the results of its entries, or None when the delivery was cancelled.

    Raises Unavailable when some entries must be tried again, and TimeUp when `is_time_up` after a
    unit that is not the last. What is settled stays settled.
    """
    is_retry = await _begin(context, delivery, item)
    progress = _LaneRun(context=context, delivery=delivery, item=item, is_retry=is_retry)
    recorded = {}
    if progress.is_retry:
        lane_number = progress.results_lane
        results = list_settled(
            await context.journal.list_entry_results(delivery.id, lane_number), delivery.round
        )
        bases = await context.journal.list_bases(delivery.id, lane_number)
        progress.bases = bases | decode_bases(delivery.bases)  # which are of the first attempt
        recorded = {result.position: result for result in results}
    started = [unit for unit in lane.units if recorded.keys() & map_targets(unit).keys()]
    has_written = False
    for index, unit in enumerate(lane.units):
        name = _name_unit(delivery, progress.lane, index)
        progress.record(unit, [recorded[n] for n in map_targets(unit) if n in recorded])
        if started and unit is started[-1]:
            await _release_previous_locks(progress, unit, name)
        if not progress.list_unsettled(unit):
            continue
        if has_written and is_time_up():
            raise TimeUp
        if index and await _is_cancelled(context, delivery):
            return None
        await _write_unit(progress, unit, name)
        has_written = True
    return [progress.settled[position] for position in lane.positions]


async def _begin(context: LaneContext, delivery: Delivery, item: WorkItem) -> bool:
    """Record that the lane begins. Return whether its entries may have been attempted before."""
    is_first = await context.journal.begin_lane(delivery.id, item.lane or 0)
    # After the first plan, they were in other lanes before; those of a correction, in the delivery
    # that it corrects.
    return not is_first or delivery.begun or delivery.plan > 1 or delivery.corrects is not None


async def _ensure_begun(progress: _LaneRun, bases: Mapping[int, str]) -> None:
    """Record that the delivery begins, unless that is recorded. Raises DeliveryChanged."""
    if progress.is_begun:
        return
    begun = await progress.context.journal.begin_delivery(progress.delivery, bases)
    if begun is None:
        raise DeliveryChanged
    progress.delivery, progress.is_begun = begun, True
    progress.bases |= bases


def _name_unit(delivery: Delivery, lane: int, index: int) -> str:
    """Return the name of a unit: that of no unit of another plan."""
    name = f"{lane}.{index}"
    return name if delivery.plan == 1 else f"{delivery.plan}:{name}"


async def _write_unit(progress: _LaneRun, unit: Unit, name: str) -> None:
    """Settle every entry of the unit. Raises Unavailable when some must be tried again.

    An invocation that is cancelled (its time is over, the host shuts down) releases its locks, too.
    """
    attempt = _begin_attempt(progress, unit, name)
    guard, locks = progress.context.guard, attempt.locks
    await _settle(attempt, progress.refuse_blocked(unit))
    try:
        await _attempt_unit(attempt)
    except (Unavailable, Misconfigured, DeliveryChanged, asyncio.CancelledError) as error:
        is_answered = isinstance(error, Misconfigured) or (
            isinstance(error, Unavailable) and not error.is_outcome_unknown
        )
        if attempt.send_state is SendState.UNANSWERED and is_answered:
            attempt.send_state = SendState.ANSWERED
        await write_guard.release(guard, locks, progress.map_written(unit), attempt.send_state)
        raise
    await write_guard.release(guard, locks, progress.map_written(unit))


def _begin_attempt(progress: _LaneRun, unit: Unit, name: str) -> UnitAttempt:
    locks = HeldLocks(progress.delivery.id, name, progress.context.guard.token())
    return UnitAttempt(progress=progress, unit=unit, name=name, locks=locks)


def _make_preflight(attempt: UnitAttempt) -> Preflight:
    progress = attempt.progress
    delivery = progress.delivery
    return Preflight(
        fhir=progress.context.fhir,
        journal=progress.context.journal,
        guard=progress.context.guard,
        attempt=Attempt(
            delivery=delivery.id,
            is_ordered=delivery.write_order != UNGUARDED,
            is_retry=progress.is_retry,
            is_repeat=delivery.repeat,
            corrects=delivery.corrects,
        ),
        identities=progress.identities,
        locks=attempt.locks,
        bases=progress.bases,
        settled=progress.settled.keys(),
    )


async def _release_previous_locks(progress: _LaneRun, unit: Unit, name: str) -> None:
    """Release the locks of an earlier attempt that recorded its results and then ended."""
    unsettled = progress.list_unsettled(unit)
    entries = [entry for entry in unit.entries if entry not in unsettled]
    preflight = _make_preflight(_begin_attempt(progress, unit, name))
    await preflight.release_previous_locks(entries, progress.map_written(unit))


async def _attempt_unit(attempt: UnitAttempt) -> None:
    """Settle what needs no request, then send the rest: again where others were quicker."""
    progress, unit = attempt.progress, attempt.unit
    preflight = _make_preflight(attempt)
    followed_types = await progress.context.change_queues()
    await preflight.lock_conditions(progress.list_unsettled(unit))
    await _load_results_of_others(attempt)
    for number in range(_MAX_ROUNDS):
        found = await preflight.look(unit, progress.list_unsettled(unit), followed_types)
        await _settle(attempt, _find_superseded(attempt, found))
        if found.unlocked:
            await preflight.lock_names(found.unlocked)
            continue
        if found.unseen:
            await _wait_for_reads(attempt, number)
            continue
        if found.has_other_worker:
            if not progress.is_begun:
                raise DeliveryChanged
            raise Unavailable("journal", "another worker is writing this delivery")
        restored = {
            candidate.name: await restore_later(preflight, candidate)
            for candidate in found.overtaken
        }
        known = [result for result in found.settled if result.position not in progress.settled]
        await _settle(attempt, known, found.list_matched(), restored)
        ambiguous = await preflight.find_ambiguous(progress.list_unsettled(unit))
        await _settle(attempt, progress.refuse_ambiguous(unit, ambiguous))
        entries = progress.list_unsettled(unit)
        if not entries:
            return
        if not await preflight.announce_deletes(entries, found):
            continue
        if not await _send(attempt, preflight, entries, found):
            return
        # Nothing of what was refused was done, and a crash from here on changes nothing.
        attempt.send_state = SendState.ANSWERED
        attempt.was_contested = True
    raise _make_conflict(attempt)


async def _wait_for_reads(attempt: UnitAttempt, number: int) -> None:
    """Pause before the unit looks again. Raises Unavailable after the last pause.

    A resource that was made just now is not shown by a copy that lags. To write it without a
    condition could overwrite a later state.
    """
    guard = attempt.progress.context.guard
    if number >= len(_LAG_PAUSES):
        upstream = attempt.progress.context.fhir.upstream.name
        why = "its reads do not show yet what was written just now"
        raise Unavailable(upstream, why, guard.read_lag)
    await guard.pause(_LAG_PAUSES[number] * (0.5 + guard.jitter()))


def _make_conflict(attempt: UnitAttempt) -> UnitConflict:
    upstream = attempt.progress.context.fhir.upstream.name
    return UnitConflict(
        upstream, "others keep changing the same resources", None, unit=attempt.name
    )


def _ensure_time_left(attempt: UnitAttempt) -> None:
    """Check that the locks last for a request. Raises Unavailable; after a contested request, a
    UnitConflict, which is counted: a slow server that refuses the unit each time must not keep the
    locks from ever lasting long enough."""
    try:
        write_guard.ensure_time_left(attempt.progress.context.guard, attempt.locks)
    except Unavailable as error:
        if attempt.was_contested:
            raise _make_conflict(attempt) from error
        raise


async def _load_results_of_others(attempt: UnitAttempt) -> None:
    """Record what another worker with the same lane has settled while this one waited for locks."""
    progress, unit = attempt.progress, attempt.unit
    delivery = progress.delivery.id
    if any(lock.written_by == delivery for lock in attempt.locks.previous.values()):
        journal = progress.context.journal
        results = await journal.list_entry_results(delivery, progress.results_lane)
        settled = list_settled(results, progress.delivery.round)
        positions = map_targets(unit)
        progress.record(unit, [result for result in settled if result.position in positions])


async def _send(
    attempt: UnitAttempt, preflight: Preflight, entries: Sequence[UnitEntry], found: Findings
) -> bool:
    """Send these entries in one request. Return whether some must be looked at again, since others
    have changed their resources. Raises Unavailable when the server did not finish them."""
    progress, unit, context = attempt.progress, attempt.unit, attempt.progress.context
    delivery = progress.delivery.id
    stamp = _make_stamp(preflight.attempt, entries, found)
    await _record_bases(attempt, entries, found)
    attempt.send_state = SendState.UNANSWERED
    request = units.build_request(unit, entries, progress.identities, stamp)
    with add_activity_context(
        action=f"write unit {attempt.name}", resource=_get_single_target(entries)
    ):
        response = await context.fhir.send(request, delivery, partial(_ensure_time_left, attempt))
        attempt.send_state = SendState.ANSWERED
        conflicts = count_conflicts(progress.item, attempt.name)
        results = entry_results.read_response(unit, entries, response, conflicts, stamp.conditions)
        if response.status == 200:
            _log_refusals(attempt, results.settled)
    settled, restored = await check_overtaken(preflight, results.settled, found)
    await _settle(attempt, settled, found.list_matched(), restored)
    is_contested = results.is_contested
    for half in results.halves:
        is_contested |= await _send(attempt, preflight, half, found)
    others = [] if results.is_contested else results.unfinished
    if others:
        reason = f"the server did not finish {len(others)} of {len(entries)} entries"
        upstream = context.fhir.upstream.name
        if results.is_conflict:
            raise UnitConflict(upstream, reason, results.retry_after, unit=attempt.name)
        raise Unavailable(upstream, reason, results.retry_after)
    return is_contested


def _make_stamp(attempt: Attempt, entries: Sequence[UnitEntry], found: Findings) -> Stamp:
    """Return what is added to the entries: each replaces only the version that was found."""
    conditions = {
        entry.position: candidate.state
        for entry in entries
        if (candidate := found.candidates.get(entry.position)) is not None
        and candidate.state is not None
        and entry.method in ("PUT", "PATCH")
        and attempt.is_ordered
        and not entry.has_precondition
    }
    names = {
        entry.position: found.candidates[entry.position].name
        for entry in entries
        if entry.condition is not None and attempt.is_ordered and entry.position in found.candidates
    }
    return Stamp(
        delivery=attempt.delivery,
        ordered=attempt.is_ordered,
        conditions=conditions,
        names=names,
    )


async def _record_bases(
    attempt: UnitAttempt, entries: Sequence[UnitEntry], found: Findings
) -> None:
    """Record that the unit begins, and which versions were there at its first attempt, before
    anything is sent."""
    progress = attempt.progress
    bases = {
        entry.position: found.candidates[entry.position].version
        for entry in entries
        if entry.position in found.candidates
        and not entry.created
        and entry.position not in progress.bases
    }
    if progress.delivery.write_order == UNGUARDED:
        bases = {}
    await _ensure_begun(progress, bases)
    new = {position: bases[position] for position in bases.keys() - progress.bases.keys()}
    if not new:
        return
    journal, delivery = progress.context.journal, progress.delivery.id
    if not progress.has_results:
        await journal.begin_lane(delivery, progress.lane)
        progress.has_results = True
    await journal.record_bases(delivery, progress.lane, new)
    progress.bases |= new


async def _settle(
    attempt: UnitAttempt,
    results: Sequence[EntryResult],
    matches: Mapping[int, Sequence[str]] | None = None,
    restored: Mapping[str, StateVersion] | None = None,
) -> None:
    """Queue the changes that others follow, then record the results, and what was queued.

    In this order, since a worker that ends in between only queues the changes once more.
    `restored`: the resources of which another delivery's state was restored.
    """
    if not results:
        return
    progress, context = attempt.progress, attempt.progress.context
    await _ensure_begun(progress, {})
    delivery = progress.delivery.id
    changes = list_changes(delivery, attempt.unit, results, matches or {}, restored or {})
    queues = await context.change_queues()
    followed = [name for name in sorted(changes) if name.partition("/")[0] in queues]
    sender = progress.delivery.sender or None
    items = {name: replace(changes[name][1], sender=sender) for name in followed}
    await asyncio.gather(
        *(context.queue.send(queues[name.partition("/")[0]], items[name]) for name in followed)
    )
    mirrored: dict[int, list[str]] = {}
    for name in followed:
        if queues[name.partition("/")[0]] == MIRROR_QUEUE:
            mirrored.setdefault(changes[name][0], []).append(name)
    with_unit = [
        replace(
            result,
            unit=attempt.name,
            queued=mirrored.get(result.position),
            round=progress.delivery.round,
        )
        for result in results
    ]
    if progress.has_results:
        await context.journal.add_entry_results(delivery, progress.lane, with_unit)
    else:
        await context.journal.save_entry_results(delivery, progress.lane, with_unit)
        progress.has_results = True
    progress.record(attempt.unit, with_unit)


def _find_superseded(attempt: UnitAttempt, found: Findings) -> list[EntryResult]:
    """Return results for the entries whose condition a later delivery has written by."""
    return [
        write_decisions.build_superseded_result(entry, found.get_only_match(entry.position))
        for entry in attempt.progress.list_unsettled(attempt.unit)
        if entry.position in attempt.locks.superseded
    ]


def _get_single_target(entries: Sequence[UnitEntry]) -> str | None:
    """Return `Type/id` if the entries write one resource whose id is known."""
    type_, _, id_ = entries[0].target.partition("/") if len(entries) == 1 else ("", "", "")
    return entries[0].target if is_type(type_) and is_id(id_) else None


def _log_refusals(attempt: UnitAttempt, results: Sequence[EntryResult]) -> None:
    """Add the refused entries to the activity log: a batch is answered with 200 in any case."""
    statuses = sorted(Counter(result.status for result in results if not result.is_written).items())
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
