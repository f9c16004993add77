"""A job works on all that was there when it started, once, in slices; it can be stopped, and lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from azure.data.tables.aio import TableServiceClient
from azure.storage.blob.aio import BlobServiceClient

from integration.core.errors import Rejected, Unavailable
from integration.core.model import Delivery, DeliveryRequest, Status, WorkItem
from integration.journal.azure_jobs import AzureJobs
from integration.journal.azure_store import AzureJournal
from integration.journal.concern import (
    Concern,
    ConcernKind,
    build_concern_id,
    build_delivery_concern,
)
from integration.journal.concerns import change_with_concern, park_open
from integration.journal.jobs import Job, JobKind, JobState, MemoryJobs
from integration.journal.store import MemoryJournal, Payload
from integration.journal.table_keys import make_delivery_id
from integration.operations import job_targets, jobs
from integration.operations.housekeeping import sweep
from integration.operations.job_request import JobRequest, build_job_filter
from integration.operations.jobs import JobParts
from integration.queues.names import JOB_QUEUE, MIRROR_QUEUE, RELAY_QUEUE
from integration.queues.queue_sender import MemoryQueueSender
from local.services import Running
from tests.builders import bundle, entry, observation
from tests.conftest import DAY, Route
from tests.doubles import Clock
from tests.operations.housekeeping_parts import keeping

USES = ("deliveries", "open", "attention", "keys", "rows", "subs")
CAUSE = "FHIR server: answered 503"
LOST = WorkItem("", job="f" * 30)


@dataclass
class Bench:
    """A journal with parked deliveries, and the jobs that work on it."""

    clock: Clock
    journal: Any = field(default_factory=MemoryJournal)
    jobs: Any = field(default_factory=MemoryJobs)
    queue: Any = field(default_factory=MemoryQueueSender)
    limits: dict[str, Any] = field(default_factory=dict)
    _numbers: Any = field(default_factory=lambda: count(1))

    @property
    def parts(self) -> JobParts:
        return JobParts(
            jobs=self.jobs,
            journal=self.journal,
            queue=self.queue,
            now=self.clock,
            new_token=lambda: f"{next(self._numbers):016x}",
            **self.limits,
        )

    async def add(self, status: Status = Status.ACCEPTED, **fields: Any) -> Delivery:
        """Return an open delivery."""
        self.clock.later(0.01)
        number = next(self._numbers)
        values = {"sender": "north", "kind": "batch", "key": str(number), "digest": str(number)}
        delivery = Delivery(
            id=make_delivery_id(self.clock(), number),
            accepted=self.clock(),
            status=status,
            entries=1,
            bytes=2,
            **{**values, **fields},
        )
        payload = Payload(DeliveryRequest("POST"), b"{}")
        await self.journal.add_delivery(delivery, payload)
        return delivery

    async def park(self, number: int = 1, reason: str = CAUSE, **fields: Any) -> list[str]:
        """Return the ids of deliveries that are parked, the oldest first."""
        return [(await self.park_again(await self.add(**fields), reason)).id for _ in range(number)]

    async def park_again(self, delivery: Delivery, reason: str = CAUSE) -> Delivery:
        assert await park_open(self.journal, delivery, reason, self.clock())
        return delivery

    async def start(self, kind: JobKind = JobKind.REPLAY, /, **texts: str) -> Job:
        """Start a job a second later."""
        self.clock.later(1)
        request = JobRequest(kind=kind, filter=build_job_filter(kind, texts))
        return await jobs.start_job(self.parts, request)

    async def work(self) -> None:
        """Do the slices that are queued, until none is."""
        for _ in range(100):
            item = self.take()
            if item is None:
                return
            await jobs.do_slice(self.parts, item)
        raise AssertionError("the job never ends")

    def take(self) -> WorkItem | None:
        for message in self.queue.sent:
            if message[0] == JOB_QUEUE:
                self.queue.sent.remove(message)
                item: WorkItem = message[1]
                return item
        return None

    def queued(self, queue: str = RELAY_QUEUE) -> list[str]:
        """The deliveries of the work items of a queue."""
        return [item.delivery for name, item, _ in self.queue.sent if name == queue]

    async def run(self, kind: JobKind = JobKind.REPLAY, /, **texts: str) -> Job:
        """Start a job, and do all of it."""
        job = await self.start(kind, **texts)
        await self.work()
        return await jobs.get_job(self.jobs, job.id)

    async def status(self, id_: str) -> Status:
        delivery = await self.journal.get_delivery(id_)
        assert delivery is not None
        return delivery.status


def counts(job: Job) -> tuple[int | None, int, int, int, int]:
    return (job.found, job.looked_at, job.done, job.left_out, job.failed)


@pytest.fixture(params=["memory", pytest.param("azure", marks=pytest.mark.azurite)])
async def either(
    request: pytest.FixtureRequest, clock: Clock, namespace: str
) -> AsyncIterator[Bench]:
    """With stores in memory, or in the emulator."""
    if request.param == "memory":
        yield Bench(clock)
        return
    azurite: Running = request.getfixturevalue("azurite")
    async with AsyncExitStack() as stack:
        storage = azurite.storage
        blobs = await stack.enter_async_context(BlobServiceClient.from_connection_string(storage))
        tables = await stack.enter_async_context(TableServiceClient.from_connection_string(storage))
        opened = [await tables.create_table(f"{namespace}{use}") for use in (*USES, "jobs")]
        container = await blobs.create_container(namespace)
        yield Bench(clock, AzureJournal(container, *opened[:-1]), AzureJobs(opened[-1]))


@pytest.fixture
def desk(clock: Clock) -> Bench:
    return Bench(clock)


# --- what it works on --------------------------------------------------------------------------


async def test_a_job_replays_all_that_is_parked_once_and_ends(either: Bench) -> None:
    ids = await either.park(7)
    job = await either.run()
    assert (job.state, counts(job)) == (JobState.DONE, (7, 7, 7, 0, 0))
    assert (job.ended, job.progressed) == (either.clock(), either.clock())
    assert sorted(either.queued()) == ids
    assert {await either.status(id_) for id_ in ids} == {Status.ACCEPTED}
    assert await either.jobs.list_open_jobs() == []
    again = await either.run()
    assert (again.state, counts(again)) == (JobState.DONE, (0, 0, 0, 0, 0))


async def test_the_oldest_are_replayed_first_however_many_pages_there_are(desk: Bench) -> None:
    ids = await desk.park(2300)
    job = await desk.run()
    assert counts(job) == (2300, 2300, 2300, 0, 0)
    assert desk.queued() == ids


async def test_only_what_matches_is_replayed(either: Bench) -> None:
    early = await either.park()
    either.clock.later(60)
    since = either.clock()
    wanted = await either.park(2, reason=f"unit 0.1: {CAUSE}", kind="message")
    held = await either.park(1, kind="message", reason=CAUSE)
    await either.park(1, sender="south", kind="message")
    await either.park(1, kind="message", reason="too old")
    await either.park(1, kind="document")
    late = await either.add()
    either.clock.later(60)
    await either.park_again(late)
    texts = {
        "sender": "north",
        "kind": "message",
        "reason": "answered 503",
        "since": since.isoformat(),
        "until": (since + timedelta(seconds=30)).isoformat(),
    }
    request = JobRequest(
        kind=JobKind.REPLAY, filter=build_job_filter(JobKind.REPLAY, {"status": "parked", **texts})
    )
    assert await jobs.count_targets(either.parts, request) == job_targets.MatchCount(3, True)
    job = await either.run(**texts)
    assert job.done == 3
    assert sorted(either.queued()) == sorted([*wanted, *held])
    assert await either.status(early[0]) is Status.PARKED


async def test_the_whole_reason_of_a_delivery_counts_however_long_it_is(desk: Bench) -> None:
    (long,) = await desk.park(reason=f"{'x' * 2000} at the end")
    await desk.park(reason="x" * 2000)
    job = await desk.run(reason="at the end")
    assert (desk.queued(), job.done, job.left_out) == ([long], 1, 1)


async def test_a_replay_that_broke_off_is_queued(desk: Bench) -> None:
    """It was accepted again, and neither its concern was dropped nor its work item sent."""
    (id_,) = await desk.park()
    job = await desk.start()
    await desk.journal.update_delivery(id_, status=Status.ACCEPTED, unqueued=True)
    await desk.work()
    assert desk.queued() == [id_]
    assert (await jobs.get_job(desk.jobs, job.id)).done == 1


async def test_a_delivery_that_was_replayed_or_cancelled_by_hand_is_left_out(desk: Bench) -> None:
    one, other, third = await desk.park(3)
    await desk.journal.update_delivery(one, status=Status.CANCELLED)
    await desk.journal.update_delivery(other, status=Status.DONE)
    job = await desk.run()
    assert desk.queued() == [third]
    assert counts(job) == (3, 3, 1, 2, 0)


async def test_refused_entries_are_sent_again_in_a_new_round(route: Route) -> None:
    desk = Bench(route.clock, route.journal, queue=route.queue_sender)
    route.fhir_double.refuses = {"Observation"}
    ids = []
    for number in range(3):
        body = bundle(entry(observation(id=f"o{number}"), method="PUT"), kind="batch")
        ids.append(await route.deliver(body))
        await route.process_all(ids[-1])
    route.fhir_double.refuses = set()
    await route.journal.delete_delivery(ids[1], lambda: False)
    job = await desk.run(attention="entries")
    assert counts(job) == (3, 3, 2, 1, 0)
    await route.process_all()
    assert await route.statuses(ids[0]) == [201]
    assert (await route.known(ids[2])).round == 1


async def test_what_cannot_be_sent_again_is_counted_with_its_reason(route: Route) -> None:
    desk = Bench(route.clock, route.journal, queue=route.queue_sender)
    route.fhir_double.refuses = {"Observation"}
    ids = []
    for _ in range(2):
        ids.append(await route.deliver(bundle(entry(observation()), kind="batch")))
        await route.process_all(ids[-1])
    del route.journal.payloads[ids[0]]
    job = await desk.run(attention="entries")
    assert (job.state, counts(job)) == (JobState.DONE, (2, 2, 1, 0, 1))
    assert job.reason == "its bytes are deleted, so nothing of it can be sent again"


async def test_rows_are_queued_one_by_one_under_their_deliveries(either: Bench) -> None:
    delivery = await either.add(Status.DONE)
    kinds = (ConcernKind.ROW_REFUSED, ConcernKind.ROW_PARKED, ConcernKind.ROW_INCOMPLETE)
    for number, kind in enumerate(kinds):
        resource = f"Patient/p{number}"
        await either.journal.put_concern(
            Concern(
                id=build_concern_id(either.clock(), resource),
                since=either.clock(),
                kind=kind,
                delivery=delivery.id,
                sender="north",
                reason="answered 400",
                resource=resource,
            )
        )
    job = await either.run(attention="rows")
    sent = [item.resource for name, item, _ in either.queue.sent if name == MIRROR_QUEUE]
    assert sorted(sent) == ["Patient/p0", "Patient/p1"]
    assert counts(job) == (2, 2, 2, 0, 0)


async def test_a_job_cancels_what_is_parked_or_under_way(either: Bench) -> None:
    parked = await either.park(2)
    accepted = (await either.add()).id
    others = [await either.add(status) for status in (Status.PROCESSING, Status.DONE)]
    job = await either.run(JobKind.CANCEL, status="parked")
    assert counts(job) == (2, 2, 2, 0, 0)
    assert {await either.status(id_) for id_ in parked} == {Status.CANCELLED}
    assert await either.status(accepted) is Status.ACCEPTED
    job = await either.run(JobKind.CANCEL, status="processing", sender="north")
    assert (job.state, job.done) == (JobState.DONE, 1)
    assert await either.status(others[0].id) is Status.CANCELLED
    assert await either.status(others[1].id) is Status.DONE
    assert either.queued() == []


async def test_what_waits_for_an_operator_is_cancelled_by_its_need_for_attention(
    either: Bench,
) -> None:
    (parked,) = await either.park()
    waiting, well = await either.add(), await either.add()
    concern = build_delivery_concern(
        ConcernKind.WAITING, waiting.id, "north", either.clock(), reason="answered 403"
    )
    assert await change_with_concern(
        either.journal,
        waiting,
        concern,
        only_if=frozenset({Status.ACCEPTED}),
        waiting=either.clock(),
        for_operator=True,
    )
    job = await either.run(JobKind.CANCEL, attention="delivery")
    assert counts(job) == (2, 2, 2, 0, 0)
    for id_ in (parked, waiting.id):
        assert await either.status(id_) is Status.CANCELLED
    assert await either.status(well.id) is Status.ACCEPTED


# --- it ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize("behind", [0, 3600], ids=["in-time", "clock-behind"])
async def test_a_job_ends_though_all_that_it_replays_fails_again(
    desk: Bench, behind: float
) -> None:
    """The clock of who parks it again may be behind that of who has started the job."""
    ids = await desk.park(450)
    desk.limits = {"max_items": 100}
    job = await desk.start()
    for _ in range(20):
        item = desk.take()
        if item is None:
            break
        await jobs.do_slice(desk.parts, item)
        for id_ in ids:
            delivery = await desk.journal.get_delivery(id_)
            assert delivery is not None
            if delivery.status is Status.ACCEPTED:
                now = desk.clock() - timedelta(seconds=behind)
                assert await park_open(desk.journal, delivery, CAUSE, now)
    ended = await jobs.get_job(desk.jobs, job.id)
    assert (ended.state, ended.done) == (JobState.DONE, 450)
    assert desk.queued() == ids


async def test_what_comes_after_its_start_is_not_worked_on(desk: Bench) -> None:
    (id_,) = await desk.park()
    started = await desk.start()
    cancelling = await desk.start(JobKind.CANCEL, status="accepted")
    await desk.park(3)
    later = await desk.add()
    await desk.work()
    assert desk.queued() == [id_]
    assert (await jobs.get_job(desk.jobs, started.id)).found == 1
    assert (await jobs.get_job(desk.jobs, cancelling.id)).done in (0, 1)
    assert await desk.status(later.id) is Status.ACCEPTED


# --- slices --------------------------------------------------------------------------------------


async def test_each_slice_saves_how_far_it_came_and_queues_the_next(desk: Bench) -> None:
    ids = await desk.park(350)
    desk.limits = {"max_items": 150}
    job = await desk.start()
    seen = []
    while (item := desk.take()) is not None:
        await jobs.do_slice(desk.parts, item)
        seen.append(counts(await jobs.get_job(desk.jobs, job.id)))
    assert seen == [(350, 200, 200, 0, 0), (350, 350, 350, 0, 0)]
    assert desk.queued() == ids


async def test_a_slice_is_over_after_its_seconds(desk: Bench) -> None:
    class Slow(MemoryJournal):
        async def index_delivery(self, id_: str, due: Any) -> None:
            desk.clock.later(0.1)
            await super().index_delivery(id_, due)

    desk.journal = Slow()
    await desk.park(300)
    job = await desk.start()
    await jobs.do_slice(desk.parts, desk.take() or LOST)
    assert (await jobs.get_job(desk.jobs, job.id)).looked_at == 200
    await desk.work()
    assert (await jobs.get_job(desk.jobs, job.id)).done == 300


@dataclass
class FailingQueue(MemoryQueueSender):
    """Takes so many messages, and then, once, none."""

    left: int = 0

    async def send(self, queue: str, item: WorkItem, delay: float = 0) -> None:
        self.left -= 1
        if self.left == 0:
            raise Unavailable("storage", "away")
        await super().send(queue, item, delay)


@pytest.mark.parametrize("left", [2, 50, 101, 130, 251])
async def test_a_slice_that_breaks_off_is_repeated_and_nothing_is_left_behind(
    clock: Clock, left: int
) -> None:
    desk = Bench(clock)
    ids = await desk.park(250)
    job = await desk.start()
    desk.queue = FailingQueue(left=left)
    item = WorkItem("", job=job.id)
    if left <= 250:
        with pytest.raises(Unavailable):
            await jobs.do_slice(desk.parts, item)
    await jobs.do_slice(desk.parts, item)
    ended = await jobs.get_job(desk.jobs, job.id)
    assert (ended.state, counts(ended)[2:]) == (JobState.DONE, (250, 0, 0))
    assert sorted(desk.queued()) == ids
    for id_ in ids:
        delivery = await desk.journal.get_delivery(id_)
        assert delivery is not None
        assert (delivery.status, delivery.unqueued) == (Status.ACCEPTED, False)


@dataclass
class UnsavedJobs(MemoryJobs):
    """Does not save so many jobs, as though their worker ended, or another one took over."""

    unsaved: set[int] = field(default_factory=set)
    saves: int = 0

    async def save_job(self, job: Job) -> Job | None:
        self.saves += 1
        if self.saves in self.unsaved:
            raise Unavailable("storage", "away")
        return await super().save_job(job)


@pytest.mark.parametrize("unsaved", [2, 3, 4, 5, 6])
@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (JobKind.REPLAY, {"status": "parked"}),
        (JobKind.CANCEL, {"status": "parked"}),
        (JobKind.CANCEL, {"status": "accepted"}),
    ],
)
async def test_a_part_that_is_done_and_not_saved_is_counted_by_the_next_worker(
    clock: Clock, kind: JobKind, texts: dict[str, str], unsaved: int
) -> None:
    desk = Bench(clock, jobs=UnsavedJobs(unsaved={unsaved}))
    ids = (
        await desk.park(250)
        if texts["status"] == "parked"
        else [(await desk.add()).id for _ in range(250)]
    )
    job = await desk.start(kind, **texts)
    item = WorkItem("", job=job.id)
    with pytest.raises(Unavailable):
        await jobs.do_slice(desk.parts, item)
    for id_ in desk.queued():  # the relay is quick
        assert await desk.journal.update_delivery(id_, status=Status.DONE)
    await jobs.do_slice(desk.parts, item)
    ended = await jobs.get_job(desk.jobs, job.id)
    assert (ended.state, counts(ended)) == (JobState.DONE, (250, 250, 250, 0, 0))
    if kind is JobKind.REPLAY:
        assert sorted(desk.queued()) == ids  # none twice


async def test_what_somebody_else_did_while_a_worker_ended_is_not_counted_as_done(
    clock: Clock,
) -> None:
    desk = Bench(clock, jobs=UnsavedJobs(unsaved={4}))
    ids = await desk.park(3)
    job = await desk.start()
    item = WorkItem("", job=job.id)
    with pytest.raises(Unavailable):
        await jobs.do_slice(desk.parts, item)
    assert await desk.journal.update_delivery(ids[0], job="another job")
    await jobs.do_slice(desk.parts, item)
    ended = await jobs.get_job(desk.jobs, job.id)
    assert (ended.state, counts(ended)) == (JobState.DONE, (3, 3, 2, 1, 0))


class Watched(MemoryJournal):
    """Does something else once, when a delivery is read for the first time."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def get_delivery(self, id_: str) -> Delivery | None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return await super().get_delivery(id_)


