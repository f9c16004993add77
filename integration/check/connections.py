"""The neighbours, with nothing asked of any yet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from integration.app import wiring
from integration.app.http_clients import Caller, open_upstream
from integration.app.settings import (
    Service,
    Settings,
    events_queue_itself,
    from_env,
    provisioning_from_env,
)
from integration.core.activity import Activities
from integration.core.http import Upstream
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer

if TYPE_CHECKING:  # with its SDKs, which no import of the doors should wait for
    from integration.app.storage_clients import Services


# Bytes of the feed's metadata that a check reads.
_OF_THE_FEED = 1_000_000


@dataclass(frozen=True, slots=True)
class Connections:
    """`credential` is None where no neighbour wants a token; `feed` where FEED_URL is not set."""

    settings: Settings
    events_queue: str
    storage: Services
    fhir: FhirServer
    dataverse: Dataverse
    sources: Mapping[str, Upstream]
    feed: Upstream | None
    feed_key: str | None = field(repr=False)
    credential: Any
    now: Callable[[], datetime]
    skew: float = 60.0  # seconds that a clock may be wrong


@asynccontextmanager
async def open_connections(skew: float) -> AsyncIterator[Connections]:
    """Every neighbour, each for itself, with nothing made or asked of it. Raises Misconfigured."""
    from integration.app import storage_clients

    settings, provisioning = from_env(), provisioning_from_env()
    async with AsyncExitStack() as open_:
        asking = wiring.service_credential(settings, open_)
        caller = Caller(asking, Activities(), open_)
        feed = provisioning.feed_url and Service(provisioning.feed_url.rstrip("/"), None, 1, 30)
        yield Connections(
            settings,
            events_queue_itself(),
            storage_clients.services(settings.storage, asking, open_, retry_total=0),
            FhirServer(open_upstream("FHIR server", settings.fhir, caller)),
            Dataverse(open_upstream("Dataverse", settings.dataverse, caller)),
            wiring.fetch_sources(settings, caller).upstreams,
            open_upstream("the feed", feed, caller, _OF_THE_FEED) if feed else None,
            provisioning.feed_key,
            asking,
            wiring.utc_now,
            skew,
        )
