"""The audit log: its contract, and an implementation in memory for tests."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from integration.journal.audit_entry import AccessKind, AuditEntry
from integration.journal.table_keys import get_day_partition


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which entries to list: those for which all of these hold; None: any."""

    since: datetime | None = None
    until: datetime | None = None
    sender: str | None = None
    user: str | None = None
    resource: str | None = None  # Type/id, or all of a Type
    delivery: str | None = None
    kind: AccessKind | None = None


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Entries, newest first. `after`: where the next page begins; None: there is no more. A page
    may be short, or empty, and have a next one: the search is cut off when it takes too long."""

    entries: tuple[AuditEntry, ...]
    after: str | None


class AuditLog(Protocol):
    """Every method raises Unavailable when the storage does not answer."""

    async def put(self, entry: AuditEntry) -> None:
        """Add an entry, or write over the one with its id."""

    async def list_entries(self, criteria: AuditFilter, limit: int, after: str | None) -> AuditPage:
        """Return up to `limit` entries, newest first, from `after` on. Raises ValueError for an
        `after` that no page has returned."""

    async def delete_before(self, before: datetime, limit: int) -> int:
        """Delete up to `limit` entries of the days before that of `before`. Return how many were
        deleted."""


@dataclass(slots=True)
class MemoryAuditLog:
    """The same contract in a list, for tests."""

    records: list[tuple[str, str, AuditEntry]] = field(default_factory=list)

    @property
    def entries(self) -> list[AuditEntry]:
        """Return all entries, the oldest first."""
        return [entry for _, _, entry in reversed(self.records)]

    async def put(self, entry: AuditEntry) -> None:
        self.records = [record for record in self.records if record[1] != entry.id]
        insort(self.records, (get_day_partition(entry.time), entry.id, entry), key=_get_key)

    async def list_entries(self, criteria: AuditFilter, limit: int, after: str | None) -> AuditPage:
        if after is not None and after not in [id_ for _, id_, _ in self.records]:
            raise ValueError("no page has returned this position")
        found = [
            entry
            for _, id_, entry in self.records
            if matches(entry, criteria) and (after is None or id_ > after)
        ]
        page = tuple(found[:limit])
        return AuditPage(page, page[-1].id if len(found) > limit else None)

    async def delete_before(self, before: datetime, limit: int) -> int:
        old = [record for record in self.records if record[0] > get_day_partition(before)][:limit]
        self.records = [record for record in self.records if record not in old]
        return len(old)


def matches(entry: AuditEntry, criteria: AuditFilter) -> bool:
    """Whether an entry meets all criteria. Pure."""
    reader, access = entry.reader, entry.access
    return (
        (criteria.since is None or entry.time >= criteria.since)
        and (criteria.until is None or entry.time <= criteria.until)
        and criteria.sender in (None, reader.sender)
        and criteria.user in (None, reader.user)
        and criteria.delivery in (None, access.delivery)
        and criteria.kind in (None, access.kind)
        and (criteria.resource is None or criteria.resource in (*access.types, *access.resources))
    )


def _get_key(record: tuple[str, str, AuditEntry]) -> tuple[str, str]:
    return record[:2]