async def test_of_two_workers_with_one_message_one_gives_way(clock: Clock) -> None:
    journal = Watched()
    desk = Bench(clock, journal)
    ids = await desk.park(250)
    desk.limits = {"max_items": 100}
    job = await desk.start()
    item = desk.take()
    assert item is not None
    journal.meanwhile = lambda: jobs.do_slice(desk.parts, item)
    await jobs.do_slice(desk.parts, item)
    assert len(desk.queued(JOB_QUEUE)) == 1  # the other one's
    assert (await jobs.get_job(desk.jobs, job.id)).looked_at == 100
    await desk.work()
    ended = await jobs.get_job(desk.jobs, job.id)
    assert (ended.state, counts(ended)) == (JobState.DONE, (250, 250, 250, 0, 0))
    assert sorted(desk.queued()) == ids


@dataclass
class LosingAnswers(MemoryJobs):
    """Saves each job, and says that somebody else was quicker, as the SDK does when it repeats a
    request whose answer was lost."""

    async def save_job(self, job: Job) -> Job | None:
        await MemoryJobs.save_job(self, job)
        return None


async def test_a_worker_whose_answers_are_lost_goes_on(clock: Clock) -> None:
    desk = Bench(clock, jobs=LosingAnswers())
    ids = await desk.park(150)
    job = await desk.run()
    assert (job.state, counts(job)) == (JobState.DONE, (150, 150, 150, 0, 0))
    assert desk.queued() == ids


