"""Whose turn it is to write a resource, and who has written it last.

One row for each resource that senders name themselves, under a digest: no identifier of a patient
is in it. docs/decisions/0006-the-order-of-deliveries.md says why, and what it costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Turn:
    """One resource's row. Moments in seconds since 1970; deliveries by id, which sort by time."""

    holder: str = ""  # who may write it now
    until: float = 0.0  # and nobody else before this moment
    delivery: str = ""  # the last that has written it
    stamp: str | None = None  # what the source said of the order of that write
    trier: str = ""  # "delivery unit" whose write is under way, or ended without an answer
    tried: float = 0.0  # when that was first tried
    etag: str | None = None  # None: there is no such row yet


class Ledger(Protocol):
    """Every method raises Unavailable when the storage does not answer."""

    async def read(self, keys: Sequence[str]) -> dict[str, Turn]:
        """The rows that exist."""

    async def write(self, turns: Mapping[str, Turn]) -> dict[str, Turn]:
        """Write each row if nobody has since it was read. Those that are written, with new etags;
        the rest is as others have left it."""

    async def forget(self, before: str, now: float, most: int) -> int:
        """Remove up to `most` free rows last written by deliveries before this id. How many."""


@dataclass(slots=True)
class MemoryLedger:
    """The double: the same contract in a dictionary."""

    turns: dict[str, Turn] = field(default_factory=dict)
    writes: int = 0

    async def read(self, keys: Sequence[str]) -> dict[str, Turn]:
        return {key: self.turns[key] for key in keys if key in self.turns}

    async def write(self, turns: Mapping[str, Turn]) -> dict[str, Turn]:
        written = {}
        for key, turn in turns.items():
            known = self.turns.get(key)
            if (known.etag if known else None) == turn.etag:
                self.writes += 1
                self.turns[key] = written[key] = replace(turn, etag=str(self.writes))
        return written

    async def forget(self, before: str, now: float, most: int) -> int:
        old = [key for key, turn in self.turns.items() if is_old(turn, before, now)][:most]
        for key in old:
            del self.turns[key]
        return len(old)


def is_old(turn: Turn, before: str, now: float) -> bool:
    """Whether no delivery that is still kept can ask for it. Pure."""
    return turn.delivery < before and turn.trier < before and turn.until < now
