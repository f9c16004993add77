"""Converts values as they mostly are, by functions that are made for one column. Pure.

Nearly all text is plain and short enough, and nearly all dates are days of the calendar. What is
not so simple is left to `values`, which has the rules: a function here returns what `convert_value`
would return without a note, or UNUSUAL.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any, Final

from integration.core.model import Column
from integration.mapping.model import AttributeMap, Kind
from integration.mapping.values import (
    CHOICE_TYPES,
    FIRST_DAY,
    INSTANT,
    INTEGER_TYPES,
    KEPT_START,
    TEXT_TYPES,
    format_day,
)


class Unusual:
    """The type of UNUSUAL."""


UNUSUAL: Final = Unusual()

Convert = Callable[[Any], Any]

# Within these, no number is outside of its column by its digits alone.
_MAX_NUMBER = 10**9


def build_converter(attribute: AttributeMap, column: Column) -> Convert:
    """Return what converts the usual values of an attribute for its column."""
    match attribute.kind:
        case Kind.DATE:
            return _build_day_converter(column)
        case Kind.DATETIME:
            return _convert_instant
        case Kind.CHOICE:
            return _build_choice_converter(attribute, column)
        case Kind.COPY if column.type in TEXT_TYPES:
            return _build_text_converter(column)
        case Kind.COPY if column.type == "Boolean":
            return _convert_boolean
        case Kind.COPY if column.type in INTEGER_TYPES:
            return _build_integer_converter(column)
        case Kind.COPY if column.type in CHOICE_TYPES:
            return _build_option_converter(column.options)
    return lambda value: UNUSUAL


def parse_day(value: Any) -> date | Unusual:
    """Return the day of a date that has one."""
    if type(value) is not str or len(value) != 10 or value[4] != "-" or value[7] != "-":
        return UNUSUAL
    try:
        day = date.fromisoformat(value)
    except ValueError:
        return UNUSUAL
    return UNUSUAL if day < FIRST_DAY else day


def parse_instant(value: Any) -> datetime | Unusual:
    """Return an instant in UTC, in the whole seconds that Dataverse keeps."""
    if type(value) is not str or INSTANT.fullmatch(value) is None:
        return UNUSUAL
    try:
        instant = datetime.fromisoformat(value)
        if instant.tzinfo is None:
            return UNUSUAL
        if instant.tzinfo is not UTC:
            instant = instant.astimezone(UTC)
    except (ValueError, OverflowError):
        return UNUSUAL
    if instant.year <= FIRST_DAY.year:
        return UNUSUAL
    return instant.replace(microsecond=0) if instant.microsecond else instant


def _build_day_converter(column: Column) -> Convert:
    # The behavior of the column only adds a time to the day.
    behind = format_day(FIRST_DAY, column).removeprefix(FIRST_DAY.isoformat())

    def convert(value: Any) -> Any:
        return UNUSUAL if parse_day(value) is UNUSUAL else value + behind

    return convert


def _convert_instant(value: Any) -> Any:
    instant = parse_instant(value)
    if isinstance(instant, Unusual):
        return UNUSUAL
    if len(value) == 20:  # 2026-02-28T09:30:00Z
        return value
    return f"{instant.replace(tzinfo=None).isoformat()}Z"


def _build_choice_converter(attribute: AttributeMap, column: Column) -> Convert:
    found: dict[str, int | bool] = {}
    for code, options in attribute.choices.items():
        known = [option for option in options if column.options is None or option in column.options]
        if known:
            found[code] = bool(known[0]) if column.type == "Boolean" else known[0]

    def convert(value: Any) -> Any:
        if type(value) is str:
            return found.get(value, UNUSUAL)
        if type(value) is bool:
            return found.get("true" if value else "false", UNUSUAL)
        return UNUSUAL

    return convert


def _build_text_converter(column: Column) -> Convert:
    longest = _MAX_NUMBER if column.max_length is None else column.max_length
    strip = str.rstrip if column.format == KEPT_START else str.strip

    def convert(value: Any) -> Any:
        # What is printable has no breaks, and nothing that is forbidden.
        if type(value) is not str or not value.isprintable():
            return UNUSUAL
        text = strip(value)
        # A character has one or two units of UTF-16.
        if len(text) * 2 <= longest or (len(text) <= longest and text.isascii()):
            return text or None
        return UNUSUAL

    return convert


def _convert_boolean(value: Any) -> Any:
    return value if type(value) is bool else UNUSUAL


def _build_integer_converter(column: Column) -> Convert:
    minimum = -_MAX_NUMBER if column.minimum is None else max(column.minimum, -_MAX_NUMBER)
    maximum = _MAX_NUMBER if column.maximum is None else min(column.maximum, _MAX_NUMBER)

    def convert(value: Any) -> Any:
        return value if type(value) is int and minimum <= value <= maximum else UNUSUAL

    return convert


def _build_option_converter(options: frozenset[int] | None) -> Convert:
    def convert(value: Any) -> Any:
        is_option = type(value) is int and (options is None or value in options)
        return value if is_option else UNUSUAL

    return convert
