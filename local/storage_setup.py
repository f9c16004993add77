"""Create in the storage emulator what a deployment creates: container, queues and tables."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack

from azure.core.exceptions import AzureError, ResourceExistsError
from azure.storage.queue.aio import QueueServiceClient

from integration.app import storage_clients
from integration.app.settings import get_events_queue, read_settings
from integration.core.errors import IntegrationError
from integration.queues.names import APP_QUEUES
from local.host.settings import CannotStart
from local.services import Running
from local.settings_file import collect_settings


async def create_storage(running: Running) -> None:
    """Create everything that does not exist yet, so that `check --local` finds it.

    Raises CannotStart if the emulator does not do it.
    """
    try:
        await _create_all(running)
    except (AzureError, IntegrationError) as error:
        raise CannotStart(f"storage could not be prepared ({type(error).__name__})") from None


async def _create_all(running: Running) -> None:
    collected = collect_settings(running.settings(), os.environ)
    settings = read_settings({**running.settings(), "INBOX": collected.get("INBOX", "")})
    async with AsyncExitStack() as stack:
        await storage_clients.open_stores(settings.storage, None, stack, settings.inbox)
    events = get_events_queue(collected)
    async with QueueServiceClient.from_connection_string(running.storage) as service:
        queues = (*APP_QUEUES, events)
        for name in (events, *(f"{queue}-poison" for queue in queues)):
            try:
                await service.create_queue(name)
            except ResourceExistsError:
                pass  # the host may have been faster
