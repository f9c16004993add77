"""Put what needs attention for the same reason together. Pure.

One cause, such as a role that was taken away, stops a thousand things: that is one line to read,
and one thing to mend.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from integration.journal.concern import Concern, ConcernKind


@dataclass(frozen=True, slots=True)
class ConcernGroupLine:
    """Things of one kind and sender with one reason: the newest first, and at least one."""

    concerns: tuple[Concern, ...]

    @property
    def newest(self) -> Concern:
        return self.concerns[0]

    @property
    def is_one(self) -> bool:
        """Whether it is a single thing, which a line shows whole."""
        return len(self.concerns) == 1

    @property
    def oldest_since(self) -> datetime:
        return min(concern.since for concern in self.concerns)

    @property
    def attempts(self) -> int:
        """The most attempts that one of them has had."""
        return max(concern.attempts for concern in self.concerns)

    @property
    def next_attempt(self) -> datetime | None:
        """When the first of them is tried again."""
        return min(
            (concern.next_attempt for concern in self.concerns if concern.next_attempt),
            default=None,
        )


def group_concerns(concerns: Iterable[Concern]) -> list[ConcernGroupLine]:
    """Return the groups, in the order of the newest of each."""
    found: dict[tuple[ConcernKind, str, str], list[Concern]] = {}
    for concern in concerns:
        found.setdefault((concern.kind, concern.sender, concern.reason), []).append(concern)
    return [ConcernGroupLine(tuple(group)) for group in found.values()]