async def test_a_message_of_a_job_that_has_ended_or_is_deleted_does_nothing(desk: Bench) -> None:
    job = await desk.run()
    await desk.park()
    for item in (WorkItem("", job=job.id), LOST, WorkItem("")):
        await jobs.do_slice(desk.parts, item)
        await jobs.give_up(desk.parts, item)
    assert desk.queue.sent == []
    assert (await jobs.get_job(desk.jobs, job.id)).state is JobState.DONE


async def test_a_job_whose_work_fails_repeatedly_has_failed(desk: Bench) -> None:
    await desk.park()
    job = await desk.start()
    await jobs.give_up(desk.parts, desk.take() or LOST)
    failed = await jobs.get_job(desk.jobs, job.id)
    assert (failed.state, failed.ended) == (JobState.FAILED, desk.clock())
    assert "failed repeatedly" in (failed.reason or "")
    assert await desk.jobs.list_open_jobs() == []


# --- stopped -------------------------------------------------------------------------------------


async def test_a_job_that_is_stopped_before_its_slice_does_nothing_more(either: Bench) -> None:
    (id_,) = await either.park()
    job = await either.start()
    assert (await jobs.stop_job(either.jobs, job.id)).state is JobState.STOPPING
    assert (await jobs.stop_job(either.jobs, job.id)).state is JobState.STOPPING
    await either.work()
    stopped = await jobs.get_job(either.jobs, job.id)
    assert (stopped.state, stopped.ended) == (JobState.STOPPED, either.clock())
    assert await either.status(id_) is Status.PARKED
    with pytest.raises(Rejected) as caught:
        await jobs.stop_job(either.jobs, job.id)
    assert caught.value.status == 409


