"""How many requests of senders one worker has refused since it started: in memory alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

# Not proven, not allowed, too much.
_COUNTED = frozenset({401, 403, 429})


@dataclass(frozen=True, slots=True)
class RefusalCount:
    """So many answers of one status. `sender`: whose address it was; None: of no listed sender."""

    sender: str | None
    status: int
    count: int


@dataclass(slots=True)
class RefusalCounts:
    """Counts by sender and status. There are as many counters as listed senders, times three."""

    _counts: Counter[tuple[str, int]] = field(default_factory=Counter)

    def add(self, sender: str | None, status: int) -> None:
        """Count an answer, if its status is one of those that are counted."""
        if status in _COUNTED:
            self._counts[sender or "", status] += 1

    def list_counts(self) -> tuple[RefusalCount, ...]:
        """Return the counts by sender, those of no listed sender first."""
        return tuple(
            RefusalCount(sender or None, status, count)
            for (sender, status), count in sorted(self._counts.items())
        )
