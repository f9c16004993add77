"""Which resources have a lookup that is empty until another resource has its row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from integration.core.model import WorkItem


class PendingLookups(Protocol):
    """Every method raises Unavailable when the storage does not answer. Resources as Type/id."""

    async def add(self, target: str, item: WorkItem) -> None:
        """The resource of this claim waits for `target`. Repeating it changes nothing."""

    async def list_waiting(self, target: str) -> Sequence[WorkItem]:
        """Who waits for it: as many as one request tells, which is 1,000 or all."""

    async def remove(self, target: str, item: WorkItem) -> None:
        """It waits no longer. Repeating it changes nothing."""


@dataclass(slots=True)
class MemoryPendingLookups:
    """The double: the same contract in a dictionary."""

    items: dict[str, dict[str, WorkItem]] = field(default_factory=lambda: defaultdict(dict))

    async def add(self, target: str, item: WorkItem) -> None:
        self.items[target][item.resource or ""] = item

    async def list_waiting(self, target: str) -> Sequence[WorkItem]:
        return list(self.items.get(target, {}).values())

    async def remove(self, target: str, item: WorkItem) -> None:
        self.items.get(target, {}).pop(item.resource or "", None)