async def test_a_job_that_is_stopped_while_it_works_ends_after_a_part(clock: Clock) -> None:
    journal = Watched()
    desk = Bench(clock, journal)
    ids = await desk.park(250)
    job = await desk.start()
    journal.meanwhile = lambda: jobs.stop_job(desk.jobs, job.id)
    await desk.work()
    stopped = await jobs.get_job(desk.jobs, job.id)
    assert (stopped.state, counts(stopped)) == (JobState.STOPPED, (250, 100, 100, 0, 0))
    assert desk.queued() == ids[:100]
    assert await desk.jobs.list_open_jobs() == []


async def test_an_unknown_job_is_not_found(desk: Bench) -> None:
    for work in (jobs.get_job, jobs.stop_job):
        with pytest.raises(Rejected) as caught:
            await work(desk.jobs, "f" * 30)
        assert caught.value.status == 404


# --- lost ----------------------------------------------------------------------------------------


async def test_housekeeping_queues_a_job_whose_message_was_lost(route: Route) -> None:
    desk = Bench(route.clock, route.journal, queue=route.queue_sender)
    housekeeping = replace(keeping(route, route.queue_sender), jobs=desk.jobs)
    (id_,) = await desk.park()
    await desk.start()
    assert desk.take() is not None
    route.clock.later(5 * 60)
    await sweep(housekeeping)
    assert desk.queued(JOB_QUEUE) == []
    route.clock.later(5 * 60)
    await sweep(housekeeping)
    await desk.work()
    assert desk.queued() == [id_]
    route.clock.later(DAY)
    await sweep(housekeeping)
    assert desk.queued(JOB_QUEUE) == []


