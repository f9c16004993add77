"""Calls stand under what they were made for; what failed says why; nothing of a patient is shown."""

from __future__ import annotations

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


ROW = {"delivery": "d1", "resource": "Patient/1", "table": "contact"}


def test_the_calls_before_a_result_are_those_of_its_run() -> None:
    entries = [
        call("mirror", status="updated", **ROW),
        call("update", **ROW),
        call("read", **ROW),
        call("mirror", status="requeued", **ROW),
        call("read", status="500", **ROW),
    ]
    assert shape(entries) == [("updated", ["update", "read"]), ("requeued", ["read"])]


def test_runs_of_two_resources_at_the_same_time_are_told_apart() -> None:
    other = {**ROW, "resource": "Patient/2"}
    entries = [
        call("mirror", status="updated", **ROW),
        call("mirror", status="created", **other),
        call("update", **ROW),
        call("create", **other),
    ]
    assert shape(entries) == [("updated", ["update"]), ("created", ["create"])]


def test_the_work_of_the_relay_on_a_delivery_stands_together() -> None:
    entries = [
        call("mirror", status="created", **ROW),
        call("write unit 0.1", delivery="d1", resource="Patient/1"),
        call("write unit 0.1", delivery="d2"),
        call("look-up", delivery="d1"),
    ]
    assert shape(entries) == [
        ("created", []),
        (None, ["write unit 0.1", "look-up"]),
        (None, ["write unit 0.1"]),
    ]


def test_calls_for_no_delivery_are_joined_only_beside_each_other_and_of_one_resource() -> None:
    entries = [
        call("read", resource="Patient/1"),
        call("read history", resource="Patient/1"),
        call("health"),
        call("read", resource="Patient/1"),
    ]
    assert shape(entries) == [
        (None, ["read", "read history"]),
        (None, ["health"]),
        (None, ["read"]),
    ]


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
        ("412", "it had been changed meanwhile"),
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
    assert f"Work on delivery {delivery[:-8]} {delivery[-8:]}" in page.text
    assert "FHIR server: write unit 0.0" in page.text
    assert "Rows of Patient/p-1 , for delivery" in page.text
    assert "birthdate: " in page.text  # the note of what Dataverse cannot hold
    assert MARKER not in page.html
    assert "/api/pages/patients/p-1" not in page.links
    page = await Visitor(make_parts(route)).get("activity")
    assert "/api/pages/patients/p-1" in page.links


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
