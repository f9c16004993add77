"""Where the write guard keeps its locks: one row for each resource that senders can name.

A row outlives its lock. It says who may write the resource now, which delivery wrote it last, and
whose attempt may still be at work. Rows are keyed by a digest, so that they hold no identifier of
a patient. docs/decisions/0020-the-resource-carries-the-order.md says why there is a guard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteLock:
    """The row of one resource. Times are seconds since 1970.

    `holder` is empty while the lock is free. Else it is the token of the unit that holds the lock,
    or, after an answer was lost, the id of the delivery that alone may acquire it again. A lock
    that has expired is free, whatever its holder.

    Delivery ids sort by the time of acceptance, so that ids say which delivery is later.
    """

    holder: str = ""
    expires_at: float = 0.0
    written_by: str = ""  # the delivery that wrote the resource last
    source_version: str | None = None  # where the source places that write among others, if it does
    attempted_by: str = ""  # "delivery unit" whose attempt has no known end
    etag: str | None = None  # None: the row does not exist yet


class GuardStore(Protocol):
    """Every method raises Unavailable when the storage does not answer."""

    async def read(self, keys: Sequence[str]) -> dict[str, WriteLock]:
        """Return the rows that exist."""

    async def write(self, locks: Mapping[str, WriteLock]) -> dict[str, WriteLock]:
        """Write each row if nobody has written it since it was read. Return the rows that were
        written, with their new etags."""

    async def delete_old(self, before: str, now: float, limit: int) -> int:
        """Delete up to `limit` free rows that only deliveries before this id have written or
        attempted. Return how many were deleted."""


@dataclass(slots=True)
class MemoryGuardStore:
    """The same contract in a dictionary, for tests."""

    locks: dict[str, WriteLock] = field(default_factory=dict)
    writes: int = 0

    async def read(self, keys: Sequence[str]) -> dict[str, WriteLock]:
        return {key: self.locks[key] for key in keys if key in self.locks}

    async def write(self, locks: Mapping[str, WriteLock]) -> dict[str, WriteLock]:
        written = {}
        for key, lock in locks.items():
            current = self.locks.get(key)
            if (current.etag if current else None) == lock.etag:
                self.writes += 1
                self.locks[key] = written[key] = replace(lock, etag=str(self.writes))
        return written

    async def delete_old(self, before: str, now: float, limit: int) -> int:
        old = [key for key, lock in self.locks.items() if is_old(lock, before, now)][:limit]
        for key in old:
            del self.locks[key]
        return len(old)


def is_old(lock: WriteLock, before: str, now: float) -> bool:
    """Whether no delivery that is still kept can need this row. Pure."""
    return lock.written_by < before and lock.attempted_by < before and lock.expires_at < now