async def test_a_job_that_was_saved_and_not_queued_is_started_by_housekeeping(
    clock: Clock,
) -> None:
    desk = Bench(clock, queue=FailingQueue(left=1))
    (id_,) = await desk.park()
    with pytest.raises(Unavailable):
        await desk.start()
    clock.later(10 * 60)
    assert await jobs.queue_lost_jobs(desk.jobs, desk.queue, clock()) == 1
    await desk.work()
    assert desk.queued() == [id_]


async def test_a_job_that_was_never_added_is_forgotten(desk: Bench) -> None:
    job = await desk.start()
    del desk.jobs.jobs[job.id]
    assert await jobs.queue_lost_jobs(desk.jobs, desk.queue, desk.clock()) == 0
    assert await desk.jobs.list_open_jobs() == [job.id]
    desk.clock.later(10 * 60)
    assert await jobs.queue_lost_jobs(desk.jobs, desk.queue, desk.clock()) == 0
    assert await desk.jobs.list_open_jobs() == []


async def test_housekeeping_deletes_jobs_as_old_as_deliveries_that_it_forgets(
    route: Route,
) -> None:
    desk = Bench(route.clock, route.journal, queue=route.queue_sender)
    housekeeping = replace(keeping(route, route.queue_sender), jobs=desk.jobs)
    old = await desk.run()
    route.clock.later(housekeeping.ages.retention.total_seconds() + 2 * DAY)
    young = await desk.run()
    await sweep(housekeeping)
    assert list(desk.jobs.jobs) == [young.id]
    assert old.id != young.id


