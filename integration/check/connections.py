"""The clients of all services, opened without a request to any."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from integration.app import services
from integration.app.http_clients import ClientContext, open_upstream
from integration.app.settings import (
    Settings,
    UpstreamSettings,
    get_events_queue,
    read_provision_settings,
    read_settings,
)
from integration.core.activity_recorder import ActivityRecorder
from integration.core.http import Upstream
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer

if TYPE_CHECKING:  # its SDKs are slow to import
    from integration.app.storage_clients import StorageClients


# The largest metadata of the feed that a check reads, in bytes.
_MAX_FEED_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """The settings, and the clients of what they name.

    `credential` is None if no service requires a token, `feed` if FEED_URL is not set.
    """

    settings: Settings
    events_queue: str
    storage: StorageClients
    inbox: StorageClients  # with the blobs of the inbox's account, which may be the same
    fhir: FhirServer
    dataverse: Dataverse
    sources: Mapping[str, Upstream]
    feed: Upstream | None
    feed_key: str | None = field(repr=False)
    credential: Any
    now: Callable[[], datetime]
    max_skew: float = 60.0  # seconds that clocks may differ


@asynccontextmanager
async def open_connections(max_skew: float) -> AsyncIterator[Connections]:
    """Open the clients of every service; none is created or asked. Raises Misconfigured."""
    from integration.app import storage_clients

    settings, provisioning = read_settings(), read_provision_settings()
    async with AsyncExitStack() as stack:
        credential = services.build_credential(settings, stack)
        caller = ClientContext(credential, ActivityRecorder(), stack)
        feed = provisioning.feed_url and UpstreamSettings(
            provisioning.feed_url.rstrip("/"), None, 1, 30
        )
        storage = storage_clients.open_clients(settings.storage, credential, stack, retry_total=0)
        inbox_blobs = storage_clients.open_inbox_blobs(
            storage.blobs, settings.inbox, credential, stack
        )
        yield Connections(
            settings=settings,
            events_queue=get_events_queue(),
            storage=storage,
            inbox=replace(storage, blobs=inbox_blobs),
            fhir=FhirServer(open_upstream("FHIR server", settings.fhir, caller)),
            dataverse=Dataverse(open_upstream("Dataverse", settings.dataverse, caller)),
            sources=services.open_sources(settings, caller).upstreams,
            feed=open_upstream("the feed", feed, caller, _MAX_FEED_BYTES) if feed else None,
            feed_key=provisioning.feed_key,
            credential=credential,
            now=services.utc_now,
            max_skew=max_skew,
        )
