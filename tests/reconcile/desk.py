"""A reconcile as a job, and who works on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from integration.core.errors import Unavailable
from integration.core.model import WorkItem
from integration.journal.jobs import Job, JobFilter, JobKind, MemoryJobs, PreviewFilter
from integration.mapping.map_changes import MapChanges, find_map_changes
from integration.mapping.model import EntityMap
from integration.mirror import mirror as mirroring
from integration.operations import jobs
from integration.operations.job_request import JobRequest, build_reconcile_filter
from integration.operations.jobs import JobParts
from integration.operations.reconcile_jobs import ReconcileWork
from integration.queues.names import MIRROR_QUEUE
from integration.queues.queue_sender import MemoryQueueSender
from integration.reconcile import job as reconcile_job
from integration.reconcile import preview, walk
from integration.reconcile.differences import DifferenceKind
from integration.reconcile.job import ReconcileParts
from integration.reconcile.run import ReconcileRun
from tests.builders import Body
from tests.conftest import Route, mirrored_maps

RUN = "019caaee-c260-7000-8000-0000000000aa"

PATIENT = mirrored_maps()["Patient"]


@dataclass
class FlakyJobs(MemoryJobs):
    """Storage that takes every save but the next `failing`: as if the worker had ended before."""

    failing: int = 0
    saves: int = 0

    async def save_job(self, job: Job) -> Job | None:
        self.saves += 1
        if self.failing:
            self.failing -= 1
            raise Unavailable("storage", "busy")
        return await MemoryJobs.save_job(self, job)


@dataclass
class Desk:
    """A route, and the jobs that compare its two ends."""

    route: Route
    page_size: int = 200
    jobs: FlakyJobs = field(default_factory=FlakyJobs)
    queue: MemoryQueueSender = field(default_factory=MemoryQueueSender)
    queues: dict[str, str] = field(default_factory=lambda: {"Patient": MIRROR_QUEUE})
    limits: dict[str, Any] = field(default_factory=dict)
    mirror: mirroring.Mirror | None = None
    changed: EntityMap | None = None
    ended: list[tuple[str, str, bool]] = field(
        default_factory=list
    )  # and whether they were brought
    is_route_changed: bool = False
    _numbers: Any = field(default_factory=lambda: count(1))

    @property
    def parts(self) -> JobParts:
        async def get_queues() -> Mapping[str, str]:
            return self.queues

        work = ReconcileParts(
            fhir=self.route.fhir,
            dataverse=self.route.dataverse,
            load_mirror=lambda: self.mirror or self.route.mirror,
            change_queues=get_queues,
            is_brought_by=self.is_brought_by,
            end_bringing=self.end_bringing,
            page_size=self.page_size,
            preview_page_size=self.page_size,
        )
        return JobParts(
            jobs=self.jobs,
            journal=self.route.journal,
            queue=self.queue,
            now=self.route.clock,
            new_token=lambda: f"{next(self._numbers):016x}",
            reconcile=ReconcileWork(
                list_comparisons=partial(reconcile_job.list_comparisons, work),
                check_bringing=partial(reconcile_job.check_bringing, work),
                work=partial(reconcile_job.work, work),
                preview=partial(preview.preview, work, self.find_changes),
            ),
            **self.limits,
        )

    async def is_brought_by(self, _type: str, _job: str) -> bool:
        return not self.is_route_changed

    async def end_bringing(self, type_: str, job: str, is_brought: bool) -> bool:
        if self.is_route_changed:
            return False
        self.ended.append((type_, job, is_brought))
        return is_brought

    async def find_changes(self, _: PreviewFilter) -> MapChanges:
        assert self.changed is not None
        return find_map_changes(PATIENT, self.changed)

    async def preview(self, changed: EntityMap) -> Job:
        """What a changed map would change."""
        self.changed = changed
        job_filter = JobFilter(preview=PreviewFilter(type="Patient", base=0, changes={}))
        request = JobRequest(kind=JobKind.PREVIEW, filter=job_filter, started_by="an admin")
        job = await jobs.start_job(self.parts, request)
        await self.work()
        return await self.get(job)

    async def start(self, compare: str = "content", *, dry_run: bool = False) -> Job:
        job_filter = build_reconcile_filter("Patient", compare, dry_run=dry_run)
        request = JobRequest(kind=JobKind.RECONCILE, filter=job_filter, started_by="an admin")
        return await jobs.start_job(self.parts, request)

    async def work(self, *, least: int = 0) -> int:
        """Do the slices that are queued, until none is. Return how many there were."""
        for number in range(1000):
            if not self.queue.sent:
                assert number >= least
                return number
            (_, item, _) = self.queue.sent[0]
            try:
                await jobs.do_slice(self.parts, item)
            except Unavailable:
                continue  # the work item comes again
            del self.queue.sent[0]
        raise AssertionError("the job never ends")

    async def run(self, compare: str = "content", *, dry_run: bool = False) -> Job:
        job = await self.start(compare, dry_run=dry_run)
        await self.work()
        return await self.get(job)

    async def get(self, job: Job) -> Job:
        return await jobs.get_job(self.jobs, job.id)

    async def mirrored(self, *resources: Body) -> None:
        for resource in resources:
            item = WorkItem(RUN, resource=self.route.fhir_double.add(resource))
            await mirroring.mirror_resource(self.route.mirror, item)

    async def find_differences(self) -> dict[str, DifferenceKind]:
        """What the command finds, and does not mend."""
        run = ReconcileRun(
            mirror=self.route.mirror,
            fhir=self.route.fhir,
            dataverse=self.route.dataverse,
            id=RUN,
            sleep=self.route.wait,
            dry_run=True,
        )
        return {
            repair.difference.resource: repair.difference.kind
            for walked in (walk.walk_content(run, PATIENT), walk.walk_rows(run, PATIENT))
            async for page in walked
            for repair in page.repairs
        }