# --- counted -------------------------------------------------------------------------------------


async def count_for(desk: Bench, kind: JobKind, /, **texts: str) -> tuple[int, bool]:
    request = JobRequest(kind=kind, filter=build_job_filter(kind, texts))
    counted = await jobs.count_targets(desk.parts, request)
    return counted.number, counted.is_complete


async def test_what_matches_is_counted_before_a_job_is_started(either: Bench) -> None:
    await either.park(3)
    await either.park(1, sender="south", kind="message")
    await either.add(Status.PROCESSING)
    assert await count_for(either, JobKind.REPLAY) == (4, True)
    assert await count_for(either, JobKind.REPLAY, sender="south") == (1, True)
    assert await count_for(either, JobKind.REPLAY, kind="batch") == (3, True)
    assert await count_for(either, JobKind.REPLAY, attention="entries") == (0, True)
    assert await count_for(either, JobKind.CANCEL, attention="delivery") == (4, True)
    assert await count_for(either, JobKind.CANCEL, status="processing") == (1, True)


class Ticking(MemoryJournal):
    """Each page of concerns, and each delivery, takes time."""

    clock: Clock
    asked: int = 0

    async def list_concerns(self, *asked: Any) -> Any:
        self.asked += 1
        self.clock.later(1)
        return await super().list_concerns(*asked)

    async def get_delivery(self, id_: str) -> Delivery | None:
        self.asked += 1
        return await super().get_delivery(id_)


