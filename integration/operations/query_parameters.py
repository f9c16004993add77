"""Parse the query parameters of the operators' endpoints. Each function raises Rejected. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

from integration.core.errors import Issue, Rejected
from integration.journal.table_keys import is_delivery_id

DEFAULT_COUNT = "50"
_MAX_COUNT = 500

_Choice = TypeVar("_Choice", bound=StrEnum)


def parse_choice(text: str | None, choices: type[_Choice], name: str) -> _Choice | None:
    """Parse one of the values of an enumeration. None: the parameter is missing."""
    if text is None:
        return None
    if text not in set(choices):
        raise _make_error(name, f"{name} must be one of {', '.join(choices)}")
    return choices(text)


def parse_flag(text: str | None, name: str) -> bool:
    """Parse `true` or `false`. Without the parameter it is false."""
    if text not in (None, "true", "false"):
        raise _make_error(name, f"{name} must be true or false")
    return text == "true"


def parse_count(text: str) -> int:
    """Parse `_count`, the length of a page."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _MAX_COUNT:
        raise _make_error("_count", f"_count must be a number from 1 to {_MAX_COUNT}")
    return int(text)


def parse_after(text: str | None) -> str | None:
    """Parse `after`, the last delivery of the page before."""
    if text is not None and not is_delivery_id(text):
        raise _make_error("after", "after must be the id of a delivery")
    return text


def parse_milliseconds(text: str, name: str) -> int:
    """Parse a duration."""
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise _make_error(name, f"{name} must be a whole number of milliseconds")
    return int(text)


def parse_datetime(params: Mapping[str, str], name: str) -> datetime | None:
    """Parse a date, which means its first moment in UTC, or a date and time with a time zone.

    https://hl7.org/fhir/R4/datatypes.html#dateTime. None: the parameter is missing.
    """
    text = params.get(name)
    if text is None:
        return None
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        value = None
    if value is not None and len(text) == len("2026-03-02"):
        value = value.replace(tzinfo=UTC)
    if value is None or value.tzinfo is None or not 1970 < value.year < 2200:
        example = "2026-03-02 (in UTC) or 2026-03-02T07:30:00Z"
        raise _make_error(name, f"{name} must be a date, or a date and time: {example}")
    return value


def _make_error(name: str, text: str) -> Rejected:
    return Rejected(Issue("value", text, name))
