"""Settings become clients, once per worker, at the first use. The only module that builds any."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any

import httpx

from integration import healthcare_api, web_api
from integration.activity import Activities
from integration.dataverse.client import Dataverse
from integration.events import Events
from integration.fetch import Sources
from integration.fhir.client import FhirServer
from integration.fhir.units import Limits
from integration.healthcare_api import HealthcareApi
from integration.housekeeping import Ages, Housekeeping
from integration.intake import Intake
from integration.journal.activity import ActivityLog
from integration.journal.keys import delivery_id
from integration.journal.ledger import Ledger
from integration.journal.store import Journal
from integration.journal.waits import Waits
from integration.lane import Carrier
from integration.mapping import load
from integration.mapping.load import Maps
from integration.mapping.model import EntityMap
from integration.mirror import Mirror, Sink
from integration.model import Policy
from integration.order import Order
from integration.outbox import Outbox, StorageOutbox
from integration.relay import Relay
from integration.settings import (
    MIRROR_QUEUE,
    RELAY_QUEUE,
    Mirroring,
    Settings,
    Storage,
    from_env,
)
from integration.transport import BoundedClient, Neighbour, Tokens, places
from integration.web_api import WebApi

# The SDKs log every request at INFO: cost without a use here.
logging.getLogger("azure").setLevel(logging.WARNING)

# The storage SDK waits 15 s before its first retry: a sender would have given up. Longer trouble
# is for the sender to repeat, or for the queue.
_PROMPT: Any = {"initial_backoff": 1, "increment_base": 2, "random_jitter_range": 1}


# The folder of function_app.py, to which MAPS is relative.
ROOT = Path(__file__).parent.parent

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
    events: Events
    housekeeping: Housekeeping
    activity: ActivityLog
    now: Callable[[], datetime]


_parts: Parts | None = None
_building = asyncio.Lock()
_open = AsyncExitStack()  # the clients of the parts


async def parts() -> Parts:
    """The parts of this worker. Raises Misconfigured naming every setting that is missing."""
    global _parts
    if _parts is None:
        async with _building:
            if _parts is None:
                _parts = await _built(from_env())
    return _parts


async def closed() -> None:
    """For a process that goes on without its parts, or ends with a word; a worker just ends."""
    global _parts
    _parts = None
    await _open.aclose()


async def _built(settings: Settings) -> Parts:
    credential = _credential(settings)
    journal, outbox, ledger, waits, activity = await _storage(settings.storage, credential)
    activities = Activities(activity.note if settings.activity_days else None, _now)
    _open.push_async_callback(activities.flush)
    fhir = FhirServer(
        _neighbour(
            "FHIR server",
            settings.fhir_url,
            settings.fhir_scope,
            settings.fhir_concurrency,
            settings,
            credential,
            activities,
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
            activities,
        ),
        settings.mirroring.options,
    )
    # A third to start the request, a third to wait for it; and the FHIR server may be busy with it
    # for as long again.
    lease = 3.0 * settings.neighbour_timeout
    order = Order(ledger, lease, time.time, _token, asyncio.sleep, random.random)
    maps, known = _maps(settings.mirroring)
    mirrored = frozenset({*maps.entities, *maps.broken}) if settings.mirroring.to != "off" else ()
    rows = WebApi(fhir, dataverse, waits, outbox, known, settings.mirroring.on_delete)
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
            Carrier(journal, outbox, fhir, order, frozenset(mirrored)),
            limits,
            _now,
            float(settings.max_age),
            _sources(settings, credential, activities),
            activities,
        ),
        Mirror(
            journal,
            outbox,
            _sink(settings.mirroring.to, rows, order),
            maps.entities,
            maps.broken,
            _now,
            float(settings.max_age),
            activities,
        ),
        Events(journal, outbox, frozenset(mirrored), settings.fhir_url, _now),
        Housekeeping(
            journal,
            ledger,
            outbox,
            activity,
            _now,
            Ages(
                timedelta(seconds=settings.max_age),
                timedelta(days=settings.retention_days),
                timedelta(days=settings.activity_days),
            ),
        ),
        activity,
        _now,
    )


def _sink(to: str, rows: WebApi, order: Order) -> Sink:
    if to == "healthcare-api":
        return partial(healthcare_api.bring, HealthcareApi(rows, order))
    return partial(web_api.bring, rows)


def _maps(mirroring: Mirroring) -> tuple[Maps, dict[str, EntityMap]]:
    """The maps in use; and all there are, since lookups may point at rows that others bring."""
    own = ROOT / mirroring.own_maps if mirroring.own_maps else None
    chosen = (mirroring.map_set, mirroring.map_prefix, own)
    every = load.maps(*chosen, enabled=load.names(*chosen))
    return load.maps(*chosen, enabled=mirroring.enabled), dict(every.entities)


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
    credential = DefaultAzureCredential(managed_identity_client_id=client_id)
    _open.push_async_callback(credential.close)
    return credential


def _sources(settings: Settings, credential: Any, activities: Activities) -> Sources:
    """The servers of senders from which something may be fetched."""
    most = settings.reading.max_delivery_bytes
    neighbours = {
        base: _neighbour(
            f"source {base}", base, scope, _AT_A_SOURCE, settings, credential, activities, most
        )
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
    activities: Activities,
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
    _open.push_async_callback(http.aclose)
    tokens = Tokens(credential, scope) if scope else None
    return Neighbour(name, url, http, places(most), tokens, activities=activities)


def _no_cookies() -> CookieJar:
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


async def _storage(
    storage: Storage, credential: Any
) -> tuple[Journal, Outbox, Ledger, Waits, ActivityLog]:
    from azure.core.exceptions import ResourceExistsError
    from azure.data.tables.aio import TableServiceClient
    from azure.storage.blob.aio import BlobServiceClient
    from azure.storage.queue import TextBase64EncodePolicy
    from azure.storage.queue.aio import QueueClient, QueueServiceClient

    from integration.journal import azure_activity, azure_ledger, azure_waits
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

    for service in (blobs, queues, tables):
        _open.push_async_callback(service.close)

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
    journal, ledger, waits, activity = await asyncio.gather(
        opened(blobs, tables),
        azure_ledger.opened(tables),
        azure_waits.opened(tables),
        azure_activity.opened(tables),
    )
    return journal, StorageOutbox(clients.__getitem__), ledger, waits, activity
