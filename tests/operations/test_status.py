"""One look says what an operator needs at night; what cannot be read says so, and harms no other."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from integration.core.errors import Misconfigured, Unavailable
from integration.core.flow import count_refusal, find_hour
from integration.core.flow_recorder import FlowRecorder
from integration.core.model import Activity, Category, Delivery, Status
from integration.journal.activity_log import ActivityPage, MemoryActivityLog
from integration.journal.flow_log import LiveFlow, MemoryFlowLog
from integration.journal.housekeeping_runs import HousekeepingRun, MemoryHousekeepingRuns
from integration.operations import status
from integration.operations.health import UpstreamCheck, check_upstreams
from integration.operations.status import (
    ActivityTrouble,
    HousekeepingState,
    LastDeliveries,
    OpenDeliveries,
    StatusCheck,
    StatusReport,
    Unreadable,
    report_status,
)
from integration.operations.status_views import describe_status
from integration.queues.queue_reader import MemoryQueueReader, QueueState
from tests.builders import MARKER
from tests.conftest import Route
from tests.doubles import Clock
from tests.operations.status_parts import Broken, CountingJournal, Hanging, add, checking

HOUR, DAY = 3600.0, 24 * 3600.0


async def open_(check: StatusCheck) -> OpenDeliveries:
    part = (await report_status(check)).deliveries
    assert isinstance(part, OpenDeliveries)
    return part


async def last(check: StatusCheck) -> LastDeliveries:
    part = (await report_status(check)).senders
    assert isinstance(part, LastDeliveries)
    return part


async def trouble(check: StatusCheck) -> ActivityTrouble:
    part = (await report_status(check)).activity
    assert isinstance(part, ActivityTrouble)
    return part


async def swept(check: StatusCheck) -> HousekeepingState:
    part = (await report_status(check)).housekeeping
    assert isinstance(part, HousekeepingState)
    return part


# --- queues ------------------------------------------------------------------------------------


async def test_each_queue_and_its_poison_queue_is_measured(clock: Clock) -> None:
    states = {
        "relay": QueueState(3, clock() - timedelta(seconds=70)),
        "mirror-poison": QueueState(1, None),
    }
    report = await report_status(checking(clock, queue_reader=MemoryQueueReader(states)))
    assert report.queues == {
        "relay": states["relay"],
        "relay-poison": QueueState(0, None),
        "mirror": QueueState(0, None),
        "mirror-poison": states["mirror-poison"],
    }
    first = describe_status(report)["queues"][0]
    assert first == {"queue": "relay", "length": 3, "oldest": states["relay"].oldest, "age": 70}


async def test_a_queue_that_cannot_be_read_hides_no_other(clock: Clock) -> None:
    class Half(MemoryQueueReader):
        async def measure(self, queue: str) -> QueueState:
            if queue == "relay":
                raise Misconfigured("storage refused this app's identity")
            return QueueState(1, None)

    report = await report_status(checking(clock, queue_reader=Half()))
    assert report.queues["relay"] == Unreadable("storage refused this app's identity")
    assert report.queues["mirror"] == QueueState(1, None)
    described = describe_status(report)["queues"]
    assert described[0] == {"queue": "relay", "unavailable": "storage refused this app's identity"}


# --- deliveries --------------------------------------------------------------------------------


async def test_what_is_open_is_counted_and_the_oldest_is_shown(clock: Clock) -> None:
    check = checking(clock)
    oldest = add(check, DAY, status=Status.PARKED, reason="answered 503")
    await check.journal.index_open(clock())
    add(check, 3 * DAY)
    add(check, 60, status=Status.ACCEPTED)
    add(check, 50, status=Status.PROCESSING)
    found = await open_(check)
    assert (found.open, found.parked, found.more) == (3, 1, False)
    assert found.oldest == oldest
    described = describe_status(await report_status(check))["deliveries"]
    assert described["oldest"]["reason"] == "answered 503"
    assert set(described["oldest"]) <= {
        "id",
        "sender",
        "accepted",
        "status",
        "entries",
        "refused",
        "reason",
    }


async def test_what_has_ended_and_is_still_in_the_index_is_not_open(clock: Clock) -> None:
    check = checking(clock)
    parked = add(check, DAY, status=Status.PARKED)
    await check.journal.index_open(clock())
    for number in range(status.NEWEST):
        add(check, 60, number)
    await check.journal.update_delivery(parked.id, status=Status.CANCELLED)
    assert (await open_(check)).open == 0


async def test_an_old_one_is_found_behind_all_the_newest(clock: Clock) -> None:
    check = checking(clock)
    parked = add(check, DAY, status=Status.PARKED)
    for number in range(status.NEWEST):
        add(check, 60, number)
    await check.journal.index_open(clock())
    found = await open_(check)
    assert (found.oldest, found.parked, found.more) == (parked, 1, False)


async def test_more_than_the_limit_is_said_to_be_more(clock: Clock) -> None:
    check = checking(clock)
    for number in range(status.MAX_OPEN + status.NEWEST + 5):
        add(check, DAY - number, number, status=Status.PARKED)
    await check.journal.index_open(clock())
    found = await open_(check)
    assert found.more
    assert found.parked == found.open == status.MAX_OPEN + status.NEWEST


async def test_what_was_accepted_between_the_index_and_the_newest_may_be_more(
    clock: Clock,
) -> None:
    check = checking(clock)
    await check.journal.index_open(clock() - timedelta(hours=2))
    add(check, HOUR, status=Status.PARKED)
    for number in range(status.NEWEST):
        add(check, 60, number)
    found = await open_(check)
    assert (found.open, found.more) == (0, True)


async def test_a_report_reads_no_more_as_the_table_grows(clock: Clock) -> None:
    check = checking(clock)
    add(check, DAY, status=Status.PARKED)
    await check.journal.index_open(clock())
    for number in range(3 * status.NEWEST):
        add(check, 60, number)
    await report_status(check)
    assert check.journal.reads == ["page", "entry", "delivery"]  # type: ignore[attr-defined]


async def test_many_open_deliveries_are_read_once_a_minute(clock: Clock) -> None:
    check = checking(clock)
    for number in range(status.NEWEST + 300):
        add(check, DAY - number, number, status=Status.PARKED)
    await check.journal.index_open(clock())
    reads = check.journal.reads  # type: ignore[attr-defined]
    assert (await open_(check)).open == status.NEWEST + 300
    assert reads.count("delivery") == 300
    oldest = min(check.journal.deliveries)  # type: ignore[attr-defined]
    await check.journal.update_delivery(oldest, status=Status.CANCELLED)
    add(check, 3, status=Status.ACCEPTED)
    clock.later(17.9)
    found = await open_(check)  # of those only the newest are looked at
    assert (found.open, found.counted) == (status.NEWEST + 301, clock() - timedelta(seconds=17.9))
    assert reads.count("delivery") == 300
    clock.later(15)
    found = await open_(check)
    assert (found.open, found.counted) == (status.NEWEST + 300, clock())
    assert reads.count("delivery") > 600


async def test_a_slow_journal_gives_a_number_that_may_be_higher(clock: Clock) -> None:
    class Slow(CountingJournal):
        async def get_delivery(self, id_: str) -> Delivery | None:
            clock.later(0.01)
            return await CountingJournal.get_delivery(self, id_)

    check = checking(clock, journal=Slow(), newest=1)
    for number in range(800):
        add(check, DAY - number, number, status=Status.PARKED)
    await check.journal.index_open(clock())
    found = await open_(check)
    assert found.more
    assert 250 <= found.parked < 400


# --- senders -----------------------------------------------------------------------------------


async def test_the_last_delivery_of_each_sender_is_shown(clock: Clock) -> None:
    check = checking(clock)
    add(check, 90)
    newest = add(check, 30, refused=1, finished=clock())
    other = add(check, 40, sender="unlisted")
    add(check, 10, sender="", kind="events")
    found = await last(check)
    assert found.by_sender == {"lab": newest, "unlisted": other, "west": None}
    assert (found.looked_at, found.more) == (4, False)


async def test_a_sender_that_was_silent_for_long_is_told_since_when(clock: Clock) -> None:
    check = checking(clock)
    add(check, DAY, sender="west")
    for number in range(status.NEWEST):
        add(check, HOUR - number / 10, number)
    found = await last(check)
    assert found.by_sender["west"] is None
    assert found.more
    assert found.since == clock() - timedelta(hours=1)


# --- upstreams ---------------------------------------------------------------------------------


def said(clock: Clock, age: float, upstream: str, **fields: Any) -> Activity:
    values: dict[str, Any] = {
        "time": clock() - timedelta(seconds=age),
        "category": Category.ERROR,
        "upstream": upstream,
        "action": "read",
        "status": "500",
        "resource": "Patient/p1",
        "notes": (MARKER,),
        **fields,
    }
    return Activity(**values)


async def test_the_last_trouble_of_each_upstream_is_shown(clock: Clock) -> None:
    check = checking(clock)
    entries = [
        said(clock, 2 * HOUR, "FHIR server"),
        said(clock, 300, "FHIR server"),
        said(clock, 200, "FHIR server", status="503", category=Category.WARNING),
        said(clock, 100, "FHIR server", status="502"),
        said(clock, 90, "Dataverse", action="mirror", category=Category.WARNING),
        said(clock, 80, "source https://x", status="200", category=Category.INFORMATION),
    ]
    await check.activity.add(entries)
    found = await trouble(check)
    assert list(found.by_upstream) == ["FHIR server"]
    fhir = found.by_upstream["FHIR server"]
    assert (fhir.errors, fhir.warnings, found.more) == (2, 1, False)
    assert fhir.last_error == entries[3]
    assert fhir.last_warning == entries[2]
    (described,) = describe_status(await report_status(check))["upstreams"]["trouble"]
    assert set(described["last_error"]) == {"time", "action", "status"}


async def test_many_errors_are_said_to_be_more(clock: Clock) -> None:
    check = checking(clock)
    await check.activity.add([said(clock, 100, "Dataverse")] * (status.MAX_ENTRIES + 1))
    found = await trouble(check)
    assert (found.by_upstream["Dataverse"].errors, found.more) == (status.MAX_ENTRIES, True)


async def test_no_upstream_is_asked_and_the_last_answer_is_shown(route: Route) -> None:
    upstreams = UpstreamCheck(route.journal, route.fhir, route.dataverse, route.clock)
    check = checking(route.clock, upstream_check=upstreams)
    assert (await report_status(check)).upstreams is None
    await route.activities.flush()
    assert route.activity.entries == []

    asked = await check_upstreams(upstreams)
    route.clock.later(HOUR)
    report = await report_status(check)
    assert report.upstreams is not None
    assert report.upstreams.checked == asked.checked
    assert describe_status(report)["upstreams"]["last_check"]["fhir"] == "ok"


# --- housekeeping ------------------------------------------------------------------------------


def run_at(moment: datetime) -> HousekeepingRun:
    return HousekeepingRun(began=moment, ended=moment + timedelta(seconds=3), queued=2)


async def test_the_last_run_is_shown_with_what_is_due_next(clock: Clock) -> None:
    run = run_at(datetime(2026, 3, 1, 19, 40, tzinfo=UTC))  # the clock says 19:45 in UTC
    found = await swept(checking(clock, runs=MemoryHousekeepingRuns(run)))
    assert found.last == run
    assert found.due == datetime(2026, 3, 1, 19, 50, tzinfo=UTC)
    assert not found.is_overdue


@pytest.mark.parametrize(("late", "is_overdue"), [(15 * 60, False), (15 * 60 + 1, True)])
async def test_a_run_is_overdue_a_quarter_of_an_hour_after_its_time(
    clock: Clock, late: float, is_overdue: bool
) -> None:
    run = run_at(clock())
    check = checking(clock, runs=MemoryHousekeepingRuns(run))
    clock.now = datetime(2026, 3, 1, 19, 50, tzinfo=UTC)
    clock.later(late)
    assert (await swept(check)).is_overdue == is_overdue


async def test_without_a_run_it_is_overdue_only_after_its_first_time(clock: Clock) -> None:
    check = checking(clock)
    assert await swept(check) == HousekeepingState(
        last=None, due=datetime(2026, 3, 1, 19, 50, tzinfo=UTC), is_overdue=False
    )
    clock.later(HOUR)
    assert (await swept(check)).is_overdue


async def test_of_a_schedule_that_is_not_understood_nothing_is_said(clock: Clock) -> None:
    check = checking(clock, schedule=None)
    clock.later(DAY)
    found = await swept(check)
    assert (found.due, found.is_overdue) == (None, False)


# --- refused requests --------------------------------------------------------------------------


async def test_refused_requests_of_a_day_and_missing_settings_are_told(clock: Clock) -> None:
    log = MemoryFlowLog()
    other, own = (
        FlowRecorder(store=log.save_flows, worker=name, now=clock, call_later=lambda *_: None)
        for name in ("other", "own")
    )
    other.count("old", count_refusal(403))
    await other.flush()
    clock.later(DAY)
    for sender, code in (("lab", 401), (None, 401), ("lab", 400), ("west", 429)):
        other.count(sender, count_refusal(code))
    await other.flush()
    own.count("lab", count_refusal(401))  # not stored yet
    problems = {"lab": "lab: set LAB_SECRET"}
    check = checking(clock, sender_problems=problems, flow=LiveFlow(log, own))
    described = describe_status(await report_status(check))
    assert described["sender_problems"] == problems
    assert described["refused"]["since"] == find_hour(clock()) - timedelta(hours=23)
    assert described["refused"]["requests"] == [
        {"status": 401, "count": 1, "last": find_hour(clock())},
        {"sender": "lab", "status": 401, "count": 2, "last": find_hour(clock())},
        {"sender": "west", "status": 429, "count": 1},
    ]


# --- together ----------------------------------------------------------------------------------

STORED = ("journal", "queue_reader", "activity", "runs", "flow")


@pytest.mark.parametrize("part", STORED)
@pytest.mark.parametrize("trouble_", [Broken, Hanging])
async def test_a_part_that_cannot_be_read_says_so_and_harms_no_other(
    clock: Clock, part: str, trouble_: type
) -> None:
    timeout = 0.3 if trouble_ is Hanging else 60  # for the others, on a busy machine
    report = await report_status(checking(clock, timeout=timeout, **{part: trouble_()}))
    lost = {"journal": 2, "queue_reader": 4, "activity": 1, "runs": 1, "flow": 1}
    assert len(report.unreadable) == lost[part]
    reason = "storage: ServiceRequestError" if trouble_ is Broken else "not read within 0 s"
    assert {each.reason for each in report.unreadable} == {reason}
    assert reason in json.dumps(msgspec.to_builtins(describe_status(report)))


async def test_storage_that_does_not_answer_at_all_is_unavailable(clock: Clock) -> None:
    check = checking(clock, **dict.fromkeys(STORED, Broken()))
    for _ in range(2):  # the second is answered from what is kept
        with pytest.raises(Unavailable, match="ServiceRequestError"):
            await report_status(check)


async def ask_at_once(check: StatusCheck) -> list[StatusReport]:
    return list(await asyncio.gather(*(report_status(check) for _ in range(40))))


async def test_forty_who_ask_at_once_share_one_report(clock: Clock) -> None:
    check = checking(clock)
    reports = await ask_at_once(check)
    assert all(report is reports[0] for report in reports)
    assert check.journal.reads == ["page"]  # type: ignore[attr-defined]


async def report_next(check: StatusCheck, last: StatusReport) -> StatusReport:
    """The report that is being made, once it is there."""
    while (report := await report_status(check)) is last:
        await asyncio.sleep(0)
    return report


async def test_a_report_is_kept_for_five_seconds(clock: Clock) -> None:
    check = checking(clock)
    first = await report_status(check)
    clock.later(4.9)
    assert await report_status(check) is first
    clock.later(0.1)
    assert await report_status(check) is first, "the next one is being made"
    second = await report_next(check, first)
    clock.later(15)
    assert await report_status(check) is not second, "that one is too old to be shown meanwhile"
    clock.later(-HOUR)  # a clock that was set back keeps none
    assert await report_status(check) is not second


async def test_no_part_holds_what_a_patient_could_be_known_by(clock: Clock) -> None:
    check = checking(clock)
    add(check, 60, status=Status.PARKED, reason="answered 503", key=MARKER)
    await check.activity.add([said(clock, 60, "Dataverse", row=MARKER)])
    text = json.dumps(msgspec.to_builtins(describe_status(await report_status(check))))
    assert MARKER not in text
    assert "Patient/p1" not in text


async def test_a_page_of_the_log_that_was_cut_off_says_so(clock: Clock) -> None:
    class Cut(MemoryActivityLog):
        async def list_entries(self, *_: Any) -> ActivityPage:
            return ActivityPage((), "further on")

    assert (await trouble(checking(clock, activity=Cut()))).more


async def test_an_etag_is_not_part_of_what_is_shown(clock: Clock) -> None:
    check = checking(clock)
    delivery = add(check, 60, status=Status.PARKED)
    check.journal.deliveries[delivery.id] = replace(delivery, etag="7")  # type: ignore[attr-defined]
    assert "etag" not in describe_status(await report_status(check))["deliveries"]["oldest"]
