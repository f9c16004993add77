"""Where claims are queued, and when a claim that failed comes back. The queue sender is here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from integration.core.model import WorkItem

# By resource type, the queue that hears of each change.
ChangeQueues = Callable[[], Awaitable[Mapping[str, str]]]

_item_decoder = msgspec.json.Decoder(WorkItem)


class QueueSender(Protocol):
    """Queues claims. Raises Unavailable when the queue cannot take one."""

    async def send(self, queue: str, item: WorkItem, delay: float = 0) -> None:
        """Queue `claim`, invisible for `delay` seconds."""


def parse_work_item(body: bytes) -> WorkItem:
    """The claim in a queue message. Raises msgspec.DecodeError for what is no claim."""
    return _item_decoder.decode(body)


@dataclass(slots=True)
class MemoryQueueSender:
    """The double: claims in a list, in the order they were sent."""

    sent: list[tuple[str, WorkItem, float]] = field(default_factory=list)

    async def send(self, queue: str, item: WorkItem, delay: float = 0) -> None:
        self.sent.append((queue, item, delay))
