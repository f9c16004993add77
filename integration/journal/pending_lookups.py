"""Lookups that stay empty until another resource has its row: who waits for which resource."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from integration.core.model import WorkItem


class PendingLookups(Protocol):
    """Every method raises Unavailable when the storage does not answer. `target` is `Type/id`."""

    async def add(self, target: str, item: WorkItem) -> None:
        """Record that `item.resource` waits for the row of `target`. Repeating it changes
        nothing."""

    async def list_waiting(self, target: str) -> Sequence[WorkItem]:
        """Return the work items that wait for `target`: all, or the first 1,000."""

    async def remove(self, target: str, item: WorkItem) -> None:
        """Record that `item.resource` waits no longer. Repeating it changes nothing."""


@dataclass(slots=True)
class MemoryPendingLookups:
    """The same contract in a dictionary, for tests."""

    items: dict[str, dict[str, WorkItem]] = field(default_factory=lambda: defaultdict(dict))

    async def add(self, target: str, item: WorkItem) -> None:
        self.items[target][item.resource or ""] = item

    async def list_waiting(self, target: str) -> Sequence[WorkItem]:
        return list(self.items.get(target, {}).values())

    async def remove(self, target: str, item: WorkItem) -> None:
        self.items.get(target, {}).pop(item.resource or "", None)
