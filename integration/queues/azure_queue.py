"""The queue sender and the queue reader for Azure Storage queues."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from integration.core.errors import Unavailable
from integration.core.model import WorkItem
from integration.journal.azure_errors import translate_storage_errors
from integration.queues.queue_reader import QueueState

# A message lives seven days unless its sender says otherwise, and then it vanishes without a trace.
# https://learn.microsoft.com/rest/api/storageservices/put-message: -1 for one that never expires
_NEVER = -1


@dataclass(frozen=True, slots=True)
class AzureQueueSender:
    """Sends work items to Azure Storage queues. `queue_client` opens the queue of a name."""

    queue_client: Callable[[str], Any]

    async def send(self, queue: str, item: WorkItem, delay: float = 0) -> None:
        body = msgspec.json.encode(item).decode()
        async with translate_storage_errors():
            # https://learn.microsoft.com/rest/api/storageservices/put-message: whole seconds
            await self.queue_client(queue).send_message(
                body, visibility_timeout=round(delay), time_to_live=_NEVER
            )


@dataclass(frozen=True, slots=True)
class AzureQueueReader:
    """Measures Azure Storage queues: one operation for an empty queue, two for any other.
    `queue_client` opens the queue of a name."""

    queue_client: Callable[[str], Any]

    async def measure(self, queue: str) -> QueueState:
        client = self.queue_client(queue)
        try:
            async with translate_storage_errors():
                properties = await client.get_queue_properties()
                # https://learn.microsoft.com/rest/api/storageservices/get-queue-metadata: it is
                # never lower than the number of messages, and may be higher.
                length = properties.approximate_message_count
                return QueueState(length, await _peek_oldest(client) if length else None)
        except Unavailable as error:
            if error.why != "ResourceNotFoundError":
                raise
            return QueueState(0, None)


async def _peek_oldest(client: Any) -> datetime | None:
    """https://learn.microsoft.com/rest/api/storageservices/peek-messages: visible ones alone, and
    the first is about the oldest."""
    messages = await client.peek_messages(max_messages=1)
    return messages[0].inserted_on if messages else None
