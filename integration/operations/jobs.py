"""VERBS start_job, add_job, begin_job, get_job, list_jobs, stop_job, do_slice, give_up: long work
of an operator.

A job is done in slices: one work item does one, saves how far it came, and queues the next. A slice
that is repeated replays nothing twice: a delivery is changed only from the state that it was seen
in. docs/decisions/0039-a-job-is-a-row-and-a-cursor.md
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from integration.core.errors import Issue, Misconfigured, Rejected, Unavailable
from integration.core.log_events import log_event
from integration.core.model import WorkItem
from integration.journal.jobs import OPEN_STATES, Job, JobKind, JobPage, Jobs, JobState, bound_job
from integration.journal.store import Journal
from integration.journal.table_keys import build_audit_id, parse_activity_time
from integration.operations import query_parameters
from integration.operations.deliveries import DEFAULT_TERMS, ReplayTerms
from integration.operations.job_request import JobRequest
from integration.operations.job_targets import MatchCount, count_matching
from integration.operations.job_work import Part, Tools, work_through
from integration.operations.reconcile_jobs import (
    ReconcileWork,
    check_reconcile,
    get_reconcile_work,
)
from integration.queues.names import JOB_QUEUE
from integration.queues.queue_sender import QueueSender
from integration.queues.retry import Retry, plan_retry

LIST_PARAMETERS = ("_count", "after")

# So long without progress, and the work item of a job is taken for lost.
_PROGRESS_TIMEOUT = timedelta(minutes=10)

# Seconds for which a job waits for a service that is away, and at most between two attempts, unless
# the service asks for more: whoever stops a job does not wait long.
_MAX_WAIT = 24 * 3600.0
_LONGEST_DELAY = 60.0

_GIVEN_UP = (
    "its work failed repeatedly: the log of the function says why. What is done stays done; start "
    "another job for the rest"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobParts:
    """What jobs need. `max_items`, `max_seconds`: after which a slice leaves the rest to the next
    one. `reconcile`: does the jobs of that kind."""

    jobs: Jobs
    journal: Journal
    queue: QueueSender
    now: Callable[[], datetime]
    new_token: Callable[[], str]
    terms: ReplayTerms = DEFAULT_TERMS
    max_items: int = 2000
    max_seconds: float = 20.0
    reconcile: ReconcileWork | None = None


async def start_job(parts: JobParts, request: JobRequest, *, delay: float = 0.0) -> Job:
    """Start a job after so many seconds, and return it. Raises Rejected for a reconcile that cannot
    be done; Unavailable: if the job was saved and only the queue failed, housekeeping starts it."""
    job = await add_job(parts, request)
    await begin_job(parts, job.id, delay)
    return job


async def add_job(parts: JobParts, request: JobRequest) -> Job:
    """Add a job that has not begun. If nobody has it begin, housekeeping does after some minutes.
    Raises Rejected for a reconcile that cannot be done, and Unavailable."""
    await check_reconcile(parts.reconcile, request.filter)
    now = parts.now()
    job = await parts.jobs.add_job(
        Job(
            id=build_audit_id(now, parts.new_token()),
            kind=request.kind,
            filter=request.filter,
            started=now,
            started_by=request.started_by,
        )
    )
    log_event("job.started", job=job.id, kind=job.kind)
    return job


async def begin_job(parts: JobParts, id_: str, delay: float = 0.0) -> None:
    """Have a job begin after so many seconds."""
    await _queue_slice(parts.queue, id_, delay)


async def count_targets(parts: JobParts, request: JobRequest) -> MatchCount:
    """Return how many things a job would work on, were it started now."""
    return await count_matching(parts.journal, request.filter, parts.now)


async def get_job(jobs: Jobs, id_: str) -> Job:
    """Return a job. Raises Rejected with 404 for an unknown one."""
    job = await jobs.get_job(id_)
    if job is None:
        raise Rejected(Issue("not-found", "no job has this id"), status=404)
    return job


async def list_jobs(jobs: Jobs, params: Mapping[str, str]) -> JobPage:
    """Return jobs, the newest first, by the query parameters LIST_PARAMETERS. Raises Rejected."""
    count = query_parameters.parse_count(params.get("_count", query_parameters.DEFAULT_COUNT))
    try:
        return await jobs.list_jobs(count, params.get("after"))
    except ValueError:
        text = "after must be as in the link to the next page"
        raise Rejected(Issue("value", text, "after")) from None


async def stop_job(jobs: Jobs, id_: str) -> Job:
    """Have a job end soon. What it has done stays done. Raises Rejected: with 404 for an unknown
    one, with 409 for one that has ended."""
    while True:
        job = await get_job(jobs, id_)
        if job.state not in OPEN_STATES:
            text = f"the job is {job.state} already"
            raise Rejected(Issue("conflict", text), status=409)
        if job.state is JobState.STOPPING:
            return job
        stopping = await jobs.save_job(replace(job, state=JobState.STOPPING))
        if stopping is not None:
            return stopping


async def do_slice(parts: JobParts, item: WorkItem) -> None:
    """Do a slice of a job, and queue the next one, unless another worker goes on with the job.

    Raises Unavailable, and then the work item comes again.
    """
    job, retry = await _claim(parts, item.job or ""), None
    if job is not None and job.state is JobState.RUNNING:
        job, retry = await _work(parts, job, item)
    if job is not None and job.state is JobState.STOPPING:
        now = parts.now()
        stopped = replace(job, state=JobState.STOPPED, progressed=now, ended=now)
        job = await _save_over(parts.jobs, job, stopped)
    if job is None:
        return  # it has ended, or another worker goes on with it
    if job.state not in OPEN_STATES:
        _log_end(job)
    elif retry is not None:
        await parts.queue.send(JOB_QUEUE, retry.item, retry.delay or 0.0)
    else:
        await _queue_slice(parts.queue, job.id)


async def give_up(parts: JobParts, item: WorkItem) -> None:
    """End a job whose work item failed repeatedly."""
    while True:
        job = await parts.jobs.get_job(item.job or "")
        if job is None or job.state not in OPEN_STATES:
            return
        failed = replace(job, state=JobState.FAILED, reason=_GIVEN_UP, ended=parts.now())
        if await parts.jobs.save_job(failed) is not None:
            _log_end(failed)
            return


async def queue_lost_jobs(jobs: Jobs, queue: QueueSender, now: datetime) -> int:
    """Queue the open jobs again that make no progress: their work items may be lost. Return how
    many. One that is queued twice is worked on by one worker, and the other gives way."""
    queued = 0
    for id_ in await jobs.list_open_jobs():
        job = await jobs.get_job(id_)
        if job is not None and job.state in OPEN_STATES:
            if now - (job.progressed or job.started) >= _PROGRESS_TIMEOUT:
                await _queue_slice(queue, id_)
                log_event("job.queued_again", job=id_, kind=job.kind)
                queued += 1
        # One that is not there may just be added: its id tells when.
        elif job is not None or now - parse_activity_time(id_) >= _PROGRESS_TIMEOUT:
            await jobs.close_job(id_)
    return queued


async def _queue_slice(queue: QueueSender, id_: str, delay: float = 0.0) -> None:
    await queue.send(JOB_QUEUE, WorkItem("", job=id_), delay)


async def _claim(parts: JobParts, id_: str) -> Job | None:
    """Put this worker's token into the row of a job. Return None if it has ended, or another worker
    was quicker."""
    job = await parts.jobs.get_job(id_)
    if job is None or job.state not in OPEN_STATES:
        return None
    return await _save_over(parts.jobs, job, replace(job, worker=parts.new_token()))


async def _work(parts: JobParts, job: Job, item: WorkItem) -> tuple[Job | None, Retry | None]:
    """Work on a job until the slice is over, and save its progress after each part. Return the job
    as it was saved last, None if another worker goes on with it; and when to go on, if it waits."""
    begun, items = parts.now(), 0
    async with aclosing(_begin_work(parts, job)) as work:
        async for part in work:
            now, retry = parts.now(), None
            changed = _add_part(job, part, now)
            if part.error is not None:
                # Progress since the work item came: the service was there in between.
                tried = WorkItem("", job=job.id) if items else item
                retry = _plan_wait(tried, part.error, now)
                if retry is None:
                    reason = str(part.error)
                    changed = replace(changed, state=JobState.FAILED, reason=reason, ended=now)
                else:
                    changed = replace(changed, waiting=str(part.error))
            saved = await _save_over(parts.jobs, job, changed)
            if saved is None or part.error is not None:
                return saved, retry
            job, items = saved, items + part.looked_at
            seconds = (parts.now() - begun).total_seconds()
            is_over = items >= parts.max_items or seconds >= parts.max_seconds
            if is_over or job.state is not JobState.RUNNING:
                break
    return job, None


def _begin_work(parts: JobParts, job: Job) -> AsyncGenerator[Part, None]:
    if job.kind is JobKind.RECONCILE:
        return get_reconcile_work(parts.reconcile).work(job)
    if job.kind is JobKind.PREVIEW:
        return get_reconcile_work(parts.reconcile).preview(job)
    tools = Tools(journal=parts.journal, queue=parts.queue, now=parts.now, terms=parts.terms)
    return work_through(tools, job)


def _plan_wait(item: WorkItem, error: Unavailable | Misconfigured, now: datetime) -> Retry | None:
    """Return when a job goes on; None: it ends here, since an operator has to act first, or it has
    waited for too long."""
    if isinstance(error, Misconfigured):
        return None
    retry = plan_retry(item, error, now, _MAX_WAIT)
    if retry.delay is None:
        return None
    return replace(retry, delay=min(retry.delay, max(_LONGEST_DELAY, error.retry_after or 0.0)))


def _add_part(job: Job, part: Part, now: datetime) -> Job:
    """Return a job after a part of its work."""
    return replace(
        job,
        state=JobState.DONE if part.is_last else job.state,
        cursor=part.cursor,
        found=job.found if part.found is None else part.found,
        looked_at=job.looked_at + part.looked_at,
        done=job.done + part.done,
        left_out=job.left_out + part.left_out,
        failed=job.failed + part.failed,
        reason=part.reason or job.reason,
        summary=part.summary or job.summary,
        waiting=None,
        progressed=now,
        ended=now if part.is_last else None,
    )


async def _save_over(jobs: Jobs, seen: Job, changed: Job) -> Job | None:
    """Save a job over the row as it was seen. If it was only stopped since, save it with that.
    Return None if another worker has saved it, or it has ended."""
    changed = bound_job(changed)  # as its row will be read
    while True:
        saved = await jobs.save_job(replace(changed, etag=seen.etag))
        if saved is not None:
            return saved
        current = await jobs.get_job(seen.id)
        if current is None or current == changed:
            return current  # deleted; or it was saved, and the answer was lost
        is_seen = (current.worker, current.cursor) == (seen.worker, seen.cursor)
        if not is_seen or current.state not in OPEN_STATES:
            return None
        seen = current
        if changed.state is JobState.RUNNING:
            changed = replace(changed, state=current.state)


def _log_end(job: Job) -> None:
    if job.state is JobState.DONE:
        log_event(
            "job.done",
            job=job.id,
            kind=job.kind,
            looked_at=job.looked_at,
            done=job.done,
            left_out=job.left_out,
            failed=job.failed,
        )
    elif job.state is JobState.STOPPED:
        log_event(
            "job.stopped",
            job=job.id,
            kind=job.kind,
            looked_at=job.looked_at,
            done=job.done,
            left_out=job.left_out,
            failed=job.failed,
        )
    else:
        log_event(
            "job.failed",
            job=job.id,
            kind=job.kind,
            looked_at=job.looked_at,
            done=job.done,
            left_out=job.left_out,
            failed=job.failed,
        )
