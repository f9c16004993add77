"""A report on the terminal: calm where all is well, and at its end what a person should look at."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from integration.cli.status_table import find_concerns, render_status
from integration.core.model import Activity, Category, Delivery, Status
from integration.journal.housekeeping_runs import HousekeepingRun
from integration.journal.table_keys import make_delivery_id
from integration.operations.status import (
    ActivityTrouble,
    HousekeepingState,
    LastDeliveries,
    OpenDeliveries,
    RefusalCount,
    RefusedRequests,
    StatusReport,
    Unreadable,
    UpstreamTrouble,
)
from integration.queues.queue_reader import QueueState

NOW = datetime(2026, 3, 2, 3, 30, tzinfo=UTC)
EMPTY = QueueState(0, None)
ID = make_delivery_id(NOW, 1)
WELL = StatusReport(
    time=NOW,
    queues={"relay": EMPTY, "relay-poison": EMPTY, "mirror": EMPTY, "mirror-poison": EMPTY},
    deliveries=OpenDeliveries(counted=NOW, open=0, parked=0, more=False, oldest=None),
    senders=LastDeliveries(by_sender={}, looked_at=0, since=None, more=False),
    activity=ActivityTrouble(since=NOW - timedelta(hours=1), by_upstream={}, more=False),
    housekeeping=HousekeepingState(
        last=HousekeepingRun(began=NOW - timedelta(seconds=63), ended=NOW - timedelta(minutes=1)),
        due=NOW + timedelta(minutes=10),
        is_overdue=False,
    ),
    upstreams=None,
    sender_problems={},
    started=NOW,
    refusals=RefusedRequests(NOW - timedelta(hours=23, minutes=30), ()),
)


def made(age: float, **fields: Any) -> Delivery:
    values: dict[str, Any] = {
        "id": ID,
        "sender": "lab",
        "key": "key",
        "digest": "digest",
        "accepted": NOW - timedelta(seconds=age),
        "status": Status.DONE,
        "kind": "batch",
        "entries": 2,
        "bytes": 2,
    }
    return Delivery(**values | fields)


def said(age: float, category: Category, status: str) -> Activity:
    moment = NOW - timedelta(seconds=age)
    return Activity(
        time=moment, category=category, upstream="Dataverse", action="create", status=status
    )


def test_where_all_is_well_a_report_is_short() -> None:
    assert render_status(WELL) == [
        "status at 2026-03-02 03:30 UTC",
        "",
        "queues  all are empty",
        "",
        "deliveries  none is open",
        "",
        "sender  none is listed, and none has sent anything",
        "",
        "refused requests  none since 2026-03-01 04:00 UTC",
        "",
        "upstreams  no error and no warning since 2026-03-02 02:30 UTC",
        "",
        "housekeeping  ended 60 s ago, took 3 s: nothing to do; due at 2026-03-02 03:40 UTC",
        "",
        "status: nothing to look at",
    ]


def test_what_is_not_well_is_told_where_it_belongs_and_at_the_end() -> None:
    parked = made(9 * 3600, status=Status.PARKED, reason="FHIR server: answered 503")
    report = replace(
        WELL,
        queues={
            "relay": QueueState(120, NOW - timedelta(minutes=40)),
            "relay-poison": QueueState(1, None),
            "mirror": EMPTY,
            "mirror-poison": EMPTY,
        },
        deliveries=OpenDeliveries(counted=NOW, open=12, parked=1, more=False, oldest=parked),
        senders=LastDeliveries(
            by_sender={"lab": made(30, refused=1), "north": parked, "west": None},
            looked_at=500,
            since=NOW - timedelta(days=3),
            more=True,
        ),
        activity=ActivityTrouble(
            since=NOW - timedelta(hours=1),
            by_upstream={
                "Dataverse": UpstreamTrouble(
                    3, 1, said(90, Category.ERROR, "500"), said(150, Category.WARNING, "429")
                )
            },
            more=False,
        ),
        sender_problems={"west": "west: set WEST_TOKEN"},
        refusals=RefusedRequests(
            NOW - timedelta(hours=23, minutes=30),
            (RefusalCount(None, 401, 3), RefusalCount("lab", 429, 12)),
        ),
    )
    assert render_status(report)[2:] == [
        "queue  waiting  oldest  poison  oldest",
        "relay      120  40 min       1  in work or delayed",
        "the others are empty",
        "",
        "deliveries  12 open, 1 of them parked",
        f"  the oldest  {ID}  parked, accepted 9 h ago",
        "              FHIR server: answered 503",
        "",
        "sender  last delivery",
        "lab     30 s ago: done, 1 of 2 entries refused",
        "north   9 h ago: parked",
        "west    none among the newest 500, which begin at 2026-02-27 03:30 UTC",
        "",
        "refused requests since 2026-03-01 04:00 UTC",
        "  of no listed sender  401   3",
        "  lab                  429  12",
        "",
        "upstreams since 2026-03-02 02:30 UTC",
        "  Dataverse  3 errors   the last 90 s ago (create: 500)",
        "  Dataverse  1 warning  the last 2 min ago (create: 429)",
        "",
        "housekeeping  ended 60 s ago, took 3 s: nothing to do; due at 2026-03-02 03:40 UTC",
        "",
        "status: look at",
        "  queue relay-poison: 1 message failed repeatedly",
        "  deliveries: 1 parked delivery: GET /api/deliveries?status=parked has the reasons",
        "  Dataverse: failed 90 s ago (create: 500)",
        "  settings of senders: west: set WEST_TOKEN",
    ]


def test_numbers_that_may_be_higher_are_told_as_such() -> None:
    report = replace(
        WELL, deliveries=OpenDeliveries(counted=NOW, open=1000, parked=2, more=True, oldest=made(9))
    )
    assert "deliveries  at least 1000 open, at least 2 of them parked" in render_status(report)
    (concern,) = find_concerns(report)
    assert concern.startswith("deliveries: at least 2 parked deliveries: ")


@pytest.mark.parametrize("part", ["deliveries", "senders", "activity", "housekeeping"])
def test_a_part_that_cannot_be_read_is_to_be_looked_at(part: str) -> None:
    changes: dict[str, Any] = {part: Unreadable("storage: busy")}
    report = replace(WELL, **changes)
    name = "upstreams" if part == "activity" else part
    assert f"{name}  cannot be read: storage: busy" in render_status(report)
    assert find_concerns(report) == [f"{name}: cannot be read: storage: busy"]


def test_a_queue_that_cannot_be_read_is_to_be_looked_at() -> None:
    report = replace(WELL, queues={"relay": Unreadable("storage: busy"), "relay-poison": EMPTY})
    assert "relay        ?  -            0  -" in render_status(report)
    assert find_concerns(report) == ["queue relay: cannot be read: storage: busy"]


def test_housekeeping_that_is_overdue_or_failed_is_to_be_looked_at() -> None:
    late = HousekeepingState(last=None, due=NOW - timedelta(hours=1), is_overdue=True)
    report = replace(WELL, housekeeping=late)
    line = "housekeeping  no run is recorded; overdue at 2026-03-02 02:30 UTC"
    assert line.replace("overdue at", "overdue since") in render_status(report)
    assert find_concerns(report) == ["housekeeping: overdue: does the app run?"]
    run = HousekeepingRun(began=NOW, ended=NOW, queued=1, failed=2, more=True)
    failed = replace(WELL, housekeeping=HousekeepingState(last=run, due=None, is_overdue=False))
    told = "housekeeping  ended 0 s ago, took 0 s: 1 queued again, 2 failed; the next run goes on"
    assert told in render_status(failed)
    assert len(find_concerns(failed)) == 1


@pytest.mark.parametrize(
    ("age", "status", "concerns"),
    [
        (599, "503", 1),
        (601, "503", 0),
        (5, "unreachable", 1),
        (5, "403", 1),
        *((5, status, 0) for status in ("404", "409", "412", "422", "429", "refused")),
    ],
)
def test_an_upstream_that_fails_now_is_to_be_looked_at(
    age: float, status: str, concerns: int
) -> None:
    troubles = [
        UpstreamTrouble(1, 0, said(age, Category.ERROR, status), None),
        UpstreamTrouble(1, 1, said(9, Category.ERROR, "422"), said(age, Category.WARNING, status)),
    ]
    for trouble in troubles:
        part = ActivityTrouble(since=NOW, by_upstream={"Dataverse": trouble}, more=False)
        assert len(find_concerns(replace(WELL, activity=part))) == concerns


def test_where_none_is_parked_it_is_said() -> None:
    open_ = OpenDeliveries(
        counted=NOW, open=3, parked=0, more=False, oldest=made(9, status=Status.ACCEPTED)
    )
    assert "deliveries  3 open, none parked" in render_status(replace(WELL, deliveries=open_))


def test_a_sender_of_whom_nothing_is_kept_is_told_so() -> None:
    senders = LastDeliveries(by_sender={"lab": None}, looked_at=3, since=NOW, more=False)
    assert "lab     none is kept" in render_status(replace(WELL, senders=senders))


def test_no_line_is_longer_than_a_wide_terminal() -> None:
    oldest = made(9, status=Status.PARKED, reason="x" * 4000)
    report = replace(
        WELL, deliveries=OpenDeliveries(counted=NOW, open=1, parked=1, more=False, oldest=oldest)
    )
    assert max(map(len, render_status(report))) < 110
