"""Create in the storage emulator what a deployment creates: container, queues and tables."""

from __future__ import annotations

from contextlib import AsyncExitStack

from azure.core.exceptions import ResourceExistsError
from azure.storage.queue.aio import QueueServiceClient

from integration.app import storage_clients
from integration.app.settings import get_events_queue, read_settings
from integration.queues.names import EXTERNAL_QUEUE, MIRROR_QUEUE, RELAY_QUEUE
from local.services import Running


async def create_storage(running: Running) -> None:
    """Create everything that does not exist yet, so that `check --local` finds it."""
    async with AsyncExitStack() as stack:
        await storage_clients.open_stores(read_settings(running.settings()).storage, None, stack)
    events = get_events_queue()
    async with QueueServiceClient.from_connection_string(running.storage) as service:
        queues = (RELAY_QUEUE, MIRROR_QUEUE, EXTERNAL_QUEUE, events)
        for name in (events, *(f"{queue}-poison" for queue in queues)):
            try:
                await service.create_queue(name)
            except ResourceExistsError:
                pass  # the host may have been faster
