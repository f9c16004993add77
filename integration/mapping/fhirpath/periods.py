"""Which items of a resource are over: those whose `period` ended before a day, or whose `use` is
`old`. Pure.

FHIR has many things that repeat and come to an end: names, addresses, numbers, contacts. An entity
map chooses among them, and what is over is the last choice. FHIRPath has no function for that, so
maps have two: `endedLast()` and `current()`. They ask for no day: items are marked before, when the
resource is copied.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Mapping
from datetime import date
from typing import Any

# An element of an item that is over. Unicode has no such character, so no resource has it.
_ENDED = "\ufdd1"


def find_last_day(period: object) -> date | None:
    """Return the last day of a period, as it is stated: 2024-05 ends with the 31st. None: it has no
    end, or none that can be read. A time counts in its own zone."""
    end = period.get("end") if isinstance(period, Mapping) else None
    if not isinstance(end, str):
        return None
    try:
        numbers = [int(part) for part in end[:10].split("-")]
        year, month = numbers[0], numbers[1] if len(numbers) > 1 else 12
        day = numbers[2] if len(numbers) > 2 else monthrange(year, month)[1]
        return date(year, month, day)
    except (ValueError, IndexError):  # calendar raises what is a ValueError, too
        return None


def mark_ended(item: dict[str, Any]) -> None:
    """Mark an item that is over."""
    item[_ENDED] = True


def is_ended(value: Any) -> bool:
    """Whether an item is marked."""
    return type(value) is dict and _ENDED in value


def put_ended_last(values: list[Any]) -> list[Any]:
    """Return the same items, in their order, those that are over after the others."""
    if len(values) < 2:
        return values
    return sorted(values, key=is_ended)


def drop_ended(values: list[Any]) -> list[Any]:
    """Return the items that are not over."""
    return [value for value in values if not is_ended(value)]
