"""VERB sweep: queue lost work again, park what takes too long, delete what is over.

A step that runs twice, or in two instances at the same time, does no harm: a work item for settled
entries sends nothing, a status is changed only from the one that was seen, and a delivery that is
half deleted is found again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from math import inf

from integration.core.errors import IntegrationError
from integration.core.log_events import log_event
from integration.core.model import Delivery, Status, WorkItem
from integration.journal.activity_log import ActivityLog
from integration.journal.audit_log import AuditLog
from integration.journal.concerns import park_open
from integration.journal.corrections import find_last_correction
from integration.journal.due_days import DueDays
from integration.journal.flow_log import FlowLog
from integration.journal.guard_store import GuardStore
from integration.journal.housekeeping_runs import HousekeepingRun, HousekeepingRuns
from integration.journal.jobs import Jobs
from integration.journal.lane_bits import list_open_lanes
from integration.journal.row_keys import RowKeys
from integration.journal.store import IndexEntry, Journal
from integration.journal.table_keys import make_delivery_id, parse_accepted_time
from integration.operations.due_days import MAX_ROWS, queue_due_rows
from integration.operations.flow import MAX_HOURS
from integration.operations.jobs import queue_lost_jobs
from integration.operations.lost_rows import list_rows_without_result
from integration.operations.stale_concerns import drop_stale_concerns
from integration.queues.names import MIRROR_QUEUE, RELAY_QUEUE
from integration.queues.queue_sender import QueueSender, queue_answer

# The most deliveries that one run acts on: of the active ones, and of those that are over.
MAX_DELIVERIES = 1000

# The most entries of the activity log, and of the audit log, that one run deletes: a hundred
# transactions.
MAX_LOG_ENTRIES = 10_000

# How long the counts of an hour are kept: as long as anybody can ask for them.
_FLOW_AGE = timedelta(hours=MAX_HOURS + 24)

# Deliveries that are worked on at the same time.
_MAX_CONCURRENT = 16

# Processing begins within seconds, and a lane takes minutes.
_START_TIMEOUT = timedelta(minutes=10)
_PROGRESS_TIMEOUT = timedelta(hours=1)

# How much longer than its work items a delivery may take: they may have to wait in the queue.
_GRACE = timedelta(hours=1)

_ACTIVE = frozenset({Status.ACCEPTED, Status.PROCESSING})
_ENDED = frozenset({Status.DONE, Status.CANCELLED})

# How often a parked delivery is looked at, only to find out whether it has ended: a replay makes it
# due at once.
_PARKED_INTERVAL = timedelta(days=1)

# An answer is written within seconds. One that is due for longer is queued again, each time that
# this is over.
ANSWER_TIMEOUT = timedelta(hours=1)

# How long rows that were queued again have until the delivery is looked at once more.
_ROWS_TIMEOUT = timedelta(days=1)

_TOO_OLD = "not done within MAX_AGE plus one hour; fix what held it up, then replay it"


class Step(StrEnum):
    """What housekeeping does with a delivery. A parked one waits for an operator."""

    QUEUE = "queued"  # again, unless it makes progress
    PARK = "parked"
    FORGET = "forgotten"


@dataclass(frozen=True, slots=True)
class Ages:
    """How long a delivery may take, how long it is kept afterwards, and how long entries of the
    activity log and of the audit log are kept."""

    max_age: timedelta
    retention: timedelta
    activity: timedelta
    audit: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Housekeeping:
    """What housekeeping needs. `max_duration`: seconds after which a run deletes no more. `runs`:
    where it is recorded what a run did; None: nowhere. `flow`, `jobs`, `due_days`: None: there are
    none."""

    journal: Journal
    guard_store: GuardStore
    queue: QueueSender
    activity: ActivityLog
    audit: AuditLog
    row_keys: RowKeys
    now: Callable[[], datetime]
    ages: Ages
    max_duration: float = inf
    runs: HousekeepingRuns | None = None
    flow: FlowLog | None = None
    jobs: Jobs | None = None
    due_days: DueDays | None = None


def choose_step(delivery: Delivery, now: datetime, ages: Ages) -> Step | None:
    """Return what to do with a delivery now. Pure."""
    if delivery.status in _ENDED:
        ended = delivery.finished or delivery.accepted
        is_checked = delivery.checked is not None and now - delivery.checked < _ROWS_TIMEOUT
        return Step.FORGET if now - ended >= ages.retention and not is_checked else None
    if delivery.status not in _ACTIVE:
        return None
    if now - _get_start(delivery) > ages.max_age + _GRACE:
        return Step.PARK
    return Step.QUEUE if now >= _find_check(delivery) else None


def find_next_check(delivery: Delivery, now: datetime, ages: Ages) -> datetime | None:
    """Return when to look at a delivery again; None: never, it has ended. Pure."""
    if delivery.status in _ENDED:
        return None
    if delivery.status not in _ACTIVE:
        return now + _PARKED_INTERVAL
    too_old = _get_start(delivery) + ages.max_age + _GRACE + timedelta(seconds=1)
    return min(_find_check(delivery), too_old)


def _get_start(delivery: Delivery) -> datetime:
    return delivery.replayed or delivery.accepted


def _find_check(delivery: Delivery) -> datetime:
    """Return when an active delivery is to be checked for progress."""
    started = _get_start(delivery)
    timeout = _START_TIMEOUT if delivery.status is Status.ACCEPTED else _PROGRESS_TIMEOUT
    last_check = max(started, delivery.checked or started)
    # Wait twice as long each time: deliveries in a long queue must not make it longer and longer.
    return last_check + max(timeout, last_check - started)


async def sweep(housekeeping: Housekeeping) -> None:
    """Do one run. What is left over is for the next one.

    Raises the first error, after every step was tried.
    """
    now = housekeeping.now()
    await housekeeping.journal.index_open(now - _START_TIMEOUT)
    entries, more_entries = await _find_due_entries(housekeeping, now)
    ended, more_ended = await _find_ended(housekeeping, now)
    semaphore = asyncio.Semaphore(_MAX_CONCURRENT)

    def is_over() -> bool:
        return (housekeeping.now() - now).total_seconds() >= housekeeping.max_duration

    async def run(work: Awaitable[Step | None]) -> Step | None:
        async with semaphore:
            return await work

    work = [
        *(_check_open(housekeeping, entry, now) for entry in entries),
        *(_forget(housekeeping, delivery, now, is_over) for delivery in ended),
    ]
    results = await asyncio.gather(*map(run, work), return_exceptions=True)
    failed = [result for result in results if isinstance(result, BaseException)]
    unfinished = len(ended) > results.count(Step.FORGET) + len(failed)
    locks = await _delete_old_locks(housekeeping, now)
    ages = housekeeping.ages
    activity = await housekeeping.activity.delete_before(now - ages.activity, MAX_LOG_ENTRIES)
    audit = await housekeeping.audit.delete_before(now - ages.audit, MAX_LOG_ENTRIES)
    flow = 0
    if housekeeping.flow is not None:
        flow = await housekeeping.flow.delete_before(now - _FLOW_AGE, MAX_LOG_ENTRIES)
    concerns = await drop_stale_concerns(
        housekeeping.journal, housekeeping.row_keys, housekeeping.queue, now
    )
    if housekeeping.jobs is not None:
        await queue_lost_jobs(housekeeping.jobs, housekeeping.queue, now)
        await housekeeping.jobs.delete_jobs_before(now - ages.retention, MAX_DELIVERIES)
    days = 0
    if housekeeping.due_days is not None:
        days = await queue_due_rows(
            housekeeping.due_days, housekeeping.journal, housekeeping.queue, now
        )
    done = HousekeepingRun(
        began=now,
        ended=housekeeping.now(),
        queued=results.count(Step.QUEUE),
        parked=results.count(Step.PARK),
        forgotten=results.count(Step.FORGET),
        locks=locks,
        activity=activity,
        audit=audit,
        concerns=concerns,
        rows=days,
        failed=len(failed),
        more=more_entries
        or more_ended
        or unfinished
        or days == MAX_ROWS
        or MAX_LOG_ENTRIES in (activity, audit, flow),
    )
    await _record_run(housekeeping, done, failed)
    if failed:
        raise failed[0]


async def _record_run(
    housekeeping: Housekeeping, run: HousekeepingRun, failed: list[BaseException]
) -> None:
    """Log what a run did, and record it. If it cannot be recorded, add the error to `failed`."""
    log_event(
        "housekeeping.done",
        queued=run.queued,
        parked=run.parked,
        forgotten=run.forgotten,
        locks=run.locks,
        activity=run.activity,
        audit=run.audit,
        concerns=run.concerns,
        rows=run.rows,
        failed=run.failed,
        more=run.more,
    )
    if housekeeping.runs is None:
        return
    try:
        await housekeeping.runs.save_last_run(run)
    except IntegrationError as error:
        failed.append(error)


async def _delete_old_locks(housekeeping: Housekeeping, now: datetime) -> int:
    """Delete the write locks that no kept delivery needs.

    A parked delivery may be replayed at any age. All that are older than minutes are in the index.
    """
    oldest = now - housekeeping.ages.retention
    async for entry in housekeeping.journal.scan_index(None):
        oldest = min(oldest, parse_accepted_time(entry.delivery))
    before = make_delivery_id(oldest, 0)
    return await housekeeping.guard_store.delete_old(before, now.timestamp(), MAX_DELIVERIES)


async def _find_due_entries(
    housekeeping: Housekeeping, now: datetime
) -> tuple[list[IndexEntry], bool]:
    """Return the open deliveries that are due, up to the limit, and whether there are more."""
    due: dict[str, IndexEntry] = {}
    async for entry in housekeeping.journal.scan_index(now):
        if entry.delivery in due:
            await housekeeping.journal.move_index_entry(entry, None)  # one entry is enough
        elif len(due) == MAX_DELIVERIES:
            return list(due.values()), True
        else:
            due[entry.delivery] = entry
    return list(due.values()), False


async def _find_ended(housekeeping: Housekeeping, now: datetime) -> tuple[list[Delivery], bool]:
    """Return the deliveries that are to be deleted, up to the limit, and whether there are more."""
    due: list[Delivery] = []
    # No delivery ends before it is accepted, so younger ones need not be read.
    until = now - housekeeping.ages.retention
    async for delivery in housekeeping.journal.scan_deliveries(_ENDED, None, until):
        if choose_step(delivery, now, housekeeping.ages) is not Step.FORGET:
            continue
        if len(due) == MAX_DELIVERIES:
            return due, True
        due.append(delivery)
    return due, False


async def _check_open(housekeeping: Housekeeping, entry: IndexEntry, now: datetime) -> Step | None:
    """Do what an open delivery needs, and make its entry due when it may need something again."""
    journal, ages = housekeeping.journal, housekeeping.ages
    delivery = await journal.get_delivery(entry.delivery)
    done: Step | None = None
    due = None
    if delivery is not None:
        step = choose_step(delivery, now, ages)
        if step is Step.PARK:
            done = step if await _park(housekeeping, delivery) else None
            delivery = replace(delivery, checked=now)
        elif step is Step.QUEUE:
            done = step if await _requeue(housekeeping, delivery, now) else None
            delivery = replace(delivery, checked=now)
        due = find_next_check(delivery, now, ages)
        if delivery.status in _ENDED and delivery.answer_due:
            await queue_answer(housekeeping.queue, delivery)
            due = now + ANSWER_TIMEOUT
    await journal.move_index_entry(entry, due)
    return done


async def _forget(
    housekeeping: Housekeeping, delivery: Delivery, now: datetime, is_over: Callable[[], bool]
) -> Step | None:
    """Delete a delivery that is over, unless a correction of it is open, its answer is due, or
    rows of it have no result yet: these are queued again.
    Return None if the time was over before: a delivery may have the rows of a hundred thousand
    patients. The next run goes on."""
    if is_over():
        return None
    if (await find_last_correction(housekeeping.journal, delivery)).status not in _ENDED:
        # Its correction may still take over what this one has written.
        await housekeeping.journal.update_delivery(delivery.id, only_if=_ENDED, checked=now)
        return None
    if await _queue_lost_rows(housekeeping, delivery, now):
        return Step.QUEUE
    if delivery.answer_due:
        await queue_answer(housekeeping.queue, delivery)
        await housekeeping.journal.update_delivery(delivery.id, only_if=_ENDED, checked=now)
        return Step.QUEUE
    if not await housekeeping.journal.delete_delivery(delivery.id, is_over):
        return None
    if delivery.attention:
        await housekeeping.journal.delete_concern(delivery.attention)
    return Step.FORGET


async def _queue_lost_rows(housekeeping: Housekeeping, delivery: Delivery, now: datetime) -> bool:
    """Queue the rows of a delivery again that have no result yet. Return whether there are any."""
    journal = housekeeping.journal
    if (
        not delivery.queued_rows
        or await journal.count_mirrored(delivery.id) >= delivery.queued_rows
    ):
        return False
    items = await list_rows_without_result(journal, delivery)
    await _queue_again(housekeeping, MIRROR_QUEUE, delivery, items)
    if items:
        await journal.update_delivery(delivery.id, only_if=_ENDED, checked=now)
    return bool(items)


async def _queue_again(
    housekeeping: Housekeeping, queue: str, delivery: Delivery, items: Sequence[WorkItem]
) -> None:
    for item in items:
        await housekeeping.queue.send(queue, item)
    if items:
        log_event(
            "delivery.queued_again",
            delivery=delivery.id,
            status=delivery.status,
            work_items=len(items),
        )


async def _park(housekeeping: Housekeeping, delivery: Delivery) -> bool:
    is_parked = await park_open(housekeeping.journal, delivery, _TOO_OLD, housekeeping.now())
    if is_parked:
        log_event("delivery.parked", delivery=delivery.id, lane=None, attempt=None, reason=_TOO_OLD)
    return is_parked


async def _requeue(housekeeping: Housekeeping, delivery: Delivery, now: datetime) -> bool:
    """Queue the lost work of a delivery again. Return whether there was any."""
    items = await _list_lost_items(housekeeping.journal, delivery)
    await _queue_again(housekeeping, RELAY_QUEUE, delivery, items)
    # Recorded last: if this ends before, the work is queued once more.
    await housekeeping.journal.update_delivery(
        delivery.id,
        only_if=frozenset({delivery.status}),
        checked=now,
        unqueued=False,
        lanes_done_at_check=delivery.lanes_done,
    )
    return bool(items)


async def _list_lost_items(journal: Journal, delivery: Delivery) -> list[WorkItem]:
    """Return the work items that may be lost. A worker requeues what it has begun by itself."""
    if delivery.status is Status.ACCEPTED:
        has_begun = delivery.begun or await journal.has_begun(delivery.id)
        return [WorkItem(delivery.id)] if delivery.unqueued or not has_begun else []
    if delivery.lanes_done != delivery.lanes_done_at_check:
        return []
    # When all lanes are done, only the end of the delivery is missing: any lane finds that out.
    lanes = list_open_lanes(delivery) or [0]
    return [WorkItem(delivery.id, lane=lane, plan=delivery.plan) for lane in lanes]
