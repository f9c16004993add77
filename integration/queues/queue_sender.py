"""The queue sender: what it promises, its messages, and the in-memory double."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from integration.core.model import Delivery, WorkItem
from integration.queues.names import ANSWER_QUEUE

# Returns the queue that receives each change of a resource, by resource type.
ChangeQueues = Callable[[], Awaitable[Mapping[str, str]]]

_item_decoder = msgspec.json.Decoder(WorkItem)


class QueueSender(Protocol):
    """Sends work items. Raises Unavailable when the queue does not accept one."""

    async def send(self, queue: str, item: WorkItem, delay: float = 0) -> None:
        """Send `item` to the queue. It stays invisible for `delay` seconds."""


def parse_work_item(body: bytes) -> WorkItem:
    """Parse a queue message. Raises msgspec.DecodeError when it is not a work item."""
    return _item_decoder.decode(body)


async def queue_answer(queue: QueueSender, delivery: Delivery) -> None:
    """Queue the answer of a delivery that has ended, if it came as a file and has none yet.

    Raises Unavailable when the queue does not accept it.
    """
    if delivery.answer_due:
        await queue.send(ANSWER_QUEUE, WorkItem(delivery.id))


@dataclass(slots=True)
class MemoryQueueSender:
    """The in-memory double: (queue, item, delay) in the order of sending."""

    sent: list[tuple[str, WorkItem, float]] = field(default_factory=list)

    async def send(self, queue: str, item: WorkItem, delay: float = 0) -> None:
        self.sent.append((queue, item, delay))
