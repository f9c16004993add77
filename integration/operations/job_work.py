"""The work of a job: what it works on, part by part, and what is done with each thing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from itertools import zip_longest

from integration.core.errors import Misconfigured, Unavailable
from integration.core.model import OPEN, UNDER_WAY, Delivery, Status, WorkItem
from integration.journal.concern import Concern, ConcernGroup, ConcernKind
from integration.journal.delivery_filter import is_waiting, matches
from integration.journal.jobs import Job, JobKind, PreviewSummary
from integration.journal.store import Journal
from integration.operations.deliveries import (
    ReplayTerms,
    hasten,
    may_resend_refused,
)
from integration.operations.job_cursor import (
    PART,
    Cursor,
    begin_part,
    count_key,
    decode_cursor,
    encode_cursor,
    end_segment,
)
from integration.operations.job_targets import (
    choose_concerns,
    is_target,
    list_concern_page,
    list_open_ids,
    list_segment,
)
from integration.operations.lost_rows import build_row_item
from integration.operations.many_deliveries import (
    cancel_many,
    do_side_by_side,
    replay_many,
    send_all,
)
from integration.queues.names import MIRROR_QUEUE
from integration.queues.queue_sender import QueueSender

# How often what others change meanwhile is read.
_TRIES = 3


class Step(StrEnum):
    """What is done about one concern."""

    CHANGE = "change"  # replay or cancel its delivery
    SEND = "send"  # its delivery was replayed, and is not known to be in the queue
    SEND_ROW = "send row"
    HASTEN = "hasten"  # its delivery waits
    COUNT = "count"  # this job has changed it: its worker ended before it could say so
    LEAVE_OUT = "leave out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one thing: one of the counts is 1."""

    done: int = 0
    left_out: int = 0
    failed: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What the work of a job needs."""

    journal: Journal
    queue: QueueSender
    now: Callable[[], datetime]
    terms: ReplayTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a part of the work came to. `cursor`: where it goes on; `found`: None: not known;
    `summary`: of a preview, with all parts before; `error`: why it cannot go on now, or at all."""

    cursor: str
    found: int | None = None
    looked_at: int = 0
    done: int = 0
    left_out: int = 0
    failed: int = 0
    reason: str | None = None
    summary: PreviewSummary | None = None
    is_last: bool = False
    error: Unavailable | Misconfigured | None = None


async def work_through(tools: Tools, job: Job) -> AsyncGenerator[Part, None]:
    """Work on a job from its cursor on, part by part, to its end. Raises Unavailable.

    It works on what was there when it started, once: the cursor only moves towards that time. So it
    ends, even if all that it replays fails again.
    """
    parts = _work_on_open(tools, job)
    if choose_concerns(job.filter) is not None:
        parts = _work_on_concerns(tools, job)
    async for part in parts:
        yield part


async def _work_on_concerns(tools: Tools, job: Job) -> AsyncIterator[Part]:
    cursor, found = decode_cursor(job.cursor), job.found or 0
    while not cursor.is_counted:
        page, after = await list_concern_page(tools.journal, job.filter, job.started, cursor.after)
        for concern in page:
            cursor = count_key(cursor, concern.id)
        cursor = replace(cursor, after=after, is_counted=after is None)
        found += len(page)
        is_last = cursor.is_counted and not cursor.starts
        yield Part(cursor=encode_cursor(cursor), found=found, is_last=is_last)
        if is_last:
            return
    while cursor.starts:
        concerns = await list_segment(
            tools.journal, job.filter, job.started, cursor.starts[-1], cursor.end
        )
        repeated = await _look_at_repeated(tools, job, cursor, {item.id for item in concerns})
        if not concerns:  # mended since they were counted
            cursor = end_segment(cursor)
            yield _sum_up(cursor, repeated, is_last=not cursor.starts)
            continue
        parts = [concerns[start : start + PART] for start in range(0, len(concerns), PART)]
        cursor = begin_part(cursor, _name_things(parts[0]))
        yield _sum_up(cursor, repeated)
        for part, following in zip_longest(parts, parts[1:]):
            results = await _work_on_part(tools, job, part)
            if following is not None:
                cursor = replace(cursor, end=part[-1].id)
                cursor = begin_part(cursor, _name_things(following))
                yield _sum_up(cursor, results)
            else:
                cursor = end_segment(cursor)
                yield _sum_up(cursor, results, is_last=not cursor.starts)


