"""Jobs: long work is offered where it can be done, counted, and started and stopped by operators."""

from __future__ import annotations

from dataclasses import replace

import pytest

from integration.core.model import Status, WorkItem
from integration.journal.concerns import park_open
from integration.journal.jobs import JobState
from integration.operations.jobs import do_slice
from integration.queues.names import JOB_QUEUE
from tests.builders import patient
from tests.conftest import Route
from tests.pages.asking import NAME, TOKEN, Visitor, build_form, visit

PARKED = {"do": "replay", "status": "parked"}


async def park(route: Route, sender: str = "north", number: int = 1) -> list[str]:
    """Have deliveries of a sender be parked. Return their ids."""
    ids = [await route.deliver(patient(id=f"{sender}-{n}"), sender=sender) for n in range(number)]
    for id_ in ids:
        assert await park_open(route.journal, await route.known(id_), "503", route.clock())
    return ids


async def begin(operator: Visitor, **fields: str) -> str:
    """Start a job. Return its page."""
    shown = await operator.post("jobs", **fields)
    assert shown.status == 303
    return shown.location


async def test_where_there_is_no_job_it_says_where_to_start_one(route: Route) -> None:
    page = await visit(route, "reader").get("jobs")
    assert page.status == 200
    assert "Nobody has started a job" in page.text
    assert "/api/pages/deliveries?status=parked" in page.links


async def test_what_a_job_would_do_is_counted_before_it_is_started(route: Route) -> None:
    await park(route, number=2)
    await park(route, "west")
    operator = visit(route, "operator")
    page = await operator.get("jobs/new", **PARKED, sender="north")
    assert page.status == 200
    assert "Replay 2 deliveries?" in page.text
    assert "State parked" in page.text
    assert "Sender north" in page.text
    for name, value in (("do", "replay"), ("status", "parked"), ("sender", "north")):
        assert f'<input type="hidden" name="{name}" value="{value}">' in page.html
    assert "/api/pages/jobs" in page.links
    assert "/api/pages/deliveries?status=parked&sender=north" in page.links
    assert (await operator.parts.jobs.jobs.list_jobs(10, None)).jobs == ()


async def test_a_cancel_says_that_it_cannot_be_undone(route: Route) -> None:
    await route.deliver(patient())
    page = await visit(route, "operator").get("jobs/new", do="cancel", status="accepted")
    assert "Cancel 1 delivery?" in page.text
    assert "This cannot be undone" in page.text


async def test_where_nothing_matches_nothing_can_be_started(route: Route) -> None:
    page = await visit(route, "operator").get("jobs/new", **PARKED)
    assert "Nothing matches" in page.text
    assert "<form" not in page.html


async def test_a_job_is_started_by_a_name_and_shows_its_progress(route: Route) -> None:
    north = await park(route, number=2)
    west = await park(route, "west")
    operator = visit(route, "operator")
    path = await begin(operator, **PARKED, sender="north")
    id_ = path.removeprefix("jobs/")
    work = WorkItem("", job=id_)
    assert (JOB_QUEUE, work, 0) in route.queue_sender.sent
    page = await operator.get(path)
    assert f"by {NAME}" in page.text
    assert 'hx-get="/api/pages/' in page.html
    assert f"/api/pages/{path}/stop" in page.links
    job = await operator.parts.jobs.jobs.get_job(id_)
    while job is not None and job.state is JobState.RUNNING:
        await do_slice(operator.parts.jobs, work)
        job = await operator.parts.jobs.jobs.get_job(id_)
    page = await operator.get(path)
    assert "Replay done" in page.text
    assert "2 of 2" in page.text
    assert "hx-get" not in page.html
    assert f"/api/pages/{path}/stop" not in page.links
    states = [(await route.known(each)).status for each in (*north, *west)]
    assert [state is Status.PARKED for state in states] == [False, False, True]
    (listed,) = [row for row in (await operator.get("jobs")).rows if row[1:2] == ["Replay"]]
    assert listed[2:] == ["done", "2", "2", "0", "0", NAME]


