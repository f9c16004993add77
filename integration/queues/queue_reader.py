"""How long a queue is, and how old: what is promised, and the in-memory double."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class QueueState:
    """`length`: messages, about, with those that are invisible: under way, or delayed. `oldest`:
    when the first visible message was put in; None: none is visible."""

    length: int
    oldest: datetime | None


class QueueReader(Protocol):
    """Looks at queues, and changes nothing. Raises Unavailable when the storage does not answer."""

    async def measure(self, queue: str) -> QueueState:
        """Return the state of a queue. One that does not exist is empty: the host creates a poison
        queue with its first message."""


@dataclass(slots=True)
class MemoryQueueReader:
    """The in-memory double: states by queue."""

    states: Mapping[str, QueueState] = field(default_factory=dict)

    async def measure(self, queue: str) -> QueueState:
        return self.states.get(queue, QueueState(0, None))
