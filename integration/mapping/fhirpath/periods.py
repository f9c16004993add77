"""Which items of a resource are in use on a day: by their `period`, and by their `use`. Pure.

FHIR has many things that repeat and begin and end: names, addresses, numbers, contacts. An entity
map chooses among them, and what is not in use is the last choice. FHIRPath has no function for
that, so maps have two: `currentFirst()` and `current()`. They ask for no day: items that are not in
use are marked before, when the resource is copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import Any

# An element of an item that is not in use. Unicode has no such character, so no resource has it.
_NOT_IN_USE = "\ufdd1"


def find_days(period: object) -> tuple[date | None, date | None]:
    """Return the first and the last day of a period, as they are stated: 2024-05 begins with the
    1st and ends with the 31st. None: none is stated, or none that can be read. A time counts in its
    own zone."""
    if not isinstance(period, Mapping):
        return None, None
    first, last = _find_days(period.get("start")), _find_days(period.get("end"))
    return first and first[0], last and last[1]


def _find_days(stated: object) -> tuple[date, date] | None:
    """Return the first and the last day of a date, or a date and time, that may be partial."""
    if not isinstance(stated, str):
        return None
    try:
        first = date.fromisoformat((stated[:10] + "-01-01")[:10])
    except ValueError:
        return None
    match stated[:10].count("-"):
        case 0:
            return first, first.replace(month=12, day=31)
        case 1:
            # The 28th and four days are in the next month, always.
            next_month = first.replace(day=28) + timedelta(days=4)
            return first, next_month - timedelta(days=next_month.day)
    return first, first


def is_in_use(item: Mapping[str, Any], today: date) -> bool:
    """Whether an item is in use. `old` says that it is not:
    https://hl7.org/fhir/R4/valueset-name-use.html"""
    if item.get("use") == "old":
        return False
    first, last = find_days(item.get("period"))
    return (first is None or first <= today) and (last is None or last >= today)


def list_changes(item: Mapping[str, Any], today: date) -> Iterator[date]:
    """Yield the days after this one on which an item begins or ceases to be in use."""
    first, last = find_days(item.get("period"))
    if item.get("use") == "old":
        return
    if first is not None and first > today:
        yield first
    if last is not None and today <= last < date.max:
        yield last + timedelta(days=1)


def mark_as_not_in_use(item: dict[str, Any]) -> None:
    """Mark an item that is not in use."""
    item[_NOT_IN_USE] = True


def is_marked(value: Any) -> bool:
    """Whether an item is marked as not in use."""
    return type(value) is dict and _NOT_IN_USE in value


def put_current_first(values: list[Any]) -> list[Any]:
    """Return the same items in their order, those that are not in use after the others."""
    return sorted(values, key=is_marked) if len(values) > 1 else values


def keep_current(values: list[Any]) -> list[Any]:
    """Return the items that are in use."""
    return [value for value in values if not is_marked(value)]
