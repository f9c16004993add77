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
from uuid import uuid4

from integration.app.http_clients import ClientContext, open_credential, open_upstream
from integration.app.settings import (
    MirrorSettings,
    Settings,
    UpstreamSettings,
    read_dataverse_settings,
    read_settings,
)
from integration.change_events.from_fhir import Events
from integration.core.activity import ActivityRecorder
from integration.core.errors import Misconfigured
from integration.core.model import Policy
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.fhir.units import Limits
from integration.intake.accept import Intake
from integration.journal.activity import ActivityLog
from integration.journal.keys import make_delivery_id
from integration.journal.store import Journal
from integration.journal.write_guard import WriteGuard
from integration.mapping import files
from integration.mapping.files import MapFile, MappedTable
from integration.mirror.mirror import Mirror
from integration.mirror.row_sink import RowSink
from integration.operations.housekeeping import Ages, Housekeeping
from integration.queues.queue_sender import QueueSender
from integration.relay.fetch import Sources
from integration.relay.lane import LaneContext
from integration.relay.process import Relay
from integration.virtual_tables.data_routes import VIRTUAL, DataRoutes

if TYPE_CHECKING:  # they know the paths of maps, which take long to learn
    from integration.app.storage_clients import Stores
    from integration.change_events.to_dataverse import ExternalEvents
    from integration.mapping.load import Maps
    from integration.mirror.web_api_sink import WebApiSink
    from integration.virtual_tables.answer import VirtualTables

# The SDKs log every request at INFO: cost without a use here.
logging.getLogger("azure").setLevel(logging.WARNING)

# Requests to the server of a sender that one worker has under way.
_AT_A_SOURCE = 4


@dataclass(frozen=True, slots=True)
class Parts:
    """What the doors hand to the verbs."""

    journal: Journal
    queue: QueueSender
    fhir: FhirServer
    dataverse: Dataverse
    intake: Intake
    relay: Relay
    change_events: Events
    housekeeping: Housekeeping
    activity: ActivityLog
    data_routes: DataRoutes
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
    def external_events(self) -> ExternalEvents:
        return self._external()


_parts: Parts | None = None
_building = asyncio.Lock()
_open = AsyncExitStack()  # the clients of the parts


async def get_parts() -> Parts:
    """The parts of this worker. Raises Misconfigured naming every setting that is missing."""
    global _parts
    if _parts is None:
        async with _building:
            if _parts is None:
                _parts = await _built(read_settings())
    return _parts


async def close_parts() -> None:
    """For a process that goes on without its parts, or ends with a word; a worker just ends."""
    global _parts
    _parts = None
    await _open.aclose()


@asynccontextmanager
async def open_dataverse() -> AsyncIterator[Dataverse]:
    """Dataverse alone, for a command that needs nothing else. Raises Misconfigured."""
    tenant = read_dataverse_settings()
    async with AsyncExitStack() as open_:
        asking = open_credential(tenant.client_id, open_) if tenant.dataverse.scope else None
        caller = ClientContext(asking, ActivityRecorder(), open_)
        yield Dataverse(open_upstream("Dataverse", tenant.dataverse, caller))


async def _built(settings: Settings) -> Parts:
    from integration.app import (
        storage_clients,  # with its SDKs, which no import of the doors should wait for
    )

    read = _files(settings.mirror)
    tables, told = files.list_tables(read), settings.feed.event_types
    _check(told, tables)
    asking = build_credential(settings)
    there = await storage_clients.open_stores(settings.storage, asking, _open)
    activities = ActivityRecorder(there.activity.add if settings.activity_days else None, utc_now)
    _open.push_async_callback(activities.flush)
    caller = ClientContext(asking, activities, _open)
    fhir = FhirServer(open_upstream("FHIR server", settings.fhir, caller))
    dataverse = Dataverse(
        open_upstream("Dataverse", settings.dataverse, caller), settings.mirror.change_headers
    )
    # A third to start the request, a third to wait for it; and the FHIR server may be busy with it
    # for as long again.
    lease = 3.0 * settings.fhir.timeout
    order = WriteGuard(
        store=there.guard_store,
        lease=lease,
        now=time.time,
        token=_token,
        pause=asyncio.sleep,
        jitter=random.random,
    )
    routes = DataRoutes(there.data_routes, tables, settings.mirror.target != "off", frozenset(told))
    worker = SharedParts(
        settings,
        there,
        fhir,
        dataverse,
        order,
        routes,
        activities,
        build_maps_loader(read),
        utc_now,
        _new_id,
    )
    reading, max_age = settings.deliveries, float(settings.max_age)
    return Parts(
        there.journal,
        there.queue,
        fhir,
        dataverse,
        Intake(
            journal=there.journal,
            queue=there.queue,
            now=utc_now,
            new_id=_new_id,
            max_bytes=reading.max_delivery_bytes,
            validate=reading.validate,
            sender_header=settings.sender_header,
            policy=Policy(reading.messages, reading.documents, reading.dangling),
            write_orders=settings.write_order,
        ),
        Relay(
            context=LaneContext(
                journal=there.journal,
                queue=there.queue,
                fhir=fhir,
                guard=order,
                change_queues=routes.get_change_queues,
            ),
            limits=Limits(reading.unit_max_entries, reading.unit_max_bytes, reading.over_limit),
            now=utc_now,
            max_age=max_age,
            sources=open_sources(settings, caller),
            activities=activities,
        ),
        Events(
            journal=there.journal,
            queue=there.queue,
            change_queues=routes.get_change_queues,
            fhir_url=settings.fhir.url,
            now=utc_now,
        ),
        Housekeeping(
            journal=there.journal,
            guard_store=there.guard_store,
            queue=there.queue,
            activity=there.activity,
            now=utc_now,
            ages=Ages(
                timedelta(seconds=settings.max_age),
                timedelta(days=settings.retention_days),
                timedelta(days=settings.activity_days),
            ),
        ),
        there.activity,
        routes,
        utc_now,
        cache(partial(build_mirror, worker)),
        cache(partial(build_virtual_tables, worker)),
        cache(partial(build_external_events, worker)),
    )