async def test_a_job_is_stopped_once(route: Route) -> None:
    await park(route)
    operator = visit(route, "operator")
    path = await begin(operator, **PARKED)
    stopped = await operator.post(f"{path}/stop")
    assert (stopped.status, stopped.location) == (303, path)
    await do_slice(operator.parts.jobs, WorkItem("", job=path.removeprefix("jobs/")))
    assert "Replay stopped" in (await operator.get(path)).text
    again = await operator.post(f"{path}/stop")
    assert again.status == 409
    assert "the job is stopped already" in again.text


async def test_only_an_operator_starts_and_stops_jobs(route: Route) -> None:
    await park(route)
    operator = visit(route, "operator")
    path = await begin(operator, **PARKED)
    reader = operator.with_roles("reader", "phi")
    assert (await reader.get("jobs/new", **PARKED)).status == 403
    assert (await reader.post("jobs", **PARKED)).status == 403
    assert (await reader.post(f"{path}/stop")).status == 403
    page = await reader.get(path)
    assert page.status == 200
    assert "Stop it" not in page.text
    assert len((await operator.parts.jobs.jobs.list_jobs(10, None)).jobs) == 1
    assert (await reader.with_roles("phi").get("jobs")).status == 403


async def test_a_form_of_somebody_elses_page_starts_nothing(route: Route) -> None:
    operator = visit(route, "operator")
    assert (await operator.post("jobs", **PARKED, token="other" * 6)).status == 403
    foreign = build_form(
        "jobs",
        f"token={TOKEN}&do=replay&status=parked",
        roles=("operator",),
        headers={"origin": "https://evil.example"},
    )
    assert (await operator.ask(foreign)).status == 403
    assert route.queue_sender.sent == []


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"status": "parked"},
        {"do": "delete", "status": "parked"},
        {"do": "replay", "status": "done"},
        {"do": "replay", "status": "parked", "sort": "oldest"},
        {"do": "cancel"},
        {"do": "cancel", "status": "accepted", "since": "yesterday"},
        {"do": "replay", "concern": "parked", "status": "parked"},
        {"do": "replay", "status": "parked", "reason": "x" * 201},
    ],
)
async def test_what_is_no_job_is_refused_as_a_question_and_as_a_form(
    route: Route, fields: dict[str, str]
) -> None:
    operator = visit(route, "operator")
    assert (await operator.get("jobs/new", **fields)).status == 400
    assert (await operator.post("jobs", **fields)).status == 400
    assert route.queue_sender.sent == []


async def test_an_unknown_job_is_not_found(route: Route) -> None:
    operator = visit(route, "operator")
    assert (await operator.get("jobs/nothing")).status == 404
    assert (await operator.post("jobs/nothing/stop")).status == 404


async def test_a_long_list_has_pages(route: Route) -> None:
    operator = visit(route, "operator")
    for _ in range(51):
        route.clock.later(1)
        await begin(operator, **PARKED)
    first = await operator.get("jobs")
    (older,) = [link for link in first.links if "after=" in link]
    last = await operator.get(older)
    assert len([row for row in first.rows if row[1:2] == ["Replay"]]) == 50
    assert len([row for row in last.rows if row[1:2] == ["Replay"]]) == 1
    assert "First page" in last.text
    assert (await operator.get("jobs", after="nothing")).status == 400


async def test_a_job_that_failed_says_why(route: Route) -> None:
    operator = visit(route, "operator")
    path = await begin(operator, **PARKED)
    jobs = operator.parts.jobs.jobs
    job = await jobs.get_job(path.removeprefix("jobs/"))
    assert job is not None
    await jobs.save_job(
        replace(job, state=JobState.FAILED, failed=1, reason="503 <b>", ended=route.clock())
    )
    page = await operator.get(path)
    assert "Replay failed" in page.text
    assert "It has ended early: 503 <b>" in page.text
    assert "Failed 1" in page.text
    assert "<b>" not in page.html
