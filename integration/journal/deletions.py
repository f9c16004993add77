"""Deletions of resources that had no row when the mirror came to remove it.

Another worker may be creating the row just then, from what it read before. So each leaves word
before it looks: this one records the deletion and then looks for the row once more, the other one
creates the row and then looks for a deletion. One of the two finds the other. Reads of FHIR would
not tell: they may lag behind.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from integration.core.state_version import Order, StateVersion, compare


class Deletions(Protocol):
    """Every method raises Unavailable when the storage does not answer. `resource` is `Type/id`."""

    async def record(self, resource: str, deletion: StateVersion) -> None:
        """Record a deletion, unless a later one is recorded. Repeating it changes nothing."""

    async def find(self, resource: str) -> StateVersion | None:
        """Return the latest recorded deletion; None: there is none."""

    async def forget(self, resource: str, deletion: StateVersion) -> None:
        """Remove a deletion, unless a later one is recorded. Repeating it changes nothing."""


def is_recorded_later(deletion: StateVersion, recorded: StateVersion | None) -> bool:
    """Whether the recorded deletion stays, since it is the same or a later one. Pure."""
    if recorded is None:
        return False
    if recorded.updated is None and deletion.updated is not None and recorded.id == deletion.id:
        return False  # an event states no time, the history does
    return compare(deletion, recorded) in (Order.SAME, Order.OLDER, Order.PROBABLY_OLDER)


@dataclass(slots=True)
class MemoryDeletions:
    """The same contract in a dictionary, for tests."""

    recorded: dict[str, StateVersion] = field(default_factory=dict)

    async def record(self, resource: str, deletion: StateVersion) -> None:
        if not is_recorded_later(deletion, self.recorded.get(resource)):
            self.recorded[resource] = deletion

    async def find(self, resource: str) -> StateVersion | None:
        return self.recorded.get(resource)

    async def forget(self, resource: str, deletion: StateVersion) -> None:
        if self.recorded.get(resource) == deletion:
            del self.recorded[resource]
