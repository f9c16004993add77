"""Settings become clients, once per worker, at the first use. The only module that builds any."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from integration import first_use
from integration.change_events.from_fhir import Events
from integration.core.activity import Activities
from integration.core.errors import Misconfigured
from integration.core.model import Policy
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.fhir.units import Limits
from integration.first_use import Worker
from integration.intake.accept import Intake
from integration.journal.activity import ActivityLog
from integration.journal.keys import delivery_id
from integration.journal.store import Journal
from integration.journal.write_guard import Order
from integration.mapping import files
from integration.mapping.files import File, Table
from integration.mirror.mirror import Mirror
from integration.neighbours import Caller, credential, neighbour
from integration.operations.housekeeping import Ages, Housekeeping
from integration.queues.queue_sender import Outbox
from integration.relay.fetch import Sources
from integration.relay.lane import Carrier
from integration.relay.process import Relay
from integration.settings import (
    Mirroring,
    Service,
    Settings,
    events_queue_itself,
    from_env,
    provisioning_from_env,
    tenant_from_env,
)
from integration.virtual_tables.data_routes import VIRTUAL, DataRoutes

if TYPE_CHECKING:  # they know the paths of maps, which take long to learn
    from integration.change_events.to_dataverse import ExternalEvents
    from integration.check.connections import Ends
    from integration.virtual_tables.answer import VirtualTables

# The SDKs log every request at INFO: cost without a use here.
logging.getLogger("azure").setLevel(logging.WARNING)

# Requests to the server of a sender that one worker has under way.
_AT_A_SOURCE = 4

# Bytes of the feed's metadata that a check reads.
_OF_THE_FEED = 1_000_000


@dataclass(frozen=True, slots=True)
class Parts:
    """What the doors hand to the verbs."""

    journal: Journal
    outbox: Outbox
    fhir: FhirServer
    dataverse: Dataverse
    intake: Intake
    relay: Relay
    events: Events
    housekeeping: Housekeeping
    activity: ActivityLog
    routes: DataRoutes
    now: Callable[[], datetime]
    _mirror: Callable[[], Mirror]
    _virtual_tables: Callable[[], VirtualTables]
    _external: Callable[[], ExternalEvents]

    @property
    def mirror(self) -> Mirror:
        """Built at its first use: to understand its maps takes longer than all the rest."""
        return self._mirror()

    @property
    def virtual_tables(self) -> VirtualTables:
        """Likewise."""
        return self._virtual_tables()

    @property
    def external(self) -> ExternalEvents:
        return self._external()


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


@asynccontextmanager
async def dataverse() -> AsyncIterator[Dataverse]:
    """Dataverse alone, for a command that needs nothing else. Raises Misconfigured."""
    tenant = tenant_from_env()
    async with AsyncExitStack() as open_:
        asking = credential(tenant.client_id, open_) if tenant.dataverse.scope else None
        caller = Caller(asking, Activities(), open_)
        yield Dataverse(neighbour("Dataverse", tenant.dataverse, caller))


@asynccontextmanager
async def ends(skew: float) -> AsyncIterator[Ends]:
    """Every neighbour, each for itself, with nothing made or asked of it. Raises Misconfigured."""
    from integration import storage
    from integration.check.connections import Ends

    settings, provisioning = from_env(), provisioning_from_env()
    async with AsyncExitStack() as open_:
        asking = _credential(settings, open_)
        caller = Caller(asking, Activities(), open_)
        feed = provisioning.feed_url and Service(provisioning.feed_url.rstrip("/"), None, 1, 30)
        yield Ends(
            settings,
            events_queue_itself(),
            storage.services(settings.storage, asking, open_, retry_total=0),
            FhirServer(neighbour("FHIR server", settings.fhir, caller)),
            Dataverse(neighbour("Dataverse", settings.dataverse, caller)),
            _sources(settings, caller).neighbours,
            neighbour("the feed", feed, caller, _OF_THE_FEED) if feed else None,
            provisioning.feed_key,
            asking,
            _now,
            skew,
        )


async def _built(settings: Settings) -> Parts:
    from integration import storage  # with its SDKs, which no import of the doors should wait for

    read = _files(settings.mirroring)
    tables, told = files.tables(read), settings.feed.told
    _check(told, tables)
    asking = _credential(settings)
    there = await storage.opened(settings.storage, asking, _open)
    activities = Activities(there.activity.note if settings.activity_days else None, _now)
    _open.push_async_callback(activities.flush)
    caller = Caller(asking, activities, _open)
    fhir = FhirServer(neighbour("FHIR server", settings.fhir, caller))
    dataverse = Dataverse(
        neighbour("Dataverse", settings.dataverse, caller), settings.mirroring.options
    )
    # A third to start the request, a third to wait for it; and the FHIR server may be busy with it
    # for as long again.
    lease = 3.0 * settings.fhir.timeout
    order = Order(there.ledger, lease, time.time, _token, asyncio.sleep, random.random)
    routes = DataRoutes(there.routes, tables, settings.mirroring.to != "off", frozenset(told))
    worker = Worker(
        settings,
        there,
        fhir,
        dataverse,
        order,
        routes,
        activities,
        first_use.understood(read),
        _now,
        _new_id,
    )
    reading, max_age = settings.reading, float(settings.max_age)
    return Parts(
        there.journal,
        there.outbox,
        fhir,
        dataverse,
        Intake(
            there.journal,
            there.outbox,
            _now,
            _new_id,
            reading.max_delivery_bytes,
            reading.validate,
            settings.sender_header,
            Policy(reading.messages, reading.documents, reading.dangling),
            orders=settings.order,
        ),
        Relay(
            Carrier(there.journal, there.outbox, fhir, order, routes.followed),
            Limits(reading.unit_max_entries, reading.unit_max_bytes, reading.over_limit),
            _now,
            max_age,
            _sources(settings, caller),
            activities,
        ),
        Events(there.journal, there.outbox, routes.followed, settings.fhir.url, _now),
        Housekeeping(
            there.journal,
            there.ledger,
            there.outbox,
            there.activity,
            _now,
            Ages(
                timedelta(seconds=settings.max_age),
                timedelta(days=settings.retention_days),
                timedelta(days=settings.activity_days),
            ),
        ),
        there.activity,
        routes,
        _now,
        cache(partial(first_use.mirror, worker)),
        cache(partial(first_use.virtual_tables, worker)),
        cache(partial(first_use.external, worker)),
    )


def _files(mirroring: Mirroring) -> list[File]:
    chosen = (mirroring.map_set, mirroring.map_prefix, mirroring.own_maps, mirroring.enabled)
    return files.read(*chosen)


def _check(told: Iterable[str], tables: Mapping[str, Table]) -> None:
    """Else a misspelt type would never be heard of."""
    virtual = {name for name, table in tables.items() if VIRTUAL in table.routes}
    if strangers := sorted({*told} - virtual):
        raise Misconfigured(f"EXTERNAL_EVENTS: no virtual table is of {', '.join(strangers)}")


def _now() -> datetime:
    return datetime.now(UTC)


def _new_id(now: datetime) -> str:
    return delivery_id(now, secrets.randbits(74))


def _token() -> str:
    return secrets.token_hex(8)


def _credential(settings: Settings, open_: AsyncExitStack = _open) -> Any:
    """One for all neighbours; none where only a laptop's neighbours are named."""
    scopes = (settings.fhir.scope, settings.dataverse.scope, *settings.fetch_from.values())
    if settings.storage.connection and not any(scopes):
        return None
    return credential(settings.client_id, open_)


def _sources(settings: Settings, caller: Caller) -> Sources:
    """The servers of senders from which something may be fetched."""
    most, timeout = settings.reading.max_delivery_bytes, settings.fhir.timeout
    neighbours = {
        base: neighbour(f"source {base}", Service(base, scope, _AT_A_SOURCE, timeout), caller, most)
        for base, scope in settings.fetch_from.items()
    }
    return Sources(neighbours, settings.fetch_pages, most)
