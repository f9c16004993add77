"""NCRONTAB: six fields from seconds to day of week, or five from minutes. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta

# https://learn.microsoft.com/azure/azure-functions/functions-bindings-timer#ncrontab-expressions
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (
    ("second", 0, 59, ()),
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day", 1, 31, ()),
    ("month", 1, 12, ("", *_MONTHS)),
    ("day of week", 0, 6, _DAYS),
)
_ITEM = re.compile(r"(?:(\*)|(\w+)(?:-(\w+))?)(?:/(\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]


def parse(expression: str) -> Schedule:
    """Parse a schedule. Raises ValueError that names the invalid field."""
    parts = expression.split()
    if len(parts) == 5:
        parts.insert(0, "0")
    if len(parts) != 6:
        raise ValueError(f"schedule {expression!r}: expected five or six fields")
    fields = (_parse_field(*pair) for pair in zip(parts, _FIELDS, strict=True))
    seconds, minutes, hours, days, months, weekdays = fields
    return Schedule(
        seconds=seconds, minutes=minutes, hours=hours, days=days, months=months, weekdays=weekdays
    )


def find_next(schedule: Schedule, after: datetime) -> datetime:
    """Return the first occurrence after this time. A day must match both day and day of week.

    Raises ValueError if there is none.
    """
    start = after.replace(microsecond=0) + timedelta(seconds=1)
    for offset in range(366 * 9):  # 29 February comes at least once in nine years
        day = start.date() + timedelta(days=offset)
        weekday = day.isoweekday() % 7
        if (
            day.month in schedule.months
            and day.day in schedule.days
            and weekday in schedule.weekdays
            and (found := _find_time(schedule, start.time() if offset == 0 else time()))
        ):
            return datetime.combine(day, found, after.tzinfo)
    raise ValueError("the schedule never occurs")


def _find_time(schedule: Schedule, earliest: time) -> time | None:
    for hour in (h for h in schedule.hours if h >= earliest.hour):
        for minute in schedule.minutes:
            for second in schedule.seconds:
                if (found := time(hour, minute, second)) >= earliest:
                    return found
    return None


def _parse_field(text: str, field: tuple[str, int, int, tuple[str, ...]]) -> tuple[int, ...]:
    name, low, high, _ = field
    values: set[int] = set()
    for item in text.lower().split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise ValueError(f"{name} {text!r}: cannot be read")
        star, first, last, step = match.groups()
        begin = low if star else _parse_number(first, field)
        end = high if star or (step and not last) else _parse_number(last or first, field)
        if not low <= begin <= end <= high or step == "0":
            raise ValueError(f"{name} {text!r}: expected {low} to {high}")
        values.update(range(begin, end + 1, int(step or 1)))
    return tuple(sorted(values))


def _parse_number(text: str, field: tuple[str, int, int, tuple[str, ...]]) -> int:
    name, _, _, names = field
    if text in names and text:
        return names.index(text)
    if not text.isdecimal():
        raise ValueError(f"{name} {text!r}: cannot be read")
    return int(text)
