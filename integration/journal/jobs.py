"""Jobs: long work that an operator has started. The contract of their store, and a memory one.

A job is a row: what it works on, how far it came, and what became of what it looked at. Whoever
works on it saves its row on condition that nobody else has, so of two workers one gives way.
docs/decisions/0039-a-job-is-a-row-and-a-cursor.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from integration.journal.bounds import bound_text
from integration.journal.concern import ConcernGroup, ConcernKind
from integration.journal.delivery_filter import DeliveryFilter
from integration.journal.table_keys import is_audit_id, parse_activity_time

# Characters of a text of a filter, of who started a job, and of a reason.
MAX_FILTER_LENGTH = 200
MAX_NAME_LENGTH = 200
MAX_REASON_LENGTH = 500


class JobKind(StrEnum):
    """What a job does with each thing that it works on."""

    REPLAY = "replay"
    CANCEL = "cancel"
    RECONCILE = "reconcile"
    PREVIEW = "preview"


class JobState(StrEnum):
    """How far a job is."""

    RUNNING = "running"
    STOPPING = "stopping"  # somebody has stopped it, and its worker has not heard of it yet
    STOPPED = "stopped"
    DONE = "done"
    FAILED = "failed"  # its work failed repeatedly


OPEN_STATES = frozenset({JobState.RUNNING, JobState.STOPPING})


class Comparison(StrEnum):
    """What a reconcile compares."""

    VERSIONS = "versions"  # quick: takes the version that a row shows for truth
    CONTENT = "content"  # all that the rows show; also rows whose resource was deleted


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileFilter:
    """What a reconcile works on: all resources of a type, and their rows. `dry_run`: it changes
    nothing. `ends_bringing`: the table is answered from these rows once all of them are there."""

    type: str
    compare: Comparison = Comparison.CONTENT
    dry_run: bool = False
    ends_bringing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewFilter:
    """What a preview works on: all resources of a type, with the map that changes of the
    configuration would make. `base`: the version that they are made on; `changes`: see Draft."""

    type: str
    base: int
    changes: Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewSummary:
    """What a preview has found so far: how many rows would change in each column, how many
    resources have no row, and some whose rows would change, as `Type/id`."""

    columns: Mapping[str, int] = field(default_factory=dict)
    without_row: int = 0
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """What a job works on: deliveries that match `criteria`. `group`: of those only what needs
    attention in this way; `concern`: of that group this kind alone, `same_reason`: for exactly this
    reason. `reconcile`, `preview`: of
    those kinds of jobs, which work on no deliveries."""

    criteria: DeliveryFilter = field(default_factory=DeliveryFilter)
    group: ConcernGroup | None = None
    concern: ConcernKind | None = None
    same_reason: str | None = None
    reconcile: ReconcileFilter | None = None
    preview: PreviewFilter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Long work that an operator has started. Holds no patient data."""

    id: str  # sorts by the time of its start, the newest first
    kind: JobKind
    filter: JobFilter
    started: datetime
    started_by: str = ""
    state: JobState = JobState.RUNNING
    found: int | None = None  # how many things it works on; None: they are not counted yet
    looked_at: int = 0
    done: int = 0  # replayed, cancelled or mended; of a preview: would change
    left_out: int = 0  # did not match any more, or is as it should be
    failed: int = 0  # of a reconcile: differs still; of a preview: cannot be compared
    summary: PreviewSummary | None = None  # of a preview
    reason: str | None = None  # why the last one failed, or the job itself
    waiting: str | None = None  # for whom it waits, while it cannot go on
    progressed: datetime | None = None
    ended: datetime | None = None
    cursor: str = ""  # where its work goes on: see integration.operations.job_cursor
    worker: str = ""  # the token of the worker that has saved this row last
    etag: str | None = field(default=None, compare=False, repr=False)  # of its row when it was read


@dataclass(frozen=True, slots=True)
class JobPage:
    """Jobs, newest first. `after`: where the next page begins; None: there is no more."""

    jobs: tuple[Job, ...]
    after: str | None


class Jobs(Protocol):
    """Every method raises Unavailable when the storage does not answer."""

    async def add_job(self, job: Job) -> Job:
        """Add a job, and list it among the open ones before. Return it with its etag. Repeating it
        changes nothing."""

    async def get_job(self, id_: str) -> Job | None:
        """Return the job; None when there is none with this id."""

    async def save_job(self, job: Job) -> Job | None:
        """Save a job over the row with its etag. Return it with its new etag; None, and save
        nothing, when the row has changed or is deleted. One that has ended is no longer listed
        among the open ones."""

    async def list_jobs(self, limit: int, after: str | None) -> JobPage:
        """Return up to `limit` jobs, newest first, from `after` on. Raises ValueError for an
        `after` that no page has returned."""

    async def list_open_jobs(self) -> Sequence[str]:
        """Return the ids of the open jobs. One that has just ended, or was never added, may be
        among them."""

    async def close_job(self, id_: str) -> None:
        """List a job no longer among the open ones."""

    async def delete_jobs_before(self, before: datetime, limit: int) -> int:
        """Delete up to `limit` jobs of the days before that of `before`. Return how many."""


def bound_job(job: Job) -> Job:
    """Return a job whose texts are as long as its row holds them. Pure."""
    reason = None if job.reason is None else bound_text(job.reason, MAX_REASON_LENGTH)
    waiting = None if job.waiting is None else bound_text(job.waiting, MAX_REASON_LENGTH)
    started_by = bound_text(job.started_by, MAX_NAME_LENGTH)
    return replace(job, reason=reason, waiting=waiting, started_by=started_by)


@dataclass(slots=True)
class MemoryJobs:
    """The same contract in dictionaries, for tests."""

    jobs: dict[str, Job] = field(default_factory=dict)
    open: dict[str, None] = field(default_factory=dict)
    changes: int = 0

    async def add_job(self, job: Job) -> Job:
        self.open[job.id] = None
        return self.jobs[job.id] if job.id in self.jobs else self._set(job)

    def _set(self, job: Job) -> Job:
        self.changes += 1
        self.jobs[job.id] = replace(bound_job(job), etag=str(self.changes))
        return self.jobs[job.id]

    async def get_job(self, id_: str) -> Job | None:
        return self.jobs.get(id_)

    async def save_job(self, job: Job) -> Job | None:
        current = self.jobs.get(job.id)
        if current is None or current.etag != job.etag:
            return None
        if job.state not in OPEN_STATES:
            self.open.pop(job.id, None)
        return self._set(job)

    async def list_jobs(self, limit: int, after: str | None) -> JobPage:
        if after is not None and not is_audit_id(after):
            raise ValueError("no page has returned this position")
        ids = sorted(id_ for id_ in self.jobs if after is None or id_ > after)
        page = tuple(self.jobs[id_] for id_ in ids[:limit])
        return JobPage(page, page[-1].id if len(ids) > limit else None)

    async def list_open_jobs(self) -> Sequence[str]:
        return list(self.open)

    async def close_job(self, id_: str) -> None:
        self.open.pop(id_, None)

    async def delete_jobs_before(self, before: datetime, limit: int) -> int:
        old = [id_ for id_ in sorted(self.jobs) if parse_activity_time(id_).date() < before.date()][
            :limit
        ]
        for id_ in old:
            del self.jobs[id_]
        return len(old)