async def test_counting_ends_after_its_seconds_and_says_so(clock: Clock) -> None:
    journal = Ticking()
    journal.clock = clock
    desk = Bench(clock, journal)
    await desk.park(5000)
    journal.asked = 0
    assert await count_for(desk, JobKind.REPLAY) == (3000, False)
    assert journal.asked == 3  # a question for 1,000


# --- log -----------------------------------------------------------------------------------------


async def test_the_log_says_what_became_of_a_job(
    desk: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "integration")
    await desk.park(2)
    done = await desk.run()
    stopped = await desk.start()
    await jobs.stop_job(desk.jobs, stopped.id)
    await desk.work()
    lost = await desk.start()
    await jobs.give_up(desk.parts, desk.take() or LOST)
    told = [(record.message, vars(record)) for record in caplog.records]
    found = [(event, fields["job"]) for event, fields in told if event.startswith("job.")]
    assert found == [
        ("job.started", done.id),
        ("job.done", done.id),
        ("job.started", stopped.id),
        ("job.stopped", stopped.id),
        ("job.started", lost.id),
        ("job.failed", lost.id),
    ]
    ends: Mapping[str, Any] = next(fields for event, fields in told if event == "job.done")
    assert (ends["kind"], ends["looked_at"], ends["done"]) == (JobKind.REPLAY, 2, 2)


