"""`python -m local.inbox_poller`: do what Event Grid does in Azure, for the storage emulator.

It lists the inbox every few seconds, and puts into the queue what Event Grid would: a message for
each file that is new, or has changed. What was there before it was started is told, too.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

from azure.core.exceptions import AzureError
from azure.storage.blob import BlobProperties
from azure.storage.blob.aio import ContainerClient
from azure.storage.queue.aio import QueueClient

from integration.app import storage_clients
from integration.app.settings import read_settings
from integration.queues.names import INBOX_QUEUE
from local.processes import Child, Part

INTERVAL = 2.0  # seconds


async def tell_news(files: ContainerClient, queue: QueueClient, seen: dict[str, str]) -> None:
    """Queue an event for each file whose content is not in `seen`, and forget what is gone."""
    present: dict[str, str] = {}
    async for blob in files.list_blobs():
        present[blob.name] = blob.etag
        if seen.get(blob.name) != blob.etag:
            await queue.send_message(json.dumps(build_event(files.container_name, blob)))
            seen[blob.name] = blob.etag
    for name in seen.keys() - present.keys():
        del seen[name]


def build_event(container: str, blob: BlobProperties) -> dict[str, Any]:
    """https://learn.microsoft.com/azure/event-grid/event-schema-blob-storage, as CloudEvents 1.0"""
    account = "/subscriptions/none/resourceGroups/none/providers/Microsoft.Storage/storageAccounts"
    return {
        "source": f"{account}/devstoreaccount1",
        "subject": f"/blobServices/default/containers/{container}/blobs/{blob.name}",
        "type": "Microsoft.Storage.BlobCreated",
        "time": blob.last_modified.isoformat(),
        "id": str(uuid4()),
        "data": {"api": "PutBlob", "eTag": blob.etag, "contentLength": blob.size},
        "specversion": "1.0",
    }


async def poll(env: Mapping[str, str], interval: float) -> None:
    """Tell of files for ever. Storage that does not answer is asked again."""
    settings = read_settings(env)
    assert settings.inbox.container is not None, "INBOX names no container"
    seen: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        clients = storage_clients.open_clients(settings.storage, None, stack)
        files = clients.blobs.get_container_client(settings.inbox.container)
        queue = storage_clients.build_queue_client(clients, INBOX_QUEUE)
        while True:
            try:
                await tell_news(files, queue, seen)
            except AzureError as error:
                print(f"storage: {type(error).__name__}", flush=True)
            await asyncio.sleep(interval)


def start_poller(settings: Mapping[str, str], folder: Path, interval: float = INTERVAL) -> Child:
    """Start it as a process of its own; `with` ends it."""
    command = (sys.executable, "-m", "local.inbox_poller", str(interval))
    child = Child(Part("inbox poller", command, settings, (), folder / "inbox.log"))
    child.start()
    return child


if __name__ == "__main__":
    asyncio.run(poll(os.environ, float(sys.argv[1]) if sys.argv[1:] else INTERVAL))