def _files(mirroring: MirrorSettings) -> list[MapFile]:
    chosen = (
        mirroring.map_set,
        mirroring.map_prefix,
        mirroring.maps_folder,
        mirroring.enabled_maps,
    )
    return files.read_map_files(*chosen)


def _check(told: Iterable[str], tables: Mapping[str, MappedTable]) -> None:
    """Else a misspelt type would never be heard of."""
    virtual = {name for name, table in tables.items() if VIRTUAL in table.routes}
    if strangers := sorted({*told} - virtual):
        raise Misconfigured(f"EXTERNAL_EVENTS: no virtual table is of {', '.join(strangers)}")


def utc_now() -> datetime:
    return datetime.now(UTC)


def _new_id(now: datetime) -> str:
    return make_delivery_id(now, secrets.randbits(74))


def _token() -> str:
    return secrets.token_hex(8)


def build_credential(settings: Settings, open_: AsyncExitStack = _open) -> Any:
    """One for all neighbours; none where only a laptop's neighbours are named."""
    scopes = (settings.fhir.scope, settings.dataverse.scope, *settings.fetch_from.values())
    if settings.storage.connection and not any(scopes):
        return None
    return open_credential(settings.client_id, open_)


def open_sources(settings: Settings, caller: ClientContext) -> Sources:
    """The servers of senders from which something may be fetched."""
    most, timeout = settings.deliveries.max_delivery_bytes, settings.fhir.timeout
    neighbours = {
        base: open_upstream(
            f"source {base}", UpstreamSettings(base, scope, _AT_A_SOURCE, timeout), caller, most
        )
        for base, scope in settings.fetch_from.items()
    }
    return Sources(neighbours, settings.fetch_pages, most)


# -- parts that know the paths of maps, built at their first use -------------------------------


@dataclass(frozen=True, slots=True)
class SharedParts:
    """What they are made of. `maps` are understood once, whoever asks first."""

    settings: Settings
    stores: Stores
    fhir: FhirServer
    dataverse: Dataverse
    guard: WriteGuard
    data_routes: DataRoutes
    activities: ActivityRecorder
    maps: Callable[[], Maps]
    now: Callable[[], datetime]
    new_id: Callable[[datetime], str]


def build_maps_loader(read: Iterable[MapFile]) -> Callable[[], Maps]:
    """What the files say, once it is asked for."""

    @cache
    def maps() -> Maps:
        from integration.mapping import load

        return load.build_maps(read)

    return maps


def build_mirror(it: SharedParts) -> Mirror:
    """Brings the rows of every map that has a table for them."""
    from integration.mapping.model import Route
    from integration.mirror.web_api_sink import WebApiSink

    maps, to, there = it.maps(), it.settings.mirror, it.stores
    rows = WebApiSink(
        fhir=it.fhir,
        dataverse=it.dataverse,
        pending_lookups=there.waits,
        queue=there.queue,
        all_maps=maps.available,
        on_delete=to.on_delete,
    )
    return Mirror(
        journal=there.journal,
        queue=there.queue,
        sink=_sink(to.target, rows, it.guard),
        maps={
            name: entity.select_route(Route.DATAVERSE)
            for name, entity in maps.entities.items()
            if Route.DATAVERSE in entity.routes
        },
        broken_maps=maps.broken,
        now=it.now,
        max_age=float(it.settings.max_age),
        activities=it.activities,
        change_queues=it.data_routes.get_change_queues,
        row_keys=there.row_keys,
    )


def build_virtual_tables(it: SharedParts) -> VirtualTables:
    """Shows every map that may be virtual."""
    from integration.mapping.model import Route
    from integration.virtual_tables.answer import VirtualTables
    from integration.virtual_tables.entity_type import build_entity_type
    from integration.virtual_tables.read import FeedReader
    from integration.virtual_tables.row_keys import RowKeyResolver
    from integration.virtual_tables.write import FeedWriter

    maps = it.maps().entities.values()
    shapes = {one.resource: build_entity_type(one) for one in maps if Route.VIRTUAL in one.routes}
    keys = RowKeyResolver(it.stores.row_keys, lambda type_: type_ not in shapes)
    feed = it.settings.feed
    return VirtualTables(
        it.data_routes,
        shapes,
        FeedReader(it.fhir, keys, feed.max_scanned),
        FeedWriter(it.fhir, keys, it.guard, lambda: it.new_id(it.now()), uuid4),
        feed.page_size,
        float(feed.timeout),
    )


def build_external_events(it: SharedParts) -> ExternalEvents:
    """Raises Misconfigured where nobody could have made the virtual tables."""
    from integration.change_events.to_dataverse import ExternalEvents, list_virtual_tables

    prefix = it.settings.mirror.map_prefix
    if prefix is None:
        raise Misconfigured("set MAP_PREFIX: EXTERNAL_EVENTS needs the names of virtual tables")
    return ExternalEvents(
        queue=it.stores.queue,
        fhir=it.fhir,
        dataverse=it.dataverse,
        guard=it.guard,
        tables=list_virtual_tables(it.data_routes.tables, prefix),
        now=it.now,
        max_age=float(it.settings.max_age),
        activities=it.activities,
    )


def _sink(to: str, rows: WebApiSink, order: WriteGuard) -> RowSink:
    from integration.mirror import healthcare_api_sink

    if to == "healthcare-api":
        return healthcare_api_sink.HealthcareApiSink(rows, order)
    return rows
