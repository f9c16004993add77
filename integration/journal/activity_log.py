"""The activity log: its contract, and an implementation in memory for tests."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from integration.core.model import HEALTH_ACTION, Activity, Category
from integration.journal.bounds import bound_notes
from integration.journal.table_keys import build_activity_key, get_day_partition


@dataclass(frozen=True, slots=True)
class ActivityFilter:
    """Which entries to list: those for which all of these hold; None: any."""

    since: datetime | None = None
    until: datetime | None = None
    category: Category | None = None
    upstream: str | None = None
    delivery: str | None = None
    resource: str | None = None  # Type/id, or all of a Type
    table: str | None = None
    row: str | None = None
    action: str | None = None  # its first characters
    status: str | None = None
    duration: int | None = None  # at least so many milliseconds
    operation: str | None = None
    hides_health: bool = False  # leave out the calls that ask upstreams whether they answer


@dataclass(frozen=True, slots=True)
class ActivityPage:
    """Entries, newest first. `after`: where the next page begins; None: there is no more. A page
    may be short, or empty, and have a next one: the search is cut off when it takes too long."""

    entries: tuple[Activity, ...]
    after: str | None


class ActivityLog(Protocol):
    """Every method raises Unavailable when the storage does not answer."""

    async def add(self, entries: Sequence[Activity]) -> None:
        """Add entries, the oldest first. Of many notes the first are kept: see bounds."""

    async def list_entries(
        self, criteria: ActivityFilter, limit: int, after: str | None
    ) -> ActivityPage:
        """Return up to `limit` entries, newest first, from `after` on. Raises ValueError for an
        `after` that no page has returned."""

    async def delete_before(self, before: datetime, limit: int) -> int:
        """Delete up to `limit` entries of the days before that of `before`. Return how many were
        deleted."""


@dataclass(slots=True)
class MemoryActivityLog:
    """The same contract in a list, for tests."""

    records: list[tuple[str, str, Activity]] = field(default_factory=list)

    @property
    def entries(self) -> list[Activity]:
        """Return all entries, the oldest first."""
        return [entry for _, _, entry in reversed(self.records)]

    async def add(self, entries: Sequence[Activity]) -> None:
        for entry in entries:
            insort(
                self.records,
                (
                    *build_activity_key(entry.time, len(self.records)),
                    replace(entry, notes=bound_notes(entry.notes)),
                ),
                key=_get_key,
            )

    async def list_entries(
        self, criteria: ActivityFilter, limit: int, after: str | None
    ) -> ActivityPage:
        keys = [row for _, row, _ in self.records]
        if after is not None and after not in keys:
            raise ValueError("no page has returned this position")
        found = [
            (row, entry)
            for _, row, entry in self.records
            if matches(entry, criteria) and (after is None or row > after)
        ]
        page = found[:limit]
        entries = tuple(entry for _, entry in page)
        return ActivityPage(entries, page[-1][0] if len(found) > limit else None)

    async def delete_before(self, before: datetime, limit: int) -> int:
        old = [record for record in self.records if record[0] > get_day_partition(before)][:limit]
        self.records = [record for record in self.records if record not in old]
        return len(old)


def matches(entry: Activity, criteria: ActivityFilter) -> bool:
    """Whether an entry meets all criteria. Pure."""
    equal_fields = ("category", "upstream", "delivery", "table", "row", "status", "operation")
    return (
        (criteria.since is None or entry.time >= criteria.since)
        and (criteria.until is None or entry.time <= criteria.until)
        and all(getattr(criteria, name) in (None, getattr(entry, name)) for name in equal_fields)
        and _matches_resource(entry.resource or "", criteria.resource)
        and not (criteria.hides_health and entry.action == HEALTH_ACTION)
        and entry.action.startswith(criteria.action or "")
        and (criteria.duration is None or entry.duration >= criteria.duration)
    )


def _matches_resource(resource: str, required: str | None) -> bool:
    if required is None or "/" in required:
        return required in (None, resource)
    return resource.startswith(f"{required}/")


def _get_key(record: tuple[str, str, Activity]) -> tuple[str, str]:
    return record[:2]
