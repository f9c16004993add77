"""Whose turn it is to write a resource, and who has written it last.

One row for each resource that senders name themselves, under a digest: no identifier of a patient
is in it. docs/decisions/0006-the-order-of-deliveries.md says why, and what it costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol


@dataclass(frozen=True, slots=True)
class WriteLock:
    """One resource's row. Moments in seconds since 1970; deliveries by id, which sort by time."""

    holder: str = ""  # who may write it now
    expires_at: float = 0.0  # and nobody else before this moment
    written_by: str = ""  # the last that has written it
    source_version: str | None = None  # what the source said of the order of that write
    attempted_by: str = ""  # "delivery unit" whose write is under way, or ended without an answer
    attempted_at: float = 0.0  # when that was first tried
    etag: str | None = None  # None: there is no such row yet


class GuardStore(Protocol):
    """Every method raises Unavailable when the storage does not answer."""

    async def read(self, keys: Sequence[str]) -> dict[str, WriteLock]:
        """The rows that exist."""

    async def write(self, locks: Mapping[str, WriteLock]) -> dict[str, WriteLock]:
        """Write each row if nobody has since it was read. Those that are written, with new etags;
        the rest is as others have left it."""

    async def delete_old(self, before: str, now: float, limit: int) -> int:
        """Remove up to `most` free rows last written by deliveries before this id. How many."""


@dataclass(slots=True)
class MemoryGuardStore:
    """The double: the same contract in a dictionary."""

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
    """Whether no delivery that is still kept can ask for it. Pure."""
    return lock.written_by < before and lock.attempted_by < before and lock.expires_at < now
