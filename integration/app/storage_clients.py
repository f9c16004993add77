"""Open the journal and the queues of a storage account."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.request import getproxies_environment

from azure.core.exceptions import ResourceExistsError
from azure.data.tables.aio import TableServiceClient
from azure.storage.blob.aio import BlobServiceClient
from azure.storage.queue import TextBase64EncodePolicy
from azure.storage.queue.aio import QueueClient, QueueServiceClient

from integration.app.settings import InboxSettings, StorageSettings
from integration.journal import (
    azure_activity,
    azure_audit,
    azure_blobs,
    azure_configuration,
    azure_deletions,
    azure_due_days,
    azure_edit_cursors,
    azure_flow,
    azure_guard_store,
    azure_housekeeping_runs,
    azure_inbox,
    azure_jobs,
    azure_pending_lookups,
    azure_row_keys,
    azure_signing_keys,
    azure_store,
)
from integration.journal.activity_log import ActivityLog
from integration.journal.audit_log import AuditLog
from integration.journal.azure_errors import translate_storage_errors
from integration.journal.azure_tables import open_table
from integration.journal.configuration import ConfigurationStore
from integration.journal.deletions import Deletions
from integration.journal.due_days import DueDays
from integration.journal.edit_cursors import EditCursors
from integration.journal.flow_log import FlowLog
from integration.journal.guard_store import GuardStore
from integration.journal.housekeeping_runs import HousekeepingRuns
from integration.journal.inbox_files import InboxFiles
from integration.journal.jobs import Jobs
from integration.journal.pending_lookups import PendingLookups
from integration.journal.row_keys import RowKeys
from integration.journal.signing_keys import SigningKeys
from integration.journal.store import Journal
from integration.queues.azure_queue import AzureQueueReader, AzureQueueSender
from integration.queues.names import APP_QUEUES
from integration.queues.queue_reader import QueueReader
from integration.queues.queue_sender import QueueSender

# By default the storage SDK waits 15 s before its first retry, when a sender has given up. After
# longer failures the sender sends again, or the queue does.
_RETRY_OPTIONS: Any = {"initial_backoff": 1, "increment_base": 2, "random_jitter_range": 1}


# No files are taken.
_NO_INBOX = InboxSettings()

CONTAINER = azure_blobs.CONTAINER
# The tables of stores that have one each, in the order in which they are opened.
_SINGLE_TABLES = (
    *(azure_pending_lookups.TABLE, azure_activity.TABLE, azure_audit.TABLE),
    *(azure_row_keys.TABLE, azure_flow.TABLE, azure_jobs.TABLE),
    *(azure_deletions.TABLE, azure_due_days.TABLE, azure_signing_keys.TABLE),
)
TABLES = (
    *azure_store.TABLES,
    *azure_guard_store.TABLES,
    *_SINGLE_TABLES,
    azure_configuration.TABLE,
)


@dataclass(frozen=True, slots=True)
class StorageClients:
    """The clients of an account's three services. They have sent nothing yet."""

    blobs: BlobServiceClient
    queues: QueueServiceClient
    tables: TableServiceClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """What a storage account stores for the app."""

    journal: Journal
    queue: QueueSender
    guard_store: GuardStore
    waits: PendingLookups
    deletions: Deletions
    due_days: DueDays
    activity: ActivityLog
    audit: AuditLog
    row_keys: RowKeys
    signing_keys: SigningKeys
    runs: HousekeepingRuns
    edit_cursors: EditCursors
    flow: FlowLog
    jobs: Jobs
    configuration: ConfigurationStore
    queue_reader: QueueReader
    inbox: InboxFiles | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusStores:
    """What of them a report on the status reads."""

    journal: Journal
    activity: ActivityLog
    runs: HousekeepingRuns
    flow: FlowLog
    queue_reader: QueueReader


def open_clients(
    storage: StorageSettings, credential: Any, exit_stack: AsyncExitStack, **options: Any
) -> StorageClients:
    """Open the clients, which `exit_stack` closes. `options`: of the SDK, for all three."""
    options = {**build_transport_options(), **options}
    retry_options = {**_RETRY_OPTIONS, **options}
    if storage.connection:
        blobs = BlobServiceClient.from_connection_string(storage.connection, **retry_options)
        queues = QueueServiceClient.from_connection_string(storage.connection, **retry_options)
        tables = TableServiceClient.from_connection_string(storage.connection, **options)
    else:
        blobs = BlobServiceClient(storage.blob_url, credential, **retry_options)
        queues = QueueServiceClient(storage.queue_url, credential, **retry_options)
        tables = TableServiceClient(storage.table_url, credential=credential, **options)
    for service in (blobs, queues, tables):
        exit_stack.push_async_callback(service.close)
    return StorageClients(blobs, queues, tables)