async def test_a_replay_of_all_that_waits_tries_each_at_once(either: Bench) -> None:
    parked = (await either.park())[0]
    waiting = await either.add(waiting=either.clock(), for_operator=True)
    concern = build_delivery_concern(
        ConcernKind.WAITING, waiting.id, "north", either.clock(), reason="answered 403"
    )
    await change_with_concern(
        either.journal,
        waiting,
        concern,
        only_if=frozenset({Status.ACCEPTED}),
        waiting=either.clock(),
        for_operator=True,
    )
    done = await either.run(attention="delivery")
    assert counts(done) == (2, 2, 2, 0, 0)
    once = {
        item.delivery: item.once for queue, item, _ in either.queue.sent if queue == RELAY_QUEUE
    }
    assert once == {parked: False, waiting.id: True}
    assert await either.status(waiting.id) is Status.ACCEPTED


async def test_all_that_waits_for_another_attempt_is_tried_at_once_by_what_matches(
    either: Bench,
) -> None:
    """Most of it waits for no operator, so no concern names it."""
    waits = {"waiting": either.clock(), "next_attempt": either.clock() + timedelta(minutes=9)}
    north = [(await either.add(**waits)).id for _ in range(2)]
    begun = await either.add(Status.PROCESSING, lanes=2, queued_lanes=b"\x03", **waits)
    await either.add(sender="west", **waits)
    await either.add()
    await either.park()
    assert await count_for(either, JobKind.REPLAY, waiting="true", sender="north") == (3, True)
    done = await either.run(waiting="true", sender="north")
    assert (done.done, done.failed) == (3, 0)
    items = [item for queue, item, _ in either.queue.sent if queue == RELAY_QUEUE]
    assert {item.delivery for item in items} == {*north, begun.id}
    assert all(item.once for item in items)
    for id_ in (*north, begun.id):
        delivery = await either.journal.get_delivery(id_)
        assert delivery.next_attempt == waits["next_attempt"], "its own turn stays"


@pytest.mark.parametrize(
    "texts",
    [
        {"waiting": "yes"},
        {"waiting": "true", "status": "parked"},
        {"waiting": "true", "attention": "rows"},
        {"waiting": "true", "concern": "parked"},
    ],
)
def test_what_waits_is_asked_for_without_what_does_not_wait(texts: dict[str, str]) -> None:
    with pytest.raises(Rejected, match="waiting"):
        build_job_filter(JobKind.REPLAY, texts)
