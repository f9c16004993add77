"""VERBS start_job, get_job, list_jobs, stop_job, do_slice, give_up: long work of an operator.

A job is done in slices: one work item does one, saves how far it came, and queues the next. A slice
that is repeated replays nothing twice: a delivery is changed only from the state that it was seen
in. docs/decisions/0039-a-job-is-a-row-and-a-cursor.md
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from integration.core.errors import Issue, Rejected
from integration.core.log_events import log_event
from integration.core.model import WorkItem
from integration.journal.jobs import OPEN_STATES, Job, JobPage, Jobs, JobState
from integration.journal.store import Journal
from integration.journal.table_keys import build_audit_id, parse_activity_time
from integration.operations import query_parameters
from integration.operations.deliveries import DEFAULT_TERMS, ReplayTerms
from integration.operations.job_request import JobRequest
from integration.operations.job_targets import MatchCount, count_matching
from integration.operations.job_work import Part, Tools, work_through
from integration.queues.names import JOB_QUEUE
from integration.queues.queue_sender import QueueSender

LIST_PARAMETERS = ("_count", "after")

# So long without progress, and the work item of a job is taken for lost.
_PROGRESS_TIMEOUT = timedelta(minutes=10)

_GIVEN_UP = (
    "its work failed repeatedly: the log of the function says why. What is done stays done; start "
    "another job for the rest"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobParts:
    """What jobs need. `max_items`, `max_seconds`: after which a slice leaves the rest to the next
    one."""

    jobs: Jobs
    journal: Journal
    queue: QueueSender
    now: Callable[[], datetime]
    new_token: Callable[[], str]
    terms: ReplayTerms = DEFAULT_TERMS
    max_items: int = 2000
    max_seconds: float = 20.0


async def start_job(parts: JobParts, request: JobRequest) -> Job:
    """Start a job, and return it. Raises Unavailable; if the job was saved and only the queue
    failed, housekeeping starts it."""
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
    await _queue_slice(parts.queue, job.id)
    return job


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
    job = await _claim(parts, item.job or "")
    if job is not None and job.state is JobState.RUNNING:
        job = await _work(parts, job)
    if job is not None and job.state is JobState.STOPPING:
        now = parts.now()
        stopped = replace(job, state=JobState.STOPPED, progressed=now, ended=now)
        job = await _save_over(parts.jobs, job, stopped)
    if job is None:
        return  # it has ended, or another worker goes on with it
    if job.state in OPEN_STATES:
        await _queue_slice(parts.queue, job.id)
    else:
        _log_end(job)


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


async def _queue_slice(queue: QueueSender, id_: str) -> None:
    await queue.send(JOB_QUEUE, WorkItem("", job=id_))


async def _claim(parts: JobParts, id_: str) -> Job | None:
    """Put this worker's token into the row of a job. Return None if it has ended, or another worker
    was quicker."""
    job = await parts.jobs.get_job(id_)
    if job is None or job.state not in OPEN_STATES:
        return None
    return await _save_over(parts.jobs, job, replace(job, worker=parts.new_token()))


async def _work(parts: JobParts, job: Job) -> Job | None:
    """Work on a job until the slice is over, and save its progress after each part. Return the job
    as it was saved last; None if another worker goes on with it."""
    begun, items = parts.now(), 0
    tools = Tools(journal=parts.journal, queue=parts.queue, now=parts.now, terms=parts.terms)
    async for part in work_through(tools, job):
        saved = await _save_over(parts.jobs, job, _add_part(job, part, parts.now()))
        if saved is None:
            return None
        job, items = saved, items + part.looked_at
        seconds = (parts.now() - begun).total_seconds()
        is_over = items >= parts.max_items or seconds >= parts.max_seconds
        if is_over or job.state is not JobState.RUNNING:
            break
    return job


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
        progressed=now,
        ended=now if part.is_last else None,
    )


async def _save_over(jobs: Jobs, seen: Job, changed: Job) -> Job | None:
    """Save a job over the row as it was seen. If it was only stopped since, save it with that.
    Return None if another worker has saved it, or it has ended."""
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