def _name_things(concerns: Sequence[Concern]) -> list[tuple[str, str]]:
    return [(concern.id, concern.delivery) for concern in concerns]


async def _look_at_repeated(
    tools: Tools, job: Job, cursor: Cursor, listed: Set[str]
) -> list[Outcome]:
    """Return what became of those things of an interrupted part that are not listed any more: a
    worker of this job was done with them and could not save it, or somebody else was."""
    ended = [delivery for id_, delivery in cursor.under_way if id_ not in listed]
    # No row says who had it written, and no delivery that waited who had it tried.
    if job.filter.group is ConcernGroup.ROWS or _only_hastens(job):
        return [Outcome(done=1)] * len(ended)
    found = await do_side_by_side(tools.journal.get_delivery, ended)
    return [
        Outcome(done=1) if delivery is not None and delivery.job == job.id else Outcome(left_out=1)
        for delivery in found
    ]


async def _work_on_open(tools: Tools, job: Job) -> AsyncIterator[Part]:
    cursor = decode_cursor(job.cursor)
    ids = await list_open_ids(tools.journal, job.filter, job.started, cursor.end)
    found = None if cursor.is_counted else len(ids)
    repeated = await _look_at_repeated(tools, job, cursor, set(ids))
    cursor = begin_part(replace(cursor, is_counted=True), [(id_, id_) for id_ in ids[:PART]])
    yield replace(_sum_up(cursor, repeated), found=found)

    for start in range(0, len(ids), PART):
        part, following = ids[start : start + PART], ids[start + PART : start + 2 * PART]
        work = _hasten_open if _only_hastens(job) else _cancel_open
        results = await work(tools, job, part)
        cursor = begin_part(replace(cursor, end=part[-1]), [(id_, id_) for id_ in following])
        yield _sum_up(cursor, results)
    yield Part(cursor=encode_cursor(cursor), is_last=True)


def _only_hastens(job: Job) -> bool:
    """Whether a job has what waits tried at once, and does nothing else."""
    return job.kind is JobKind.REPLAY and job.filter.criteria.waiting


async def _hasten_open(tools: Tools, job: Job, ids: Sequence[str]) -> list[Outcome]:
    found = await do_side_by_side(tools.journal.get_delivery, ids)
    targets = [item for item in found if item is not None and matches(item, job.filter.criteria)]

    async def hasten_delivery(delivery: Delivery) -> None:
        await hasten(tools.queue, delivery)

    await do_side_by_side(hasten_delivery, targets)
    left_out = len(ids) - len(targets)
    return [Outcome(done=1)] * len(targets) + [Outcome(left_out=1)] * left_out


async def _cancel_open(tools: Tools, job: Job, ids: Sequence[str]) -> list[Outcome]:
    outcomes = dict.fromkeys(ids, Outcome(left_out=1))
    left = list(ids)
    for _ in range(_TRIES):
        found = await do_side_by_side(tools.journal.get_delivery, left)
        read = [delivery for delivery in found if delivery is not None]
        # A worker of this job has cancelled it and could not save that.
        outcomes |= {item.id: Outcome(done=1) for item in read if item.job == job.id}
        targets = [
            item for item in read if item.status in OPEN and matches(item, job.filter.criteria)
        ]
        cancelled = await cancel_many(tools.journal, targets, tools.now(), job=job.id)
        outcomes |= {id_: Outcome(done=1) for id_, is_done in cancelled.items() if is_done}
        left = [id_ for id_, is_done in cancelled.items() if not is_done]
    return list(outcomes.values())


async def _work_on_part(tools: Tools, job: Job, concerns: Sequence[Concern]) -> list[Outcome]:
    """Work on some concerns. What somebody changes meanwhile is read again."""
    outcomes: dict[str, Outcome] = {}
    left = list(concerns)
    for _ in range(_TRIES):
        ids = list(dict.fromkeys(concern.delivery for concern in left))
        found = dict(zip(ids, await do_side_by_side(tools.journal.get_delivery, ids), strict=True))
        read = [found[concern.delivery] for concern in left]
        outcomes |= await _work_on_pairs(tools, job, list(zip(left, read, strict=True)))
        left = [concern for concern in left if concern.id not in outcomes]
        if not left:
            break
    return [outcomes.get(concern.id, Outcome(left_out=1)) for concern in concerns]


