"""docs/operations.md shows the table of log events as the code has it, and code logs no other way."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator

import pytest

from integration.core.log_events import LOG_EVENTS, LogEvent
from tests import house

PAGE = house.PROJECT / "docs/operations.md"


def row_of(name: str, event: LogEvent) -> str:
    """The event's line of the table."""
    levels = [logging.getLevelName(level).lower() for level in event.levels]
    level = levels[0] if len(levels) == 1 else f"{levels[0]}; {levels[1]} when {event.when}"
    fields = ", ".join(f"`{field}`" for field in event.fields) or "none"
    return f"| `{name}` | {level} | {fields} | {event.meaning} |"


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of log_event, and where it stands."""
    for path in house.modules():
        for node in house.nodes(path):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "log_event":
                yield f"{house.name_of(path)}:{node.lineno}", node


def test_the_page_shows_every_event_and_no_other() -> None:
    table = PAGE.read_text("utf-8").partition("## Log events\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `.*\|$", table, re.M)
    assert rows == [row_of(name, event) for name, event in LOG_EVENTS.items()]


def test_every_event_is_logged_somewhere() -> None:
    text = "".join(
        path.read_text("utf-8") for path in house.modules() if "log_events" not in path.name
    )
    assert [name for name in LOG_EVENTS if f'"{name}"' not in text] == []


CALLS = list(calls())


@pytest.mark.parametrize(("where", "call"), CALLS, ids=[where for where, _ in CALLS])
def test_a_call_gives_every_field_of_its_event_and_no_other(where: str, call: ast.Call) -> None:
    given = {keyword.arg for keyword in call.keywords} - {"is_warning"}
    event = call.args[0]
    if isinstance(event, ast.Constant):
        assert given == set(LOG_EVENTS[event.value].fields), where
    else:  # a word for each kind of notification, none of which has fields
        assert given == set(), where


def test_the_names_of_events_are_a_noun_and_a_verb() -> None:
    assert [name for name in LOG_EVENTS if not re.fullmatch(r"[a-z_]+\.[a-z_]+", name)] == []


def test_no_module_logs_in_another_way() -> None:
    """Another way to log would escape the table, and perhaps the rule that no value is logged."""
    pattern = re.compile(
        r"\b(?:log|logging|logger|_log)\.(?:debug|info|warning|error|exception|log)\("
    )
    others = [
        house.name_of(path) for path in house.modules() if pattern.search(path.read_text("utf-8"))
    ]
    assert others == ["core.log_events"]
