"""Open queue clients by the app setting that a trigger's `connection` names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from azure.core.credentials_async import AsyncTokenCredential
from azure.storage.queue.aio import QueueClient, QueueServiceClient

from local.host.emulator import build_connection_string
from local.host.settings import CannotStart

POISON = "-poison"
# https://learn.microsoft.com/rest/api/storageservices/naming-queues-and-metadata#queue-names
_QUEUE_NAME = re.compile(r"(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*")


def open_service(connection: str, env: Mapping[str, str]) -> QueueServiceClient:
    """https://learn.microsoft.com/azure/azure-functions/functions-reference#connections"""
    # Few and short retries: the listener polls again anyway.
    # Without the settings of the environment, of which aiohttp reads a .netrc before each request.
    retry: dict[str, Any] = {"initial_backoff": 1, "increment_base": 2, "retry_total": 2}
    retry["use_env_settings"] = False
    for name in (f"AzureWebJobs{connection}", connection):
        if text := env.get(name):
            if text.rstrip(";").lower() == "usedevelopmentstorage=true":
                text = build_connection_string(
                    int(env.get("AZURITE_BLOB_PORT", "10000")),
                    int(env.get("AZURITE_QUEUE_PORT", "10001")),
                    int(env.get("AZURITE_TABLE_PORT", "10002")),
                )
            try:
                return QueueServiceClient.from_connection_string(text, **retry)
            except ValueError as error:
                raise CannotStart(f"{name} is not a storage connection string") from error
        if account := env.get(f"{name}__accountName"):
            uri = f"https://{account}.queue.core.windows.net"
            return QueueServiceClient(uri, credential=_build_credential(name, env), **retry)
        if uri := env.get(f"{name}__queueServiceUri", ""):
            return QueueServiceClient(uri, credential=_build_credential(name, env), **retry)
    raise CannotStart(
        f"set {connection} (a connection string), {connection}__accountName or "
        f"{connection}__queueServiceUri: a queue trigger reads from it"
    )


def open_queues(service: QueueServiceClient, name: str) -> tuple[QueueClient, QueueClient | None]:
    """Open a queue and its poison queue: QueueListenerFactory.cs CreatePoisonQueueReference."""
    if not _QUEUE_NAME.fullmatch(name):
        raise CannotStart(f"{name!r} is not a queue name")
    poison = name + POISON
    if name.endswith(POISON) or not _QUEUE_NAME.fullmatch(poison):
        return service.get_queue_client(name), None
    return service.get_queue_client(name), service.get_queue_client(poison)


def _build_credential(name: str, env: Mapping[str, str]) -> AsyncTokenCredential:
    # Imported here: it is slow to import, and a laptop rarely needs it.
    from azure.identity.aio import DefaultAzureCredential

    return DefaultAzureCredential(managed_identity_client_id=env.get(f"{name}__clientId"))
