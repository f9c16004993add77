"""The work of a job: what it works on, part by part, and what is done with each thing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from integration.core.errors import Rejected
from integration.core.model import OPEN, Delivery, Status, WorkItem
from integration.journal.concern import Concern, ConcernGroup
from integration.journal.delivery_filter import matches
from integration.journal.jobs import Job, JobKind
from integration.journal.store import Journal
from integration.operations.deliveries import ReplayTerms, cancel_seen, requeue, resend_refused
from integration.operations.delivery_list import read_deliveries
from integration.operations.job_cursor import (
    Cursor,
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
from integration.queues.names import MIRROR_QUEUE
from integration.queues.queue_sender import QueueSender

# Things after which progress is saved. What a killed worker has done since is looked at again.
PART = 100

# Things that are worked on at the same time.
_MAX_CONCURRENT = 16

_Thing = TypeVar("_Thing")


class Result(StrEnum):
    """What became of one thing."""

    DONE = "done"
    LEFT_OUT = "left out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What the work of a job needs."""

    journal: Journal
    queue: QueueSender
    now: Callable[[], datetime]
    terms: ReplayTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a part of the work came to. `cursor`: where it goes on; `found`: None: not known."""

    cursor: str
    found: int | None = None
    looked_at: int = 0
    done: int = 0
    left_out: int = 0
    failed: int = 0
    reason: str | None = None
    is_last: bool = False


async def work_through(tools: Tools, job: Job) -> AsyncIterator[Part]:
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
        for start in range(0, len(concerns), PART):
            part = concerns[start : start + PART]
            results = await _work_on_part(tools, job, part)
            if start + PART < len(concerns):
                cursor = replace(cursor, end=part[-1].id)
                yield _sum_up(cursor, results)
            else:
                cursor = end_segment(cursor)
                yield _sum_up(cursor, results, is_last=not cursor.starts)
        if not concerns:  # mended since they were counted
            cursor = end_segment(cursor)
            yield _sum_up(cursor, [], is_last=not cursor.starts)


async def _work_on_open(tools: Tools, job: Job) -> AsyncIterator[Part]:
    cursor = decode_cursor(job.cursor)
    ids = await list_open_ids(tools.journal, job.filter, job.started, cursor.end)
    if not cursor.is_counted:
        cursor = replace(cursor, is_counted=True)
        yield Part(cursor=encode_cursor(cursor), found=len(ids))

    async def work(id_: str) -> Result:
        delivery = await tools.journal.get_delivery(id_)
        if delivery is None or not matches(delivery, job.filter.criteria):
            return Result.LEFT_OUT
        return await _work_on_delivery(tools, job, delivery)

    for start in range(0, len(ids), PART):
        part = ids[start : start + PART]
        results = await _work_side_by_side(work, part)
        yield _sum_up(replace(cursor, end=part[-1]), results)
    yield Part(cursor=encode_cursor(cursor), is_last=True)


async def _work_on_part(
    tools: Tools, job: Job, concerns: Sequence[Concern]
) -> list[Result | Rejected]:
    async def work(pair: tuple[Concern, Delivery | None]) -> Result:
        concern, delivery = pair
        if delivery is None:
            return Result.LEFT_OUT
        if is_target(concern, delivery, job.filter):
            if job.filter.group is not ConcernGroup.ROWS:
                return await _work_on_delivery(tools, job, delivery)
            await tools.queue.send(MIRROR_QUEUE, WorkItem(delivery.id, resource=concern.resource))
            return Result.DONE
        is_broken_off = delivery.status is Status.ACCEPTED and delivery.unqueued
        if is_broken_off and job.kind is JobKind.REPLAY:
            return await _work_on_delivery(tools, job, delivery)
        return Result.DONE if _was_done(job, delivery) else Result.LEFT_OUT

    read = await read_deliveries(tools.journal, concerns)
    return await _work_side_by_side(work, list(zip(concerns, read, strict=True)))


def _was_done(job: Job, delivery: Delivery) -> bool:
    """Whether it was done since the job began: by a worker that ended before it could say so. It
    decides how a thing is counted, and nothing else."""
    if job.kind is JobKind.CANCEL:
        moment = delivery.finished if delivery.status is Status.CANCELLED else None
    else:
        moment = delivery.replayed if job.filter.group is not ConcernGroup.ROWS else None
    return moment is not None and moment >= job.started


async def _work_on_delivery(tools: Tools, job: Job, delivery: Delivery) -> Result:
    now = tools.now()
    if job.kind is JobKind.CANCEL:
        is_done = delivery.status in OPEN and await cancel_seen(tools.journal, delivery, now)
    elif delivery.status is Status.DONE:
        is_done = await resend_refused(tools.journal, tools.queue, delivery, now, tools.terms)
    else:
        is_done = await requeue(tools.journal, tools.queue, delivery, now, tools.terms)
    return Result.DONE if is_done else Result.LEFT_OUT


async def _work_side_by_side(
    work: Callable[[_Thing], Awaitable[Result]], things: Sequence[_Thing]
) -> list[Result | Rejected]:
    """Do some things at the same time. Return what became of each. Raises what is no Rejected,
    after all have ended: the part is repeated then."""
    semaphore = asyncio.Semaphore(_MAX_CONCURRENT)

    async def run(thing: _Thing) -> Result | Rejected:
        async with semaphore:
            try:
                return await work(thing)
            except Rejected as error:
                return error

    ended = await asyncio.gather(*map(run, things), return_exceptions=True)
    results: list[Result | Rejected] = []
    for one in ended:
        if isinstance(one, BaseException) and not isinstance(one, Rejected):
            raise one
        results.append(one)
    return results


def _sum_up(cursor: Cursor, results: Sequence[Result | Rejected], *, is_last: bool = False) -> Part:
    failures = [result for result in results if isinstance(result, Rejected)]
    return Part(
        cursor=encode_cursor(cursor),
        looked_at=len(results),
        done=results.count(Result.DONE),
        left_out=results.count(Result.LEFT_OUT),
        failed=len(failures),
        reason=str(failures[-1]) if failures else None,
        is_last=is_last,
    )
