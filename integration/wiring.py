"""Settings become clients, once per worker, at the first use. The only module that builds any."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from integration.dataverse.client import Dataverse
from integration.fetch import Sources
from integration.fhir.client import FhirServer
from integration.fhir.units import Limits
from integration.housekeeping import Ages, Housekeeping
from integration.intake import Intake
from integration.journal.keys import delivery_id
from integration.journal.ledger import Ledger
from integration.journal.store import Journal
from integration.lane import Carrier
from integration.mapping import load
from integration.mirror import Mirror
from integration.model import Policy
from integration.order import Order
from integration.outbox import Outbox, StorageOutbox
from integration.relay import Relay
from integration.settings import MIRROR_QUEUE, RELAY_QUEUE, Settings, Storage, from_env
from integration.transport import BoundedClient, Neighbour, Tokens, places

# The SDKs log every request at INFO: cost without a use here.
logging.getLogger("azure").setLevel(logging.WARNING)

# The storage SDK waits 15 s before its first retry: a sender would have given up. Longer trouble
# is for the sender to repeat, or for the queue.
_PROMPT: Any = {"initial_backoff": 1, "increment_base": 2, "random_jitter_range": 1}


# Requests to the server of a sender that one worker has under way.
_AT_A_SOURCE = 4


@dataclass(frozen=True, slots=True)
class Parts:
    """What the doors hand to the verbs."""

    journal: Journal
    outbox: Outbox
    fhir: FhirServer
    dataverse: Dataverse
    intake: Intake
    relay: Relay
    mirror: Mirror
    housekeeping: Housekeeping
    now: Callable[[], datetime]


_parts: Parts | None = None
_building = asyncio.Lock()


async def parts() -> Parts:
    """The parts of this worker. Raises Misconfigured naming every setting that is missing."""
    global _parts
    if _parts is None:
        async with _building:
            if _parts is None:
                _parts = await _built(from_env())
    return _parts


async def _built(settings: Settings) -> Parts:
    credential = _credential(settings)
    journal, outbox, ledger = await _storage(settings.storage, credential)
    fhir = FhirServer(
        _neighbour(
            "FHIR server",
            settings.fhir_url,
            settings.fhir_scope,
            settings.fhir_concurrency,
            settings,
            credential,
        )
    )
    dataverse = Dataverse(
        _neighbour(
            "Dataverse",
            settings.dataverse_url,
            settings.dataverse_scope,
            settings.dataverse_concurrency,
            settings,
            credential,
        )
    )
    # The FHIR server may be busy with a request for as long again as it was waited for.
    lease = 3.0 * settings.neighbour_timeout
    order = Order(ledger, lease, time.time, _token, asyncio.sleep, random.random)
    maps = load.shipped()
    reading = settings.reading
    limits = Limits(reading.unit_max_entries, reading.unit_max_bytes, reading.over_limit)
    return Parts(
        journal,
        outbox,
        fhir,
        dataverse,
        Intake(
            journal,
            outbox,
            _now,
            _new_id,
            reading.max_delivery_bytes,
            reading.validate,
            settings.sender_header,
            Policy(reading.messages, reading.documents, reading.dangling),
            orders=settings.order,
        ),
        Relay(
            Carrier(journal, outbox, fhir, order, frozenset(maps)),
            limits,
            _now,
            float(settings.max_age),
            _sources(settings, credential),
        ),
        Mirror(journal, outbox, fhir, dataverse, maps, _now, float(settings.max_age)),
        Housekeeping(
            journal,
            ledger,
            outbox,
            _now,
            Ages(timedelta(seconds=settings.max_age), timedelta(days=settings.retention_days)),
        ),
        _now,
    )


def _now() -> datetime:
    return datetime.now(UTC)


def _new_id(now: datetime) -> str:
    return delivery_id(now, secrets.randbits(74))


def _token() -> str:
    return secrets.token_hex(8)


def _credential(settings: Settings) -> Any:
    """One identity for all neighbours; none where only a laptop's neighbours are named."""
    scopes = (settings.fhir_scope, settings.dataverse_scope, *settings.fetch_from.values())
    if settings.storage.connection and not any(scopes):
        return None
    from azure.identity.aio import DefaultAzureCredential

    client_id = settings.azure_client_id or settings.storage.client_id
    return DefaultAzureCredential(managed_identity_client_id=client_id)


def _sources(settings: Settings, credential: Any) -> Sources:
    """The servers of senders from which something may be fetched."""
    most = settings.reading.max_delivery_bytes
    neighbours = {
        base: _neighbour(f"source {base}", base, scope, _AT_A_SOURCE, settings, credential, most)
        for base, scope in settings.fetch_from.items()
    }
    return Sources(neighbours, settings.fetch_pages, most)


def _neighbour(
    name: str,
    url: str,
    scope: str | None,
    most: int,
    settings: Settings,
    credential: Any,
    max_bytes: int | None = None,
) -> Neighbour:
    client = partial(BoundedClient, max_bytes) if max_bytes else httpx.AsyncClient
    http = client(
        timeout=httpx.Timeout(settings.neighbour_timeout, connect=10.0),
        limits=httpx.Limits(max_connections=most, max_keepalive_connections=most),
        # Requests spread over Dataverse's servers only without its affinity cookie:
        # https://learn.microsoft.com/power-apps/developer/data-platform/send-parallel-requests
        cookies=_no_cookies(),
        follow_redirects=False,
    )
    tokens = Tokens(credential, scope) if scope else None
    return Neighbour(name, url, http, places(most), tokens)


def _no_cookies() -> CookieJar:
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


async def _storage(storage: Storage, credential: Any) -> tuple[Journal, Outbox, Ledger]:
    from azure.core.exceptions import ResourceExistsError
    from azure.data.tables.aio import TableServiceClient
    from azure.storage.blob.aio import BlobServiceClient
    from azure.storage.queue import TextBase64EncodePolicy
    from azure.storage.queue.aio import QueueClient, QueueServiceClient

    from integration.journal import azure_ledger
    from integration.journal.azure_store import opened
    from integration.storage_errors import storage_errors

    if storage.connection:
        blobs = BlobServiceClient.from_connection_string(storage.connection, **_PROMPT)
        queues = QueueServiceClient.from_connection_string(storage.connection, **_PROMPT)
        tables = TableServiceClient.from_connection_string(storage.connection)
    else:
        blobs = BlobServiceClient(storage.blob_url, credential, **_PROMPT)
        queues = QueueServiceClient(storage.queue_url, credential, **_PROMPT)
        tables = TableServiceClient(storage.table_url, credential=credential)

    # The queue trigger expects base64, unless host.json says otherwise.
    clients = {
        name: queues.get_queue_client(name, message_encode_policy=TextBase64EncodePolicy())
        for name in (RELAY_QUEUE, MIRROR_QUEUE)
    }

    async def made(queue: QueueClient) -> None:
        try:
            await queue.create_queue()
        except ResourceExistsError:
            pass  # as in every start but the first

    async with storage_errors():
        await asyncio.gather(*(made(queue) for queue in clients.values()))
    journal, ledger = await asyncio.gather(opened(blobs, tables), azure_ledger.opened(tables))
    return journal, StorageOutbox(clients.__getitem__), ledger
