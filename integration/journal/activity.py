"""What the activity log promises, and the in-memory double that keeps the same promises."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from integration.core.model import Activity, Category
from integration.journal.keys import activity_key, day_of


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries are asked for: all these must hold."""

    since: datetime | None = None
    until: datetime | None = None
    category: Category | None = None
    upstream: str | None = None
    delivery: str | None = None
    resource: str | None = None  # Type/id, or all of a Type
    table: str | None = None
    row: str | None = None
    action: str | None = None  # how it begins
    status: str | None = None
    duration: int | None = None  # milliseconds, at least


@dataclass(frozen=True, slots=True)
class ActivityPage:
    """Entries, newest first; `after` continues the list, None at its end. A page may have fewer
    entries than there is room for, or none, and yet be continued: looking took too long."""

    entries: tuple[Activity, ...]
    after: str | None


class ActivityLog(Protocol):
    """Every method raises Unavailable when the storage does not answer."""

    async def note(self, entries: Sequence[Activity]) -> None:
        """Add entries, in the order in which they came."""

    async def page(self, wanted: Wanted, top: int, after: str | None) -> ActivityPage:
        """Entries, newest first. Raises ValueError for an `after` that no page has given."""

    async def forget(self, before: datetime, most: int) -> int:
        """Remove up to `most` entries of the whole days before this moment's. How many."""


@dataclass(slots=True)
class MemoryActivityLog:
    """The double: the same contract in a list."""

    noted: list[tuple[str, str, Activity]] = field(default_factory=list)

    @property
    def entries(self) -> list[Activity]:
        """All of them, the oldest first."""
        return [entry for _, _, entry in reversed(self.noted)]

    async def note(self, entries: Sequence[Activity]) -> None:
        for entry in entries:
            insort(self.noted, (*activity_key(entry.time, len(self.noted)), entry), key=_key)

    async def page(self, wanted: Wanted, top: int, after: str | None) -> ActivityPage:
        keys = [row for _, row, _ in self.noted]
        if after is not None and after not in keys:
            raise ValueError("no page has given this")
        found = [
            (row, entry)
            for _, row, entry in self.noted
            if matches(entry, wanted) and (after is None or row > after)
        ]
        page = found[:top]
        entries = tuple(entry for _, entry in page)
        return ActivityPage(entries, page[-1][0] if len(found) > top else None)

    async def forget(self, before: datetime, most: int) -> int:
        old = [each for each in self.noted if each[0] > day_of(before)][:most]
        self.noted = [each for each in self.noted if each not in old]
        return len(old)


def matches(entry: Activity, wanted: Wanted) -> bool:
    """Whether an entry is asked for. Pure."""
    same = ("category", "upstream", "delivery", "table", "row", "status")
    return (
        (wanted.since is None or entry.time >= wanted.since)
        and (wanted.until is None or entry.time <= wanted.until)
        and all(getattr(wanted, name) in (None, getattr(entry, name)) for name in same)
        and _is_of(entry.resource or "", wanted.resource)
        and entry.action.startswith(wanted.action or "")
        and (wanted.duration is None or entry.duration >= wanted.duration)
    )


def _is_of(resource: str, wanted: str | None) -> bool:
    if wanted is None or "/" in wanted:
        return wanted in (None, resource)
    return resource.startswith(f"{wanted}/")


def _key(noted: tuple[str, str, Activity]) -> tuple[str, str]:
    return noted[:2]
