"""A reconcile that an operator has started finds and mends what the command does, slice by slice; it
may be killed, stopped, and kept waiting."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from integration.core.errors import Rejected
from integration.journal.jobs import Comparison, Job, JobState
from integration.mapping.model import LongId
from integration.mirror.healthcare_api_sink import HealthcareApiSink
from integration.operations import jobs
from integration.operations.bringing import add_bringing_job
from integration.operations.job_request import (
    build_reconcile_filter,
    describe_job,
    parse_job_request,
)
from integration.operations.reconcile_jobs import get_run_id
from integration.queues.names import JOB_QUEUE
from integration.queues.queue_sender import MemoryQueueSender
from integration.reconcile.differences import DifferenceKind
from tests.builders import MARKER, Body, patient
from tests.conftest import Route
from tests.reconcile.desk import PATIENT, Desk, FlakyJobs

ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"


@pytest.fixture
def desk(route: Route) -> Desk:
    return Desk(route)


def counts(job: Job) -> tuple[int | None, int, int, int, int]:
    return (job.found, job.looked_at, job.done, job.left_out, job.failed)


async def plant(desk: Desk) -> None:
    """One of each: as it should be, missing, behind, edited by somebody, and deleted."""
    await desk.mirrored(*(patient(id=name) for name in ("same", "behind", ANNA, "gone")))
    desk.route.fhir_double.add(patient(id="missing"))
    desk.route.fhir_double.add(patient(id="behind"))
    desk.route.fhir_double.delete("Patient/gone")
    await desk.route.dataverse_double.write(ANNA, lastname="Edited")
    assert await desk.find_differences() == {
        "Patient/missing": DifferenceKind.MISSING,
        "Patient/behind": DifferenceKind.BEHIND,
        f"Patient/{ANNA}": DifferenceKind.DIFFERENT,
        "Patient/gone": DifferenceKind.LEFT_OVER,
    }


# --- what it does ------------------------------------------------------------------------------


async def test_it_finds_and_mends_what_the_command_does(desk: Desk) -> None:
    await plant(desk)
    job = await desk.run()
    # Four resources, then the five rows that show one.
    assert (job.state, counts(job)) == (JobState.DONE, (9, 9, 4, 5, 0))
    assert await desk.find_differences() == {}
    again = await desk.run()
    assert (again.done, again.failed) == (0, 0)


async def test_what_it_mends_is_listed_as_one_delivery(desk: Desk) -> None:
    await plant(desk)
    job = await desk.run()
    delivery = describe_job(job)["delivery"]
    found = await desk.route.journal.get_delivery(delivery)
    assert found is not None
    assert found.kind == "reconcile"
    noted = {row.resource for row in await desk.route.journal.list_row_results(delivery)}
    assert noted == {"Patient/missing", "Patient/behind", f"Patient/{ANNA}", "Patient/gone"}


async def test_a_dry_run_counts_and_changes_nothing(desk: Desk) -> None:
    await plant(desk)
    before = len(desk.route.dataverse_double.writes)
    job = await desk.run(dry_run=True)
    assert (job.state, job.done, job.failed) == (JobState.DONE, 0, 4)
    assert job.reason == "Patient/gone is left over"
    assert len(desk.route.dataverse_double.writes) == before
    assert get_run_id(job) is None
    assert len(await desk.find_differences()) == 4


async def test_versions_alone_trust_the_version_that_a_row_shows(desk: Desk) -> None:
    await plant(desk)
    job = await desk.run("versions")
    assert (job.state, counts(job)) == (JobState.DONE, (4, 4, 2, 2, 0))
    assert set(await desk.find_differences()) == {f"Patient/{ANNA}", "Patient/gone"}


async def test_what_differs_is_told_by_names_and_never_by_values(desk: Desk) -> None:
    await desk.mirrored(patient(id=ANNA, name=[{"family": MARKER}]))
    await desk.route.dataverse_double.write(ANNA, lastname=f"{MARKER} edited")
    job = await desk.run(dry_run=True)
    assert job.reason == f"Patient/{ANNA} is different (lastname)"
    assert MARKER not in repr(job)


# --- slices ------------------------------------------------------------------------------------


@pytest.mark.parametrize("compare", [*Comparison])
async def test_slices_go_on_where_the_one_before_ended(desk: Desk, compare: str) -> None:
    """All resources have one time: that alone would be no place to go on from."""
    for number in range(7):
        desk.route.fhir_double.add(patient(id=f"p{number}"))
    desk.page_size, desk.limits = 2, {"max_items": 1}
    job = await desk.start(compare)
    assert await desk.work() >= 4
    done = await desk.get(job)
    assert (done.state, done.done, done.failed) == (JobState.DONE, 7, 0)
    assert await desk.find_differences() == {}


@pytest.mark.parametrize("compare", [*Comparison])
async def test_a_slice_that_ends_anywhere_is_done_again(desk: Desk, compare: str) -> None:
    for number in range(5):
        desk.route.fhir_double.add(patient(id=f"p{number}"))
        desk.route.clock.later(60)
    desk.page_size = 2
    whole = replace(desk, jobs=FlakyJobs(), queue=MemoryQueueSender())
    await whole.run(compare, dry_run=True)
    saves = whole.jobs.saves
    assert saves >= 5
    for spared in range(saves):
        desk.jobs = FlakyJobs()
        job = await desk.start(compare)
        desk.jobs.saves = 0
        original = desk.jobs.save_job

        async def save_or_end(it: Job, at: int = spared, save: Any = original) -> Job | None:
            if desk.jobs.saves == at:
                desk.jobs.failing = 1
            return await save(it)  # type: ignore[no-any-return]

        desk.jobs.save_job = save_or_end  # type: ignore[method-assign]
        await desk.work()
        done = await desk.get(job)
        assert done.state is JobState.DONE
        assert done.looked_at >= 5
        assert done.looked_at == done.done + done.left_out + done.failed
        assert await desk.find_differences() == {}


async def test_of_two_workers_one_gives_way(desk: Desk) -> None:
    for number in range(6):
        desk.route.fhir_double.add(patient(id=f"p{number}"))
    desk.page_size = 2
    job = await desk.start()
    (_, item, _) = desk.queue.sent.pop()
    first = desk.parts
    assert first.reconcile is not None
    seen = await desk.get(job)
    async for part in first.reconcile.work(seen):
        if part.looked_at:
            break
    await jobs.do_slice(desk.parts, item)  # another worker has done all of it meanwhile
    done = await desk.get(job)
    assert (done.state, done.looked_at) == (JobState.DONE, 12)
    await jobs.do_slice(desk.parts, item)
    assert await desk.get(job) == done


async def test_it_stops_after_the_page_that_it_is_at(desk: Desk) -> None:
    for number in range(6):
        desk.route.fhir_double.add(patient(id=f"p{number}"))
    desk.page_size, desk.limits = 2, {"max_items": 1}
    job = await desk.start()
    (_, item, _) = desk.queue.sent.pop()
    await jobs.do_slice(desk.parts, item)
    await jobs.stop_job(desk.jobs, job.id)
    await desk.work()
    stopped = await desk.get(job)
    assert (stopped.state, stopped.done, stopped.found) == (JobState.STOPPED, 2, 6)
    assert len(await desk.find_differences()) == 4


# --- services that are away --------------------------------------------------------------------


async def test_while_a_service_is_away_it_waits_and_then_goes_on(desk: Desk) -> None:
    desk.route.fhir_double.add(patient(id=ANNA))
    job = await desk.start()
    desk.route.fhir_double.down = 500
    (_, item, _) = desk.queue.sent.pop()
    await jobs.do_slice(desk.parts, item)
    waiting = await desk.get(job)
    assert waiting.state is JobState.RUNNING
    assert "FHIR server" in (waiting.waiting or "")
    (queue, again, delay) = desk.queue.sent[0]
    assert (queue, again.job, again.attempt, delay) == (JOB_QUEUE, job.id, 1, 2.0)
    desk.route.fhir_double.down = None
    await desk.work()
    done = await desk.get(job)
    assert (done.state, done.waiting, done.done, done.found) == (JobState.DONE, None, 1, 2)


async def test_a_service_that_is_away_for_a_day_ends_it(desk: Desk) -> None:
    desk.route.fhir_double.add(patient(id=ANNA))
    job = await desk.start()
    desk.route.fhir_double.down = 500
    for _ in range(3):
        (_, item, delay) = desk.queue.sent.pop()
        assert delay <= 60
        await jobs.do_slice(desk.parts, item)
        desk.route.clock.later(13 * 3600)
    ended = await desk.get(job)
    assert ended.state is JobState.FAILED
    assert "FHIR server" in (ended.reason or "")
    assert desk.queue.sent == []


async def test_a_row_that_cannot_be_written_now_makes_it_wait_and_loses_nothing(desk: Desk) -> None:
    desk.route.fhir_double.add(patient(id=ANNA))
    desk.route.dataverse_double.will_fail(kind="throttle", retryAfter=300, method="PATCH")
    job = await desk.start()
    (_, item, _) = desk.queue.sent.pop()
    await jobs.do_slice(desk.parts, item)
    assert [delay for _, _, delay in desk.queue.sent] == [300]
    await desk.work()
    done = await desk.get(job)
    assert (done.state, done.done) == (JobState.DONE, 1)


async def test_a_next_page_that_the_server_has_forgotten_between_slices_costs_nothing(
    desk: Desk,
) -> None:
    for number in range(5):
        desk.route.fhir_double.add(patient(id=f"p{number}"))
        desk.route.clock.later(60)
    desk.page_size, desk.limits = 2, {"max_items": 1}
    job = await desk.start("versions")
    (_, item, _) = desk.queue.sent.pop()
    await jobs.do_slice(desk.parts, item)
    desk.route.fhir_double.will_answer(410)
    await desk.work()
    done = await desk.get(job)
    assert (done.state, done.done) == (JobState.DONE, 5)
    assert await desk.find_differences() == {}


# --- what it refuses ---------------------------------------------------------------------------


async def test_a_type_whose_rows_are_not_mirrored_is_refused(desk: Desk) -> None:
    desk.queues = {}
    with pytest.raises(Rejected, match="not mirrored") as refused:
        await desk.start()
    assert refused.value.status == 409
    assert (desk.jobs.jobs, desk.queue.sent) == ({}, [])


async def test_a_type_that_is_switched_to_virtual_ends_it(desk: Desk) -> None:
    job = await desk.start()
    desk.queues = {}
    await desk.work()
    ended = await desk.get(job)
    assert ended.state is JobState.FAILED
    assert "not mirrored" in (ended.reason or "")


async def test_content_that_cannot_be_compared_is_refused(desk: Desk) -> None:
    route = desk.route
    sink = HealthcareApiSink(route.web_api, route.order)
    digests = replace(PATIENT, long_id=LongId.DIGEST)
    for mirror in (
        replace(route.mirror, sink=sink),
        replace(route.mirror, maps={"Patient": digests}),
    ):
        desk.mirror = mirror
        with pytest.raises(Rejected, match="compare their versions"):
            await desk.start()
    assert desk.jobs.jobs == {}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "needs the type"),
        ({"type": "Patient", "compare": "names"}, "compare"),
        ({"type": "Patient", "dry_run": "yes"}, "dry_run"),
        ({"type": "Patient", "sender": "north"}, "not known"),
    ],
)
def test_what_is_asked_for_wrongly_is_refused(body: Body, told: str) -> None:
    with pytest.raises(Rejected, match=told):
        parse_job_request({"kind": "reconcile", "filter": body})


def test_a_request_says_what_is_compared() -> None:
    asked = {"type": "Patient", "compare": "versions", "dry_run": True}
    request = parse_job_request({"kind": "reconcile", "filter": asked})
    assert request.filter == build_reconcile_filter("Patient", "versions", dry_run=True)
    plain = parse_job_request({"kind": "reconcile", "filter": {"type": "Patient"}})
    assert plain.filter == build_reconcile_filter("Patient", "content", dry_run=False)


# --- bringing the rows of a table ------------------------------------------------------------------


async def bring(desk: Desk) -> Job:
    """Start the job that brings rows, work on it to its end, and return it."""
    id_ = await add_bringing_job(desk.parts, "Patient", "an admin")
    assert desk.queue.sent == [], "not before the route says so"
    await jobs.begin_job(desk.parts, id_, 45.0)
    (message,) = desk.queue.sent
    assert message[2] == 45.0
    await desk.work()
    return await jobs.get_job(desk.jobs, id_)


async def test_a_table_is_answered_from_its_rows_once_they_are_brought(desk: Desk) -> None:
    await plant(desk)
    job = await bring(desk)
    assert (job.state, job.reason) == (JobState.DONE, None)
    assert await desk.find_differences() == {}
    assert desk.ended == [("Patient", job.id, True)]


async def test_where_rows_are_missing_the_table_is_answered_from_fhir_still(desk: Desk) -> None:
    await plant(desk)
    desk.route.dataverse_double.will_fail(kind="status", status=400, method="PATCH", next=99)
    job = await bring(desk)
    assert job.state is JobState.DONE
    assert job.failed > 0
    assert "answered from FHIR still" in (job.reason or "")
    assert desk.ended == [("Patient", job.id, False)]


async def test_a_row_of_a_deleted_resource_is_found_where_versions_alone_are_compared(
    desk: Desk,
) -> None:
    """With the healthcare APIs, for example: a table that was mirrored before may have some."""
    await plant(desk)
    mirror = desk.route.mirror
    sink = HealthcareApiSink(desk.route.web_api, desk.route.order)
    desk.mirror = replace(mirror, sink=sink)
    job = await bring(desk)
    chosen = job.filter.reconcile
    assert chosen is not None
    assert chosen.compare == "versions"
    rows = await desk.route.dataverse_double.rows("contacts")
    shown = {row["msemr_azurefhirid"]: row["statecode"] for row in rows}
    assert shown["gone"] == 1


async def test_rows_that_fhir_knows_nothing_of_keep_no_table_back(desk: Desk) -> None:
    """Those of another FHIR server, for example: the table has shown them before, too."""
    await desk.mirrored(patient(id=ANNA))
    elsewhere = {"msemr_azurefhirid": "elsewhere", "lastname": MARKER}
    await desk.route.dataverse_double.change("POST", "contacts", elsewhere)
    assert (await desk.find_differences())["Patient/elsewhere"] == DifferenceKind.UNKNOWN
    job = await bring(desk)
    assert (job.failed, job.reason) == (1, "Patient/elsewhere is unknown")
    assert desk.ended == [("Patient", job.id, True)]


async def test_a_route_that_was_changed_meanwhile_stays_as_it_is(desk: Desk) -> None:
    desk.is_route_changed = True
    await plant(desk)
    before = len(desk.route.dataverse_double.writes)
    job = await bring(desk)
    assert job.state is JobState.DONE
    assert len(desk.route.dataverse_double.writes) == before, "nobody wants its rows any more"
    assert "the route was changed meanwhile" in (job.reason or "")


async def test_what_cannot_be_brought_is_refused_before_a_job_begins(desk: Desk) -> None:
    with pytest.raises(Rejected) as caught:
        await add_bringing_job(desk.parts, "Observation", "an admin")
    assert caught.value.status == 409
    assert desk.queue.sent == []
