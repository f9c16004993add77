"""What is promised of the store of jobs, in memory and in a table alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from azure.data.tables.aio import TableServiceClient

from integration.core.model import Status
from integration.journal.azure_jobs import AzureJobs
from integration.journal.concern import ConcernGroup, ConcernKind
from integration.journal.delivery_filter import DeliveryFilter
from integration.journal.jobs import (
    MAX_REASON_LENGTH,
    Job,
    JobFilter,
    JobKind,
    Jobs,
    JobState,
    MemoryJobs,
)
from integration.journal.table_keys import build_audit_id
from local.services import Running
from tests.journal.recording import RecordingTransport, TableQueries

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture(params=["memory", pytest.param("table", marks=pytest.mark.azurite)])
async def jobs(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[Jobs]:
    if request.param == "memory":
        yield MemoryJobs()
        return
    azurite: Running = request.getfixturevalue("azurite")
    async with TableServiceClient.from_connection_string(azurite.storage) as tables:
        yield AzureJobs(await tables.create_table(namespace))


def make(days: float = 0, suffix: str = "ab", **fields: object) -> Job:
    """Return a job that was started so many days before noon."""
    started = NOON - timedelta(days=days)
    criteria = DeliveryFilter(status=Status.PARKED, sender="north", since=NOON)
    values = {
        "kind": JobKind.REPLAY,
        "filter": JobFilter(criteria=criteria),
        "started_by": "an operator",
    }
    return Job(id=build_audit_id(started, suffix), started=started, **{**values, **fields})


async def test_a_job_is_read_as_it_was_added(jobs: Jobs) -> None:
    rows = JobFilter(criteria=DeliveryFilter(reason="answered 503"), group=ConcernGroup.ROWS)
    full = make(
        filter=rows,
        found=10_000,
        looked_at=9,
        done=4,
        left_out=3,
        failed=2,
        reason="its bytes are deleted",
        progressed=NOON + timedelta(microseconds=1),
        ended=NOON,
        cursor="c" * 30_000,
        worker="w",
    )
    one_kind = make(
        suffix="ef", filter=JobFilter(group=ConcernGroup.ROWS, concern=ConcernKind.ROW_PARKED)
    )
    cancel = make(suffix="cd", kind=JobKind.CANCEL)
    for job in (make(), cancel, one_kind, replace(full, id=make(1).id)):
        await jobs.add_job(job)
        assert await jobs.get_job(job.id) == job


@pytest.mark.parametrize("id_", ["", "..", "no-id", make(suffix="ff").id, "f" * 30])
async def test_an_unknown_job_is_none(jobs: Jobs, id_: str) -> None:
    assert await jobs.get_job(id_) is None


async def test_a_job_that_is_added_again_stays_as_it_is(jobs: Jobs) -> None:
    added = await jobs.add_job(make())
    saved = await jobs.save_job(replace(added, done=5))
    again = await jobs.add_job(make())
    assert again == saved
    assert await jobs.save_job(replace(again, done=6)) is not None


async def test_of_two_that_have_read_a_job_one_saves_it(jobs: Jobs) -> None:
    one = await jobs.add_job(make())
    other = await jobs.get_job(one.id)
    assert other is not None
    saved = await jobs.save_job(replace(one, done=1, worker="one"))
    assert saved is not None
    assert await jobs.save_job(replace(other, done=2, worker="other")) is None
    assert await jobs.get_job(one.id) == replace(one, done=1, worker="one")
    assert await jobs.save_job(replace(saved, done=3)) is not None
    assert await jobs.save_job(replace(make(suffix="99"), etag=saved.etag)) is None


async def test_a_text_takes_the_room_of_a_row_and_no_more(jobs: Jobs) -> None:
    added = await jobs.add_job(make(started_by="n" * 9000, reason="r" * 9000))
    read = await jobs.get_job(added.id)
    assert read == added
    assert read is not None
    assert len(read.reason or "") == MAX_REASON_LENGTH
    assert len(read.started_by) < 9000


async def test_jobs_are_listed_by_pages_the_newest_first(jobs: Jobs) -> None:
    made = [make(days, f"{days:02d}") for days in range(5)]
    for job in made[::-1]:
        await jobs.add_job(job)
    found, after = [], None
    for _ in range(9):
        page = await jobs.list_jobs(2, after)
        found += page.jobs
        after = page.after
        if after is None:
            break
    assert [job.id for job in found] == [job.id for job in made]
    behind = await jobs.list_jobs(10, made[2].id)
    assert [job.id for job in behind.jobs] == [made[3].id, made[4].id]


@pytest.mark.parametrize("after", ["nonsense", "e30=", "zz"])
async def test_a_position_that_no_page_has_returned_is_refused(jobs: Jobs, after: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- texts differ
        await jobs.list_jobs(10, after)


async def test_jobs_are_open_until_they_end(jobs: Jobs) -> None:
    assert await jobs.list_open_jobs() == []
    ending = await jobs.add_job(make())
    stays = await jobs.add_job(make(1))
    stopping = await jobs.save_job(replace(stays, state=JobState.STOPPING))
    assert sorted(await jobs.list_open_jobs()) == sorted([ending.id, stays.id])
    await jobs.save_job(replace(ending, state=JobState.DONE))
    assert await jobs.list_open_jobs() == [stays.id]
    await jobs.close_job(stays.id)
    await jobs.close_job(stays.id)
    assert await jobs.list_open_jobs() == []
    assert await jobs.get_job(stays.id) == stopping


async def test_old_jobs_are_deleted_and_the_open_ones_stay_listed(jobs: Jobs) -> None:
    for days in (0, 1, 2, 3):
        await jobs.add_job(make(days))
    assert await jobs.delete_jobs_before(NOON - timedelta(days=1), 1) == 1
    assert await jobs.delete_jobs_before(NOON - timedelta(days=1), 10) == 1
    assert await jobs.delete_jobs_before(NOON - timedelta(days=1), 10) == 0
    left = (await jobs.list_jobs(10, None)).jobs
    assert [job.id for job in left] == [make(0).id, make(1).id]
    assert len(await jobs.list_open_jobs()) == 4


@pytest.mark.azurite
async def test_no_question_about_jobs_scans_a_partition(azurite: Running, namespace: str) -> None:
    """The partition of the open ones is small."""
    queries = TableQueries(frozenset())
    transport = RecordingTransport(queries)
    async with (
        TableServiceClient.from_connection_string(azurite.storage) as own,
        TableServiceClient.from_connection_string(azurite.storage, transport=transport) as tables,
    ):
        await own.create_table(namespace)
        jobs = AzureJobs(tables.get_table_client(namespace))
        added = await jobs.add_job(make())
        await jobs.add_job(make(1))
        await jobs.get_job(added.id)
        await jobs.save_job(replace(added, done=1))
        page = await jobs.list_jobs(1, None)
        assert len((await jobs.list_jobs(1, page.after)).jobs) == 1
        await jobs.list_jobs(1, added.id)
        await jobs.delete_jobs_before(NOON, 10)
    assert queries.queries
