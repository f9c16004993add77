"""Write one unit of a lane to the FHIR server, and record the results of its entries.

What is there is looked at first, and others may change it until the unit is sent: then it is looked
at again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from integration.core.activity_recorder import (
    add_activity_context,
    categorize_status,
    get_activity_context,
)
from integration.core.errors import Misconfigured, Unavailable, UnitConflict
from integration.core.model import Category, EntryResult
from integration.core.state_version import StateVersion
from integration.fhir import entry_results, units, write_decisions
from integration.fhir.grammar import is_id, is_type
from integration.fhir.progress import map_targets
from integration.fhir.units import Stamp, Unit, UnitEntry
from integration.fhir.write_decisions import Attempt
from integration.journal import write_guard
from integration.journal.store import list_settled
from integration.journal.write_guard import HeldLocks, SendState
from integration.queues.names import MIRROR_QUEUE
from integration.queues.retry import count_conflicts
from integration.relay.changes import list_changes
from integration.relay.lane_run import DeliveryChanged, LaneRun, ensure_begun
from integration.relay.overtaken import check_overtaken, restore_later
from integration.relay.preflight import UNGUARDED, Findings, Preflight

# Looks at the resources of a unit before its work item goes back to the queue, since others keep
# changing them.
_MAX_ROUNDS = 6

# Attempts that leave the unit to another worker which is ahead. It has recorded what it did by the
# last of them, some minutes later, or it has died: then the history tells what it has written.
_MAX_WAITS = 8

# Seconds between looks, where reads lag behind writes.
_LAG_PAUSES = (0.2, 0.4, 0.8, 1.6, 2.0)


@dataclass(slots=True, kw_only=True)
class UnitAttempt:
    """One attempt to write a unit. `name`: `lane.number` of the unit. `was_contested`: the server
    has refused entries that were sent on condition of a version."""

    progress: LaneRun
    unit: Unit
    name: str
    locks: HeldLocks
    send_state: SendState = SendState.NOT_SENT
    was_contested: bool = False


async def write_unit(progress: LaneRun, unit: Unit, name: str) -> None:
    """Settle every entry of the unit. Raises Unavailable when some must be tried again.

    An invocation that is cancelled (its time is over, the host shuts down) releases its locks, too.
    """
    attempt = _begin_attempt(progress, unit, name)
    guard, locks = progress.context.guard, attempt.locks
    await _settle(attempt, progress.refuse_blocked(unit))
    try:
        await _attempt_unit(attempt)
    except (Unavailable, Misconfigured, DeliveryChanged, asyncio.CancelledError) as error:
        is_refused = isinstance(error, Misconfigured) or (
            isinstance(error, Unavailable) and not error.is_outcome_unknown
        )
        if attempt.send_state is SendState.UNANSWERED and is_refused:
            attempt.send_state = SendState.REFUSED
        await write_guard.release(guard, locks, progress.map_written(unit), attempt.send_state)
        raise
    await write_guard.release(guard, locks, progress.map_written(unit))


def _begin_attempt(progress: LaneRun, unit: Unit, name: str) -> UnitAttempt:
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
        waits_for_others=progress.item.attempt < _MAX_WAITS,
    )


async def release_previous_locks(progress: LaneRun, unit: Unit, name: str) -> None:
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
        attempt.send_state = SendState.REFUSED
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


async def _renew_locks(attempt: UnitAttempt) -> None:
    with _count_contested(attempt):
        await write_guard.renew(attempt.progress.context.guard, attempt.locks)


def _ensure_time_left(attempt: UnitAttempt) -> None:
    with _count_contested(attempt):
        write_guard.ensure_time_left(attempt.progress.context.guard, attempt.locks)


@contextmanager
def _count_contested(attempt: UnitAttempt) -> Iterator[None]:
    """Turn Unavailable into a UnitConflict, which is counted, after a contested request: a slow
    server that refuses the unit each time must not keep the locks from ever lasting long enough."""
    try:
        yield
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
    await _renew_locks(attempt)
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
        if not results.may_be_done:
            attempt.send_state = SendState.REFUSED
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
    # What the server will make: a later attempt finds it by the condition.
    bases |= {
        entry.position: write_decisions.ABSENT
        for entry in entries
        if entry.method in ("PUT", "PATCH")
        and found.matches.get(entry.position) == {}
        and entry.position not in progress.bases
    }
    if progress.delivery.write_order == UNGUARDED:
        bases = {}
    await ensure_begun(progress, bases)
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
    await ensure_begun(progress, {})
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
        for result in entry_results.add_duplicates(attempt.unit, results)
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
