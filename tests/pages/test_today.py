"""Today: whether anything needs somebody, before anything else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, timedelta
from typing import Any

import pytest

from integration.core.errors import Unavailable
from integration.core.flow import FlowCounts, count_refusal
from integration.core.model import Activity, Category, Status
from integration.journal.attention import ConcernFilter, ConcernPage
from integration.journal.concern import Concern, ConcernKind, build_concern_id
from integration.journal.flow_log import MemoryFlowLog
from integration.journal.store import MemoryJournal, Page
from integration.operations.health import (
    OK,
    Answering,
    CheckedStates,
    UpstreamCheck,
    UpstreamState,
)
from integration.operations.status import report_status
from integration.pages.today import MAX_CONCERNS, group_concerns, list_problems
from integration.queues.queue_reader import MemoryQueueReader, QueueState
from tests.builders import patient
from tests.conftest import Route
from tests.doubles import Clock
from tests.operations.status_parts import Broken
from tests.pages.asking import Visitor, count_flow, make_parts, visit

NOW = Clock()()  # when every route begins


def build_concern(
    kind: ConcernKind, number: int = 0, reason: str = "403 from the FHIR server"
) -> Concern:
    since = NOW - timedelta(minutes=number)
    return Concern(
        id=build_concern_id(since, f"{kind} {number}"),
        since=since,
        kind=kind,
        delivery=f"delivery-{number}",
        sender="north",
        reason=reason,
    )


class SilentJournal(MemoryJournal):
    """Never answers."""

    async def list_deliveries(self, *_: Any) -> Page:
        await asyncio.Event().wait()
        raise AssertionError


async def fill(concerns: Sequence[Concern]) -> MemoryJournal:
    journal = MemoryJournal()
    for concern in concerns:
        await journal.put_concern(concern)
    return journal


async def test_where_all_is_well_it_says_so(route: Route) -> None:
    page = await visit(route, "reader").get("")
    assert page.status == 200
    assert "Nothing needs you" in page.text
    assert "All empty" in page.text


async def test_nothing_is_said_to_be_well_while_a_service_is_silent(route: Route) -> None:
    check = UpstreamCheck(SilentJournal(), route.fhir, route.dataverse, route.clock)
    page = await visit(route, "reader", status={"upstream_check": check}, patience=0.01).get("")
    assert "Nothing needs you, as far as is known" in page.text
    assert "Everything that came" not in page.text
    assert "no answer yet Storage" in page.text


async def test_a_service_that_works_and_throttles_is_said_to(route: Route) -> None:
    check = UpstreamCheck(route.journal, route.fhir, route.dataverse, route.clock)
    visitor = visit(route, "reader", status={"upstream_check": check})
    activities = route.fhir.upstream.activities
    activities.record_call("Dataverse", "POST", 429, 0.1)
    await activities.flush()
    route.clock.later(300)
    told = "1 call failed or had to be repeated within the hour, the last 5 min ago: 429"
    assert f"works Dataverse {told}" in (await visitor.get("")).text
    route.clock.later(300)
    assert told.partition(" the last")[0] not in (await visitor.get("")).text


async def test_what_mirroring_came_to_is_counted_as_no_call(route: Route) -> None:
    check = UpstreamCheck(route.journal, route.fhir, route.dataverse, route.clock)
    visitor = visit(route, "reader", status={"upstream_check": check})
    failed = {"category": Category.ERROR, "upstream": "Dataverse"}
    await route.activity.add(
        [
            Activity(time=route.clock(), action="update", status="500", **failed),
            Activity(time=route.clock(), action="mirror", status="requeued", **failed),
        ]
    )
    assert "1 call failed or had to be repeated within the hour" in (await visitor.get("")).text


async def test_deliveries_that_are_tried_again_are_counted_with_the_next_attempt(
    route: Route,
) -> None:
    id_ = await route.deliver(patient(id="p1"), sender="north")
    due = route.clock() + timedelta(minutes=3)
    await route.journal.update_delivery(id_, waiting=route.clock(), next_attempt=due)
    text = (await visit(route, "reader").get("")).text
    assert "Nothing needs you" in text
    assert (
        f"1 delivery waits for another attempt, the next {due.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        in text
    )


@pytest.mark.parametrize("kind", [ConcernKind.PARKED, ConcernKind.ROW_PARKED])
async def test_what_was_given_up_may_be_replayed_once_all_services_work(
    route: Route, kind: ConcernKind
) -> None:
    check = UpstreamCheck(route.journal, route.fhir, route.dataverse, route.clock)
    for found, is_offered in ((kind, True), (ConcernKind.ENTRIES, False)):
        journal = await fill([build_concern(found)])
        visitor = visit(route, "reader", journal=journal, status={"upstream_check": check})
        text = (await visitor.get("")).text
        assert ("All services work now: replay it" in text) is is_offered


@pytest.mark.parametrize("kind", ConcernKind)
async def test_each_kind_of_concern_is_counted_and_leads_to_its_list(
    route: Route, kind: ConcernKind
) -> None:
    journal = await fill([build_concern(kind, number) for number in (1, 2)])
    page = await visit(route, "reader", journal=journal).get("")
    text = page.text
    assert "1 thing needs you" in text
    assert "403 from the FHIR server" in text
    assert "2 min ago" in text
    assert f"/api/pages/attention?kind={kind}" in page.links


def test_what_cannot_go_on_by_itself_comes_first() -> None:
    kinds = [*ConcernKind]
    needs = group_concerns([build_concern(kind) for kind in reversed(kinds)])
    assert {need.kind for need in needs} == {*kinds}
    assert needs[0].kind is ConcernKind.PARKED


def test_of_many_reasons_the_most_frequent_one_is_shown() -> None:
    reasons = ["a", "b", "b", "c"]
    (need,) = group_concerns(
        [build_concern(ConcernKind.PARKED, n, reason) for n, reason in enumerate(reasons)]
    )
    assert (need.number, need.reason, need.other_reasons) == (4, "b", 2)
    assert need.oldest == NOW - timedelta(minutes=3)


async def test_of_more_than_are_counted_it_says_more(route: Route) -> None:
    concerns = [build_concern(ConcernKind.ENTRIES, number) for number in range(MAX_CONCERNS + 1)]
    text = (await visit(route, "reader", journal=await fill(concerns)).get("")).text
    assert "More than 1 000 deliveries" in text
    assert "Only the newest 1 000 were counted" in text


@pytest.mark.parametrize(
    ("answering", "remedy"),
    [
        (Answering.SLOWLY, "takes long"),
        (Answering.REFUSES, "It is there, and refuses"),
        (Answering.SILENT, "See whether it runs"),
    ],
)
async def test_a_service_that_does_not_work_needs_somebody_by_how_it_answers(
    route: Route, answering: Answering, remedy: str
) -> None:
    states = CheckedStates(
        {"fhir": UpstreamState(answering, "answered 403"), "storage": OK}, NOW, 60
    )
    report = await report_status(make_parts(route).status_check)
    (problem,) = list_problems(report, states, ConcernPage((), None))
    assert (problem.place, problem.path) == ("FHIR server", "activity")
    assert problem.text.startswith(f"{answering}: answered 403. ")
    assert remedy in problem.text


async def wait_for(route: Route, reason: str) -> MemoryJournal:
    """A delivery that waits for this reason, by itself, and one that waits for an operator."""
    id_ = await route.deliver(patient(id="p1"), sender="north")
    due = route.clock() + timedelta(minutes=9)
    await route.journal.update_delivery(
        id_, waiting=route.clock(), next_attempt=due, attempts=3, reason=reason
    )
    await route.journal.put_concern(
        replace(build_concern(ConcernKind.WAITING, reason=reason), next_attempt=due)
    )
    return route.journal


def look(route: Route, *roles: str) -> Visitor:
    check = UpstreamCheck(route.journal, route.fhir, route.dataverse, route.clock)
    return visit(route, *roles, status={"upstream_check": check})


@pytest.mark.parametrize("page", ["", "attention"])
async def test_when_the_cause_of_waiting_is_gone_it_says_so_and_offers_to_start(
    route: Route, page: str
) -> None:
    await wait_for(route, "FHIR server: answered 503")
    shown = await look(route, "operator").get(page)
    assert "The cause seems to be gone: FHIR server answers again" in shown.text
    assert any("jobs/new?do=replay&concern=waiting" in link for link in shown.links)
    all_that_waits = "/api/pages/jobs/new?do=replay&waiting=true"
    assert (all_that_waits in shown.links) is (page == "")
    reader = await look(route, "reader").get(page)
    assert "answers again" in reader.text
    assert not any("jobs/new" in link for link in reader.links)


@pytest.mark.parametrize("page", ["", "attention"])
@pytest.mark.parametrize(
    ("reason", "down"),
    [("FHIR server: answered 503", 503), ("contact has no column telephone22", None)],
)
async def test_a_cause_that_is_not_known_to_be_gone_is_not_said_to_be(
    route: Route, page: str, reason: str, down: int | None
) -> None:
    await wait_for(route, reason)
    route.fhir_double.down = down
    shown = await look(route, "operator").get(page)
    assert "answers again" not in shown.text
    assert "answers now" not in shown.text


async def test_that_a_service_answers_does_not_prove_that_it_lets_the_app_in(
    route: Route,
) -> None:
    await wait_for(route, "FHIR server answered 403: it has no role")
    text = (await look(route, "operator").get("")).text
    assert "FHIR server answers now. Whether it lets this app in, the next attempt shows" in text
    assert "The cause seems to be gone" not in text


async def test_a_message_that_nobody_can_read_needs_somebody(route: Route) -> None:
    status = {
        "queues": ("fhir-events",),
        "queue_reader": MemoryQueueReader({"fhir-events-poison": QueueState(2, None)}),
    }
    text = (await visit(route, "reader", status=status).get("")).text
    assert "1 thing needs you" in text
    assert "2 in fhir-events-poison" in text


async def test_a_sender_that_is_not_let_in_needs_somebody(route: Route) -> None:
    flow = count_flow(route)
    for _ in range(25):
        flow.count("ward", count_refusal(401))
    text = (await visit(route, "reader").get("")).text
    assert "1 thing needs you" in text
    assert "ward: 25 answers 401 in the last 24 hours" in text


async def test_a_reason_is_text_and_no_markup(route: Route) -> None:
    concern = build_concern(ConcernKind.PARKED, reason="<img src=x onerror=alert(1)>")
    page = await visit(route, "reader", journal=await fill([concern])).get("")
    assert "<img src=x" not in page.html
    assert "<img src=x onerror=alert(1)>" in page.text


async def test_it_refreshes_until_it_is_told_not_to(route: Route) -> None:
    visitor = visit(route, "reader")
    on, off = await visitor.get(""), await visitor.get("", refresh="off")
    assert 'hx-get="/api/pages/"' in on.html
    assert "hx-get" not in off.html
    assert "Refresh by itself" in off.text


async def test_concerns_that_cannot_be_read_are_said_to_be_beside_what_is_known(
    route: Route,
) -> None:
    class Gone(MemoryJournal):
        async def list_concerns(
            self, filter_: ConcernFilter, limit: int, after: str | None
        ) -> ConcernPage:
            raise Unavailable("storage", "it does not answer")

    status = {"sender_problems": {"lab": "LAB_KEY is not set"}}
    page = await visit(route, "reader", journal=Gone(), status=status).get("")
    assert page.status == 200
    assert "2 things need you" in page.text
    told = "What needs attention cannot be read: storage: it does not answer"
    assert told in page.text
    assert "lab: LAB_KEY is not set" in page.text
    settings = await visit(route, "reader", journal=Gone()).get("settings")
    assert settings.status == 200
    assert settings.row("refused")[1] == "cannot be read"


async def test_a_poison_queue_that_cannot_be_read_is_named_and_senders_are_shown(
    route: Route,
) -> None:
    class Half(MemoryQueueReader):
        async def measure(self, queue: str) -> QueueState:
            if queue == "relay-poison":
                raise Unavailable("storage", "it does not answer")
            return await super().measure(queue)

    status = {"queue_reader": Half(), "sender_problems": {"lab": "LAB_KEY is not set"}}
    page = await visit(route, "reader", status=status).get("")
    assert "2 things need you" in page.text
    assert "The queue relay-poison cannot be read: storage: it does not answer" in page.text
    assert "A sender cannot send lab: LAB_KEY is not set" in page.text
    assert "/api/pages/senders/lab" in page.links
    assert "All empty" not in page.text


async def test_what_is_parked_is_not_said_to_take_long(route: Route) -> None:
    id_ = await route.deliver(patient())
    route.clock.later(7200)
    assert "A delivery takes long" in (await visit(route, "reader").get("")).text
    await route.journal.update_delivery(id_, status=Status.PARKED)
    page = await visit(route, "reader").get("")
    assert "A delivery takes long" not in page.text
    assert "The oldest" not in page.text


async def test_it_reads_the_list_of_concerns_once_however_long_it_is(route: Route) -> None:
    calls: list[Any] = []

    class Counting(MemoryJournal):
        async def list_concerns(
            self, filter_: ConcernFilter, limit: int, after: str | None
        ) -> ConcernPage:
            calls.append(limit)
            return await MemoryJournal.list_concerns(self, filter_, limit, after)

    await visit(route, "reader", journal=Counting()).get("")
    assert calls == [MAX_CONCERNS]


async def test_what_passed_is_drawn_with_its_numbers(route: Route) -> None:
    flow = count_flow(route)
    route.clock.later(-3600)
    flow.count("north", FlowCounts(accepted=3, written=1200, rows_created=4, rows_updated=5))
    route.clock.later(3600)
    flow.count("west", FlowCounts(accepted=1, written=34, refused=2, rows_parked=1))
    page = await visit(route, "reader").get("")
    for told in (
        "4 deliveries",
        "1 234 records written",
        "9 changes in Dataverse",
        "3 refused or given up",
    ):
        assert told in page.text
    numbers = [row for row in page.rows if row[0].endswith("UTC")]
    assert len(numbers) == 24
    assert numbers[0] == ["2026-03-01 19:00 UTC", "1", "34", "0", "3"]
    assert numbers[1] == ["2026-03-01 18:00 UTC", "3", "1 200", "9", "0"]
    assert {tuple(row[1:]) for row in numbers[2:]} == {("0", "0", "0", "0")}
    drawn = re.findall(r'<rect class="(\w+)"', page.html)
    assert sorted(drawn) == ["refused", "rows", "written", "written"]
    assert "north" not in page.html


async def test_what_was_delivered_is_counted_as_it_passes(route: Route) -> None:
    count_flow(route)
    person = patient(id="p1")
    await route.process_all(await route.deliver(person, method="PUT", type="Patient", id="p1"))
    await route.mirror_all()
    text = (await visit(route, "reader").get("")).text
    for told in (
        "1 delivery",
        "1 record written",
        "1 change in Dataverse",
        "0 refused or given up",
    ):
        assert told in text


async def test_where_nothing_passed_no_chart_is_drawn(route: Route) -> None:
    page = await visit(route, "reader").get("")
    assert "Nothing came." in page.text
    assert "<svg" not in page.html


async def test_a_chart_that_cannot_be_read_does_not_keep_the_page(route: Route) -> None:
    journal = await fill([build_concern(ConcernKind.PARKED)])
    status = {"flow": MemoryFlowLog()}
    page = await visit(route, "reader", journal=journal, flow=Broken(), status=status).get("")
    assert page.status == 200
    assert "The last 24 hours Cannot be read now." in page.text
    assert "1 thing needs you" in page.text


async def test_counts_that_the_status_cannot_read_either_need_somebody(route: Route) -> None:
    page = await visit(route, "reader", flow=Broken()).get("")
    assert page.status == 200
    assert "Cannot be read now." in page.text
    assert "1 thing needs you Storage" in page.text
