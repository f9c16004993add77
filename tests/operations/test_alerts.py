"""What the app says of the alerts: each that the deployment has, and no more than it knows."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from integration.core.flow import NO_SENDER, FlowCounts, HourFlow, find_hour
from integration.core.model import Status
from integration.journal.attention import ConcernPage
from integration.journal.concern import Concern, ConcernKind
from integration.journal.flow_log import MemoryFlowLog
from integration.journal.housekeeping_runs import HousekeepingRun, MemoryHousekeepingRuns
from integration.operations.alerts import ALERTS, BACKLOG, OLDEST, AlertState, Known, judge_alerts
from integration.operations.status import StatusReport, Unreadable, report_status
from integration.queues.queue_reader import QueueState
from tests.conftest import DAY
from tests.doubles import Clock
from tests.operations.status_parts import add, checking

INFRA = Path(__file__).parents[2] / "infra"


def concern(clock: Clock, kind: ConcernKind) -> Concern:
    known = {"delivery": "d", "sender": "lab", "reason": "a reason"}
    return Concern(id="1", since=clock(), kind=kind, **known)


async def report(clock: Clock, **changes: Any) -> StatusReport:
    runs = MemoryHousekeepingRuns()
    await runs.save_last_run(HousekeepingRun(began=clock(), ended=clock()))
    return replace(await report_status(checking(clock, runs=runs)), **changes)


def judge(found: StatusReport, *concerns: Concern, more: bool = False) -> dict[str, Known]:
    page = ConcernPage(concerns, "more" if more else None)
    return {alert.name: alert.known for alert in judge_alerts(found, page)}


def ringing(known: dict[str, Known]) -> set[str]:
    return {name for name, one in known.items() if one.state is AlertState.RINGS}


def test_the_alerts_are_those_of_the_deployment() -> None:
    texts = "".join(path.read_text("utf-8") for path in (INFRA / "modules").glob("*.bicep"))
    rules = re.findall(r"    name: '(\w+)'\n    tells:", texts)
    metrics = re.findall(r"metricAlerts@[^{]*\{\n  name: '\$\{name\}-(\w+)'", texts)
    named = [alert.name for alert in ALERTS]
    assert len(rules) > 8
    assert sorted(named) == sorted({*rules, *metrics, "budget"})


def test_the_limits_are_those_of_the_deployment() -> None:
    text = (INFRA / "main.bicep").read_text("utf-8")
    limits = dict(re.findall(r"^param (oldestMinutes|backlog) int = (\d+)$", text, re.M))
    assert int(limits["oldestMinutes"]) * 60 == OLDEST.total_seconds()
    assert int(limits["backlog"]) == BACKLOG


async def test_where_all_is_well_none_rings(clock: Clock) -> None:
    known = judge(await report(clock))
    assert ringing(known) == set()
    here = {name for name, one in known.items() if one.state is AlertState.SILENT}
    assert here == {
        *("parked", "operator", "oldest", "refused", "unproven", "silent", "backlog"),
    }
    assert {one.state for name, one in known.items() if name not in here} == {AlertState.ELSEWHERE}


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        (ConcernKind.PARKED, "parked", "2 deliveries are parked"),
        (ConcernKind.HELD, "parked", "2 deliveries are held"),
        (ConcernKind.ROW_PARKED, "parked", "2 rows are parked"),
        (ConcernKind.WAITING, "operator", "2 deliveries wait"),
        (ConcernKind.ROW_WAITING, "operator", "2 rows wait"),
        (ConcernKind.ENTRIES, "refused", "2 deliveries have refused entries"),
        (ConcernKind.ROW_REFUSED, "refused", "2 rows are refused"),
    ],
)
async def test_what_needs_attention_rings(
    clock: Clock, kind: ConcernKind, name: str, reason: str
) -> None:
    two = (concern(clock, kind), concern(clock, kind))
    known = judge(await report(clock), *two)
    assert ringing(known) == {name}
    assert known[name].reason == reason
    assert judge(await report(clock), *two, more=True)[name].reason == f"at least {reason}"


async def test_a_row_that_waits_for_another_record_rings_nothing(clock: Clock) -> None:
    known = judge(await report(clock), concern(clock, ConcernKind.ROW_INCOMPLETE))
    assert ringing(known) == set()


async def test_a_message_in_a_poison_queue_rings(clock: Clock) -> None:
    queues = {"relay": QueueState(5, None), "relay-poison": QueueState(1, None)}
    known = judge(await report(clock, queues=queues))
    assert ringing(known) == {"parked"}
    assert known["parked"].reason == "1 message in relay-poison"


@pytest.mark.parametrize(("minutes", "rings"), [(59, False), (60, False), (61, True)])
async def test_a_delivery_that_is_on_its_way_for_too_long_rings(
    clock: Clock, minutes: int, rings: bool
) -> None:
    check = checking(clock)
    add(check, minutes * 60, status=Status.PROCESSING)
    known = judge(await report_status(check))
    assert ("oldest" in ringing(known)) is rings
    assert f"accepted {minutes} min ago" in known["oldest"].reason


@pytest.mark.parametrize(("length", "rings"), [(BACKLOG, False), (BACKLOG + 1, True)])
async def test_too_many_messages_ring(clock: Clock, length: int, rings: bool) -> None:
    queues = {"relay": QueueState(length - 1, None), "mirror": QueueState(1, None)}
    assert ("backlog" in ringing(judge(await report(clock, queues=queues)))) is rings


async def test_a_sender_that_proves_nothing_rings(clock: Clock) -> None:
    counted = {
        "lab": FlowCounts(unproven=10),
        "west": FlowCounts(forbidden=10),
        "east": FlowCounts(unproven=9),
        NO_SENDER: FlowCounts(unproven=10),
    }
    log = MemoryFlowLog()
    await log.save_flows([HourFlow(hour=find_hour(clock()), worker="a", senders=counted)])
    refusals = (await report_status(checking(clock, flow=log))).refusals
    known = judge(await report(clock, refusals=refusals))
    assert ringing(known) == {"unproven"}
    hour = find_hour(clock())
    assert known["unproven"].reason == (
        "lab: 10 answers 401 in the last 24 hours, the last between "
        f"{hour:%H:%M} and {hour + timedelta(hours=1):%H:%M} UTC"
    )


async def test_a_sender_that_is_let_in_again_rings_no_more(clock: Clock) -> None:
    log, hour = MemoryFlowLog(), find_hour(clock())
    counted = {"lab": FlowCounts(unproven=10)}
    for ago, rings in ((1, True), (2, False)):
        log.flows.clear()
        flow = HourFlow(hour=hour - timedelta(hours=ago), worker="a", senders=counted)
        await log.save_flows([flow])
        refusals = (await report_status(checking(clock, flow=log))).refusals
        known = judge(await report(clock, refusals=refusals))
        assert (known["unproven"].state is AlertState.RINGS) is rings


async def test_a_sender_without_its_secret_waits_for_an_operator(clock: Clock) -> None:
    """Its requests are logged as misconfigured, which is what that alert asks for."""
    known = judge(await report(clock, sender_problems={"lab": "LAB_KEY is not set"}))
    assert ringing(known) == {"operator"}
    assert known["operator"].reason == "lab: LAB_KEY is not set"


async def test_what_is_parked_is_not_on_its_way_for_too_long(clock: Clock) -> None:
    check = checking(clock)
    add(check, DAY, status=Status.PARKED)
    known = judge(await report_status(check))
    assert known["oldest"] == Known(AlertState.SILENT, "no delivery is under way")


async def test_housekeeping_that_does_not_run_rings(clock: Clock) -> None:
    found = await report(clock)
    late = replace(found, time=found.time + timedelta(hours=2, seconds=1))
    assert ringing(judge(late)) == {"silent"}
    overdue = replace(found.housekeeping, is_overdue=True)  # type: ignore[type-var]
    assert ringing(judge(replace(found, housekeeping=overdue))) == {"silent"}


async def test_what_cannot_be_read_rings_nothing_and_is_not_called_well(clock: Clock) -> None:
    dead = Unreadable("not read within 5 s")
    queues = {"relay": dead, "mirror": QueueState(1, None)}
    known = judge(await report(clock, deliveries=dead, housekeeping=dead, queues=queues))
    unread = {name for name, one in known.items() if one.state is AlertState.UNREADABLE}
    assert unread == {"oldest", "silent", "backlog"}
    assert ringing(known) == set()


async def test_a_poison_queue_that_cannot_be_read_is_not_called_empty(clock: Clock) -> None:
    queues = {
        "relay-poison": Unreadable("not read within 5 s"),
        "mirror-poison": QueueState(0, None),
    }
    known = judge(await report(clock, queues=queues))
    assert known["parked"] == Known(AlertState.UNREADABLE, "relay-poison: not read within 5 s")
    full = {**queues, "mirror-poison": QueueState(2, None)}
    assert "parked" in ringing(judge(await report(clock, queues=full)))


async def test_a_list_of_concerns_that_cannot_be_read_calls_nothing_well(clock: Clock) -> None:
    judged = judge_alerts(await report(clock), Unreadable("storage: answered 503"))
    unread = {one.name for one in judged if one.known.state is AlertState.UNREADABLE}
    assert unread == {"parked", "operator", "refused"}


async def test_what_rings_comes_first(clock: Clock) -> None:
    judged = judge_alerts(
        await report(clock), ConcernPage((concern(clock, ConcernKind.ENTRIES),), None)
    )
    assert judged[0].name == "refused"
    states = [*AlertState]
    assert [*judged] == sorted(judged, key=lambda one: states.index(one.known.state))
