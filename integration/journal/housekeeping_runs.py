"""The last run of housekeeping: its contract, and an implementation in memory for tests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class HousekeepingRun:
    """A run that has ended, and what it did: deliveries that were queued, parked and forgotten,
    and how many write locks, entries of both logs and stale concerns were deleted. `rows`: that are
    mirrored again, since their day has come; `failed`: steps that failed; `more`: the next run goes
    on."""

    began: datetime
    ended: datetime
    queued: int = 0
    parked: int = 0
    forgotten: int = 0
    locks: int = 0
    activity: int = 0
    audit: int = 0
    concerns: int = 0
    rows: int = 0
    failed: int = 0
    more: bool = False


class HousekeepingRuns(Protocol):
    """Every method raises Unavailable when the storage does not answer."""

    async def save_last_run(self, run: HousekeepingRun) -> None:
        """Record a run in the place of the one before it."""

    async def get_last_run(self) -> HousekeepingRun | None:
        """Return the last recorded run; None: none is recorded."""


@dataclass(slots=True)
class MemoryHousekeepingRuns:
    """The same contract in a variable, for tests."""

    last: HousekeepingRun | None = None

    async def save_last_run(self, run: HousekeepingRun) -> None:
        self.last = run

    async def get_last_run(self) -> HousekeepingRun | None:
        return self.last
