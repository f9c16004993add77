"""Calls stand under what they were made for; what failed says why; nothing of a patient is shown."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from integration.core.model import Activity, Category
from integration.pages.activity_groups import explain, group_entries
from tests.builders import MARKER, bundle, entry, patient
from tests.conftest import Route
from tests.pages.asking import Visitor, make_parts

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
NUMBERS = count()


def call(action: str, **fields: Any) -> Activity:
    """An entry, each a second earlier than the one before: as a page lists them."""
    values: dict[str, Any] = {
        "time": NOON - timedelta(seconds=next(NUMBERS)),
        "category": Category.INFORMATION,
        "upstream": "FHIR server",
        "action": action,
        "status": "200",
        **fields,
    }
    return Activity(**values)


def shape(entries: list[Activity]) -> list[tuple[str | None, list[str]]]:
    """The result and the calls of each group."""
    return [
        (group.result.status if group.result else None, [each.action for each in group.calls])
        for group in group_entries(entries)
    ]


ROW = {"operation": "a", "delivery": "d1", "resource": "Patient/1", "table": "contact"}
UNIT = {"operation": "b", "delivery": "d1"}


def test_the_calls_of_an_operation_stand_below_its_result_the_oldest_first() -> None:
    entries = [
        call("mirror", status="updated", **ROW),
        call("update", **ROW),
        call("read", **ROW),
    ]
    assert shape(entries) == [("updated", ["read", "update"])]


def test_operations_at_the_same_time_are_told_apart_and_the_newest_is_first() -> None:
    again = {**ROW, "operation": "c"}
    entries = [
        call("mirror", status="updated", **again),
        call("mirror", status="requeued", **ROW),
        call("update", **again),
        call("write unit 0.1", **UNIT),
        call("read", **ROW),
        call("look-up", **UNIT),
        call("read", **again),
    ]
    assert shape(entries) == [
        ("updated", ["read", "update"]),
        ("requeued", ["read"]),
        (None, ["look-up", "write unit 0.1"]),
    ]


def test_an_entry_without_an_operation_stands_alone() -> None:
    old = {**ROW, "operation": None}
    entries = [call("mirror", status="updated", **old), call("read", **old), call("read", **old)]
    groups = group_entries(entries)
    assert [group.entries for group in groups] == [(entry,) for entry in entries]
    assert all(group.is_alone for group in groups)


def test_a_parent_says_what_its_operation_was_about_and_what_it_came_to() -> None:
    failed = Category.ERROR
    (group,) = group_entries(
        [
            call("mirror", status="refused", category=failed, duration=1500, **ROW),
            call("create", status="400", category=failed, **ROW),
        ]
    )
    assert (group.delivery, group.resource, group.table) == ("d1", "Patient/1", "contact")
    assert (group.actions, group.outcome, group.seconds) == ("mirror", "refused", 1.5)
    assert group.category is failed


def test_without_a_result_a_parent_is_summed_up_from_the_calls() -> None:
    (group,) = group_entries(
        [
            call("write unit 0.1", status="500", category=Category.ERROR, **UNIT),
            call("look-up", status="429", category=Category.WARNING, **UNIT),
            call("look-up", resource="Patient/1", duration=500, **UNIT),
            call("fetch", resource="Observation/1", duration=2000, **UNIT),
        ]
    )
    assert group.actions == "fetch, look-up, write unit 0.1"
    assert group.outcome == "1 failed, 1 with a warning of 4 calls"
    assert group.seconds == 5.0  # the first one ended 3 seconds before the last, and took 2
    assert (group.resource, group.types) == (None, "Observation, Patient")
    assert group.category is Category.ERROR


def test_a_parent_names_few_of_many_actions() -> None:
    calls = [call(f"write unit 0.{number}", **UNIT) for number in range(9)]
    (group,) = group_entries(calls)
    assert group.actions == "write unit 0.8, write unit 0.7, write unit 0.6 and 6 more"
    assert group.outcome == "none failed of 9 calls"


def test_a_run_that_succeeded_after_a_failed_call_is_no_failure() -> None:
    failed = call("update", status="412", category=Category.ERROR, **ROW)
    (group,) = group_entries([call("mirror", status="updated", **ROW), failed])
    assert group.category is Category.INFORMATION
    (group,) = group_entries([failed])
    assert group.category is Category.ERROR


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("unreachable", "no connection could be made"),
        ("412", "it had been changed meanwhile, or there is one with the same key"),
        ("500", "the service failed"),
        ("422", "the service refused the request"),
        ("frozen", None),
    ],
)
def test_a_failure_is_explained(status: str, reason: str | None) -> None:
    entry_ = call("read", status=status, category=Category.ERROR)
    assert explain(entry_) == reason
    assert explain(replace(entry_, category=Category.INFORMATION)) is None


async def test_a_journey_is_shown_without_a_value_of_the_patient(route: Route) -> None:
    delivery = await route.deliver(bundle(entry(patient(id="p-1", birthDate="1980"), method="PUT")))
    await route.process_all(delivery)
    await route.mirror_all()
    await route.activities.flush()
    page = await Visitor(make_parts(route), ("reader",)).get("activity")
    assert page.status == 200
    # The end of its id stands apart: a style hides what comes before.
    shown = f"for delivery {delivery[:-8]} {delivery[-8:]}"
    about = r"Patient/p-1 : {}, {} , [0-9.]+ s{}, " + shown
    relayed = about.format("look-up, write unit 0.0", "none failed of 3 calls", "")
    assert re.search(relayed, page.text)
    assert re.search(about.format("mirror", "created", ", table contact"), page.text)
    assert "FHIR server: write unit 0.0" in page.text
    assert "birthdate: " in page.text  # the note of what Dataverse cannot hold
    assert MARKER not in page.html
    assert "/api/pages/patients/p-1" not in page.links
    page = await Visitor(make_parts(route)).get("activity")
    assert "/api/pages/patients/p-1" in page.links


async def test_what_failed_and_why_is_seen_below_its_operation(route: Route) -> None:
    await route.activity.add(
        [
            call("mirror", status="refused", category=Category.ERROR, notes=("no choice",), **ROW),
            call("create", status="500", category=Category.ERROR, **ROW),
            call("search"),
        ][::-1]
    )
    visitor = Visitor(make_parts(route), ("reader",))
    page = await visitor.get("activity")
    parent, child = page.text.index("refused , 0.00 s"), page.text.index("FHIR server: create")
    assert parent < page.text.index("no choice") < child < page.text.index("The service failed.")
    (alone,) = [link for link in page.links if "operation=a" in link]
    page = await visitor.get(alone)
    assert "FHIR server: create" in page.text
    assert "search" not in page.text


async def test_filters_choose_and_the_next_page_keeps_them(route: Route) -> None:
    await route.activity.add([call("read", status="500", category=Category.ERROR)] * 3)
    await route.activity.add([call("search")])
    visitor = Visitor(make_parts(route), ("reader",))
    page = await visitor.get("activity?category=error&status=500&_count=2&table=")
    assert "The service failed." in page.text
    assert "search" not in page.text
    assert "2 entries" in page.text
    (older,) = [link for link in page.links if "after=" in link]
    page = await visitor.get(older)
    assert "1 entry" in page.text
    assert "category=error" in older


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("category=bad", "category must be one of"),
        ("after=nothing", "after must be as in the link"),
        ("since=yesterday", "since must be a date"),
        ("sender=lab", "the field sender is not known"),
    ],
)
async def test_a_wrong_filter_is_refused_with_a_sentence(
    route: Route, query: str, why: str
) -> None:
    page = await Visitor(make_parts(route)).get(f"activity?{query}")
    assert page.status == 400
    assert why in page.text


async def test_an_empty_page_says_what_that_means(route: Route) -> None:
    visitor = Visitor(make_parts(route))
    assert "Nothing has been asked" in (await visitor.get("activity")).text
    assert "No entry meets all" in (await visitor.get("activity?status=500")).text


async def test_the_page_needs_the_role_of_a_reader(route: Route) -> None:
    for path in ("activity", "senders", "senders/lab"):
        assert (await Visitor(make_parts(route), ("phi",)).get(path)).status == 403


async def test_what_a_page_asks_upstreams_is_one_operation(route: Route) -> None:
    name = route.fhir_double.add(patient(id="p1"))
    page = await Visitor(make_parts(route)).get(f"patients/{name.partition('/')[2]}")
    assert page.status == 200
    await route.activities.flush()
    entries = list(route.activity.entries)
    assert len(entries) > 1
    assert {entry.operation is None for entry in entries} == {False}
    assert len({entry.operation for entry in entries}) == 1


async def test_health_calls_are_left_out_until_they_are_asked_for(route: Route) -> None:
    values: dict[str, Any] = {
        "category": Category.INFORMATION,
        "upstream": "Dataverse",
        "status": "200",
    }
    await route.activity.add(
        [
            Activity(time=NOON, action=action, **values)
            for action in ("health", "update", "health-like")
        ]
    )
    visitor = Visitor(make_parts(route), ("reader",))
    asked: list[tuple[dict[str, str], list[str]]] = [
        ({}, ["health-like", "update"]),
        ({"health": "show"}, ["health", "health-like", "update"]),
        ({"action": "health"}, ["health", "health-like"]),
    ]
    for fields, shown in asked:
        rows = (await visitor.get("activity", **fields)).rows
        assert sorted(row[1].removeprefix("Dataverse: ") for row in rows[1:]) == shown
