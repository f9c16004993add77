"""Resources whose rows may be others from a day on, since something of them begins or ceases to be
in use then: an address, a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Protocol


@dataclass(frozen=True, slots=True)
class DueResource:
    """A resource, as `Type/id`, and the day."""

    day: date
    resource: str


class DueDays(Protocol):
    """Every method raises Unavailable when the storage does not answer."""

    async def add(self, due: DueResource) -> None:
        """Record a resource and its day. Repeating it changes nothing."""

    async def list_due(self, until: date, limit: int) -> Sequence[DueResource]:
        """Return up to `limit` resources whose day is `until`, or before. It reads no others."""

    async def remove(self, due: DueResource) -> None:
        """Remove what `add` recorded. Repeating it changes nothing."""


@dataclass(slots=True)
class MemoryDueDays:
    """The same contract in a set, for tests."""

    resources: set[DueResource] = field(default_factory=set)

    async def add(self, due: DueResource) -> None:
        self.resources.add(due)

    async def list_due(self, until: date, limit: int) -> Sequence[DueResource]:
        due = [item for item in self.resources if item.day <= until]
        return sorted(due, key=lambda item: (item.day, item.resource))[:limit]

    async def remove(self, due: DueResource) -> None:
        self.resources.discard(due)
