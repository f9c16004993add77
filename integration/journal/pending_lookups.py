"""Which resources have a lookup of the row of another one: those that wait for it, since it is not
there yet, and those that point at it, and will wait for it if it goes and comes again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class LookupState(StrEnum):
    """What a resource has to do with the row of another one."""

    WAITING = "waiting"  # its lookup is empty
    LINKED = "linked"  # its lookup points at the row, or once did


class PendingLookups(Protocol):
    """Every method raises Unavailable when the storage does not answer. `target`, the resource that
    is referred to, and `resource`, the one that refers to it, are `Type/id`."""

    async def add(self, target: str, resource: str, state: LookupState) -> None:
        """Record that `resource` has a lookup of the row of `target`. Repeating it changes
        nothing."""

    async def list_resources(self, target: str, state: LookupState) -> Sequence[str]:
        """Return the resources with a lookup of the row of `target`: all, or the first 1,000."""

    async def remove(self, target: str, resource: str, state: LookupState) -> None:
        """Remove what `add` recorded. Repeating it changes nothing."""


@dataclass(slots=True)
class MemoryPendingLookups:
    """The same contract in a dictionary, for tests. `page`: resources of one answer, at most."""

    resources: dict[tuple[LookupState, str], dict[str, None]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    page: int = 1000

    async def add(self, target: str, resource: str, state: LookupState) -> None:
        self.resources[state, target][resource] = None

    async def list_resources(self, target: str, state: LookupState) -> Sequence[str]:
        return list(self.resources.get((state, target), ()))[: self.page]

    async def remove(self, target: str, resource: str, state: LookupState) -> None:
        self.resources[state, target].pop(resource, None)
