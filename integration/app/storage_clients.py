"""Settings become the journal and the queues of a storage account."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from azure.core.exceptions import ResourceExistsError
from azure.data.tables.aio import TableServiceClient
from azure.storage.blob.aio import BlobServiceClient
from azure.storage.queue import TextBase64EncodePolicy
from azure.storage.queue.aio import QueueClient, QueueServiceClient

from integration.app.settings import StorageSettings
from integration.journal import (
    azure_activity,
    azure_blobs,
    azure_data_routes,
    azure_guard_store,
    azure_pending_lookups,
    azure_row_keys,
    azure_store,
)
from integration.journal.activity import ActivityLog
from integration.journal.azure_errors import translate_storage_errors
from integration.journal.azure_tables import open_table
from integration.journal.data_routes import DataRouteStore
from integration.journal.guard_store import GuardStore
from integration.journal.pending_lookups import PendingLookups
from integration.journal.row_keys import RowKeys
from integration.journal.store import Journal
from integration.queues.azure_queue import AzureQueueSender
from integration.queues.names import EXTERNAL_QUEUE, MIRROR_QUEUE, RELAY_QUEUE
from integration.queues.queue_sender import QueueSender

# The storage SDK waits 15 s before its first retry: a sender would have given up. Longer trouble
# is for the sender to repeat, or for the queue.
_PROMPT: Any = {"initial_backoff": 1, "increment_base": 2, "random_jitter_range": 1}


CONTAINER = azure_blobs.CONTAINER
TABLES = (
    *azure_store.TABLES,
    *(azure_guard_store.TABLE, azure_pending_lookups.TABLE, azure_activity.TABLE),
    *(azure_row_keys.TABLE, azure_data_routes.TABLE),
)


@dataclass(frozen=True, slots=True)
class StorageClients:
    """The three services of an account, with nothing asked of them yet."""

    blobs: BlobServiceClient
    queues: QueueServiceClient
    tables: TableServiceClient


@dataclass(frozen=True, slots=True)
class Stores:
    """What a storage account keeps for the app."""

    journal: Journal
    queue: QueueSender
    guard_store: GuardStore
    waits: PendingLookups
    activity: ActivityLog
    row_keys: RowKeys
    data_routes: DataRouteStore


def open_clients(
    storage: StorageSettings, credential: Any, open_: AsyncExitStack, **options: Any
) -> StorageClients:
    """Clients, which `open_` closes; `options` are of the SDK, for all three."""
    of_two = {**_PROMPT, **options}
    if storage.connection:
        blobs = BlobServiceClient.from_connection_string(storage.connection, **of_two)
        queues = QueueServiceClient.from_connection_string(storage.connection, **of_two)
        tables = TableServiceClient.from_connection_string(storage.connection, **options)
    else:
        blobs = BlobServiceClient(storage.blob_url, credential, **of_two)
        queues = QueueServiceClient(storage.queue_url, credential, **of_two)
        tables = TableServiceClient(storage.table_url, credential=credential, **options)
    for service in (blobs, queues, tables):
        open_.push_async_callback(service.close)
    return StorageClients(blobs, queues, tables)


def build_queue_client(there: StorageClients, name: str) -> QueueClient:
    # The queue trigger expects base64, unless host.json says otherwise.
    return there.queues.get_queue_client(name, message_encode_policy=TextBase64EncodePolicy())


async def open_stores(storage: StorageSettings, credential: Any, open_: AsyncExitStack) -> Stores:
    """All of it, made where it is not; `open_` closes the clients. Raises Unavailable or
    Misconfigured."""
    there = open_clients(storage, credential, open_)
    blobs, tables = there.blobs, there.tables
    names = (RELAY_QUEUE, MIRROR_QUEUE, EXTERNAL_QUEUE)
    clients = {name: build_queue_client(there, name) for name in names}
    journal, (ledger, waits, activity, row_keys, routes), _ = await asyncio.gather(
        azure_store.open_journal(blobs, tables),
        asyncio.gather(
            open_table(tables, azure_guard_store.TABLE),
            open_table(tables, azure_pending_lookups.TABLE),
            open_table(tables, azure_activity.TABLE),
            open_table(tables, azure_row_keys.TABLE),
            open_table(tables, azure_data_routes.TABLE),
        ),
        asyncio.gather(*(_queue(queue) for queue in clients.values())),
    )
    return Stores(
        journal,
        AzureQueueSender(clients.__getitem__),
        azure_guard_store.AzureGuardStore(ledger),
        azure_pending_lookups.AzurePendingLookups(waits),
        azure_activity.AzureActivityLog(activity),
        azure_row_keys.AzureRowKeys(row_keys),
        azure_data_routes.AzureDataRouteStore(routes),
    )


async def _queue(queue: QueueClient) -> None:
    async with translate_storage_errors():
        try:
            await queue.create_queue()
        except ResourceExistsError:
            pass  # as in every start but the first