def build_transport_options() -> dict[str, Any]:
    """Return the options of the SDK for its HTTP client.

    With the settings of the environment, aiohttp looks for a .netrc in a thread before each
    request, which is a third of what a request to storage costs:
    https://docs.aiohttp.org/en/stable/client_reference.html#aiohttp.ClientSession -- trust_env.
    Only proxies are wanted of them.
    """
    return {"use_env_settings": bool(getproxies_environment())}


def build_queue_client(clients: StorageClients, name: str) -> QueueClient:
    # The queue trigger expects base64, unless host.json says otherwise.
    return clients.queues.get_queue_client(name, message_encode_policy=TextBase64EncodePolicy())


async def open_stores(
    storage: StorageSettings,
    credential: Any,
    exit_stack: AsyncExitStack,
    inbox: InboxSettings = _NO_INBOX,
) -> Stores:
    """Open all stores and queues, and create those that do not exist.

    `exit_stack` closes their clients. Raises Unavailable or Misconfigured.
    """
    clients = open_clients(storage, credential, exit_stack)
    blobs, tables = clients.blobs, clients.tables
    queues = {name: build_queue_client(clients, name) for name in APP_QUEUES}
    journal, guard_store, configuration, opened, _ = await asyncio.gather(
        azure_store.open_journal(blobs, tables),
        azure_guard_store.open_guard_store(tables),
        azure_configuration.open_configuration_store(blobs, tables),
        asyncio.gather(*(open_table(tables, name) for name in _SINGLE_TABLES)),
        asyncio.gather(*(_ensure_queue(queue) for queue in queues.values())),
    )
    waits, activity, audit, row_keys, flow, jobs, deletions, due_days, signing_keys = opened
    return Stores(
        journal=journal,
        queue=AzureQueueSender(queues.__getitem__),
        guard_store=guard_store,
        waits=azure_pending_lookups.AzurePendingLookups(waits),
        deletions=azure_deletions.AzureDeletions(deletions),
        due_days=azure_due_days.AzureDueDays(due_days),
        activity=azure_activity.AzureActivityLog(activity),
        audit=azure_audit.AzureAuditLog(audit),
        row_keys=azure_row_keys.AzureRowKeys(row_keys),
        signing_keys=azure_signing_keys.AzureSigningKeys(signing_keys),
        runs=_build_runs(clients),
        edit_cursors=azure_edit_cursors.AzureEditCursors(
            tables.get_table_client(azure_edit_cursors.TABLE)
        ),
        flow=azure_flow.AzureFlowLog(flow),
        jobs=azure_jobs.AzureJobs(jobs),
        configuration=configuration,
        queue_reader=_build_queue_reader(clients),
        inbox=await _open_inbox(blobs, inbox, credential, exit_stack),
    )


def build_status_stores(clients: StorageClients) -> StatusStores:
    """Build what reads the status, and create nothing: who looks may have the right to look only.
    What does not exist cannot be read."""
    return StatusStores(
        journal=azure_store.build_journal(clients.blobs, clients.tables),
        activity=azure_activity.AzureActivityLog(
            clients.tables.get_table_client(azure_activity.TABLE)
        ),
        runs=_build_runs(clients),
        flow=azure_flow.AzureFlowLog(clients.tables.get_table_client(azure_flow.TABLE)),
        queue_reader=_build_queue_reader(clients),
    )


def _build_runs(clients: StorageClients) -> HousekeepingRuns:
    table = clients.tables.get_table_client(azure_housekeeping_runs.TABLE)
    return azure_housekeeping_runs.AzureHousekeepingRuns(table)


def _build_queue_reader(clients: StorageClients) -> QueueReader:
    return AzureQueueReader(partial(build_queue_client, clients))


async def _open_inbox(
    journal_blobs: BlobServiceClient,
    inbox: InboxSettings,
    credential: Any,
    exit_stack: AsyncExitStack,
) -> InboxFiles | None:
    if inbox.container is None:
        return None
    return await azure_inbox.open_inbox(
        open_inbox_blobs(journal_blobs, inbox, credential, exit_stack), inbox.container
    )


def open_inbox_blobs(
    journal_blobs: BlobServiceClient,
    inbox: InboxSettings,
    credential: Any,
    exit_stack: AsyncExitStack,
) -> BlobServiceClient:
    """Return the client of the inbox's account, which may be that of the journal."""
    if inbox.url is None:
        return journal_blobs
    options: dict[str, Any] = {**build_transport_options(), **_RETRY_OPTIONS}
    blobs = BlobServiceClient(inbox.url, credential, **options)
    exit_stack.push_async_callback(blobs.close)
    return blobs


async def _ensure_queue(queue: QueueClient) -> None:
    async with translate_storage_errors():
        try:
            await queue.create_queue()
        except ResourceExistsError:
            pass  # as at every start but the first