async def _work_on_pairs(
    tools: Tools, job: Job, pairs: Sequence[tuple[Concern, Delivery | None]]
) -> dict[str, Outcome]:
    """Work on concerns whose deliveries were read. Return what became of each, by its id; a
    delivery that was changed meanwhile has no outcome."""
    outcomes: dict[str, Outcome] = {}
    targets: dict[str, tuple[str, Delivery]] = {}  # with their concerns, by delivery
    broken_off: dict[str, str] = {}
    rows: list[WorkItem] = []
    hastened: list[Delivery] = []
    for concern, delivery in pairs:
        step = _choose(job, concern, delivery, tools)
        outcomes[concern.id] = Outcome(left_out=1)
        if delivery is None or step is Step.LEAVE_OUT:
            continue
        if step is Step.CHANGE:
            targets[delivery.id] = (concern.id, delivery)
            del outcomes[concern.id]
            continue
        outcomes[concern.id] = Outcome(done=1)
        if step is Step.SEND:
            broken_off[delivery.id] = concern.id
        elif step is Step.SEND_ROW and concern.resource is not None:
            is_waiting_row = concern.kind is ConcernKind.ROW_WAITING
            rows.append(build_row_item(delivery, concern.resource, once=is_waiting_row))
        elif step is Step.HASTEN:
            hastened.append(delivery)

    async def send_row(item: WorkItem) -> None:
        await tools.queue.send(MIRROR_QUEUE, item)

    async def hasten_delivery(delivery: Delivery) -> None:
        await hasten(tools.queue, delivery)

    await do_side_by_side(send_row, rows)
    await do_side_by_side(hasten_delivery, hastened)
    await send_all(tools.journal, tools.queue, list(broken_off))
    await tools.journal.delete_concerns(list(broken_off.values()))
    changed = await _change(tools, job, [delivery for _, delivery in targets.values()])
    for id_, result in changed.items():
        if isinstance(result, str):
            outcomes[targets[id_][0]] = Outcome(failed=1, reason=result)
        elif result:
            outcomes[targets[id_][0]] = Outcome(done=1)
    return outcomes


def _choose(job: Job, concern: Concern, delivery: Delivery | None, tools: Tools) -> Step:
    """Return what to do about a concern whose delivery was read. Pure, but for the clock.

    What this job has changed once it does not change again, though it may have failed again.
    """
    if delivery is None:
        return Step.LEAVE_OUT
    if job.filter.group is ConcernGroup.ROWS:
        return Step.SEND_ROW if is_target(concern, delivery, job.filter) else Step.LEAVE_OUT
    if job.kind is JobKind.REPLAY and delivery.status is Status.ACCEPTED and delivery.unqueued:
        return Step.SEND
    is_wanted = is_target(concern, delivery, job.filter)
    if delivery.job == job.id:
        return Step.LEAVE_OUT if is_wanted else Step.COUNT
    if not is_wanted or delivery.corrected_by is not None:
        return Step.LEAVE_OUT
    if job.kind is JobKind.REPLAY and delivery.status in UNDER_WAY:
        return Step.HASTEN if is_waiting(delivery) else Step.LEAVE_OUT
    is_done = delivery.status is Status.DONE
    if is_done and not may_resend_refused(delivery, tools.now(), tools.terms):
        return Step.LEAVE_OUT
    return Step.CHANGE


async def _change(
    tools: Tools, job: Job, deliveries: Sequence[Delivery]
) -> Mapping[str, bool | str]:
    if not deliveries:
        return {}
    now = tools.now()
    if job.kind is JobKind.CANCEL:
        return await cancel_many(tools.journal, deliveries, now, job=job.id)
    return await replay_many(tools.journal, tools.queue, deliveries, now, tools.terms, job=job.id)


def _sum_up(cursor: Cursor, outcomes: Sequence[Outcome], *, is_last: bool = False) -> Part:
    reasons = [outcome.reason for outcome in outcomes if outcome.reason is not None]
    return Part(
        cursor=encode_cursor(cursor),
        looked_at=len(outcomes),
        done=sum(outcome.done for outcome in outcomes),
        left_out=sum(outcome.left_out for outcome in outcomes),
        failed=sum(outcome.failed for outcome in outcomes),
        reason=reasons[-1] if reasons else None,
        is_last=is_last,
    )
