"""The queue sender for Azure Storage queues."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from integration.core.model import WorkItem
from integration.journal.azure_errors import translate_storage_errors

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
