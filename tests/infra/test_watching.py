"""Alerts and the workbook ask for log events that the app has, by names that an operator can look up."""

from __future__ import annotations

import json
import re

from integration.core.log_events import LOG_EVENTS
from tests.infra.templates import INFRA

PROJECT = INFRA.parent
ALERTS = (INFRA / "modules" / "alerts.bicep").read_text("utf-8")
WORKBOOK = json.loads((INFRA / "workbook.json").read_text("utf-8"))

EVENT = re.compile(r"['\"]([a-z_]+\.[a-z_]+)['\"]")


def queries() -> list[str]:
    asked = re.findall(r"'''(.*?)'''", ALERTS, re.S)
    return asked + [one["content"]["query"] for one in WORKBOOK["items"] if one["type"] == 3]


def test_every_query_is_to_the_logs_of_the_app() -> None:
    assert len(queries()) > 10
    for query in queries():
        assert query.strip().startswith("AppTraces"), query


def test_every_event_that_is_asked_for_is_logged() -> None:
    asked = {event for query in queries() for event in EVENT.findall(query)}
    assert asked
    assert asked <= set(LOG_EVENTS)


def test_every_event_that_is_asked_for_is_explained() -> None:
    explained = (PROJECT / "docs" / "operations.md").read_text("utf-8")
    asked = {event for query in queries() for event in EVENT.findall(query)}
    assert {event for event in asked if f"`{event}`" not in explained} == set()


def test_the_endings_that_are_asked_for_are_logged() -> None:
    endings = {e for query in queries() for e in re.findall(r"endswith '(\.[a-z_]+)'", query)}
    assert endings
    for ending in endings:
        assert [event for event in LOG_EVENTS if event.endswith(ending)]


def test_a_job_that_failed_tells_somebody() -> None:
    """Whoever started it may have gone home."""
    (query,) = re.findall(r"name: 'job'\n.*?'''(.*?)'''", ALERTS, re.S)
    assert EVENT.findall(query) == ["job.failed"]
    assert "where Message == 'job.failed'" in query
