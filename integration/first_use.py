"""Parts that know the paths of maps: built at their first use, since to understand those takes
longer than all the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from typing import TYPE_CHECKING
from uuid import uuid4

from integration.core.activity import Activities
from integration.core.errors import Misconfigured
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.journal.write_guard import Order
from integration.mapping.files import File
from integration.mirror.mirror import Mirror, Sink
from integration.settings import Settings
from integration.virtual_tables.data_routes import DataRoutes

if TYPE_CHECKING:
    from integration.change_events.to_dataverse import ExternalEvents
    from integration.mapping.load import Maps
    from integration.mirror.web_api_sink import WebApi
    from integration.storage import Opened
    from integration.virtual_tables.answer import VirtualTables


@dataclass(frozen=True, slots=True)
class Worker:
    """What they are made of. `maps` are understood once, whoever asks first."""

    settings: Settings
    there: Opened
    fhir: FhirServer
    dataverse: Dataverse
    order: Order
    routes: DataRoutes
    activities: Activities
    maps: Callable[[], Maps]
    now: Callable[[], datetime]
    new_id: Callable[[datetime], str]


def understood(read: Iterable[File]) -> Callable[[], Maps]:
    """What the files say, once it is asked for."""

    @cache
    def maps() -> Maps:
        from integration.mapping import load

        return load.understood(read)

    return maps


def mirror(it: Worker) -> Mirror:
    """Brings the rows of every map that has a table for them."""
    from integration.mapping.model import Route
    from integration.mirror.web_api_sink import WebApi

    maps, to, there = it.maps(), it.settings.mirroring, it.there
    rows = WebApi(it.fhir, it.dataverse, there.waits, there.outbox, maps.known, to.on_delete)
    return Mirror(
        there.journal,
        there.outbox,
        _sink(to.to, rows, it.order),
        {
            name: entity.on(Route.DATAVERSE)
            for name, entity in maps.entities.items()
            if Route.DATAVERSE in entity.routes
        },
        maps.broken,
        it.now,
        float(it.settings.max_age),
        it.activities,
        it.routes.followed,
        there.row_keys,
    )


def virtual_tables(it: Worker) -> VirtualTables:
    """Shows every map that may be virtual."""
    from integration.mapping.model import Route
    from integration.virtual_tables.answer import VirtualTables
    from integration.virtual_tables.entity_type import shape
    from integration.virtual_tables.read import Reading
    from integration.virtual_tables.row_keys import Keys
    from integration.virtual_tables.write import Writing

    maps = it.maps().entities.values()
    shapes = {one.resource: shape(one) for one in maps if Route.VIRTUAL in one.routes}
    keys = Keys(it.there.row_keys, lambda type_: type_ not in shapes)
    feed = it.settings.feed
    return VirtualTables(
        it.routes,
        shapes,
        Reading(it.fhir, keys, feed.breadth),
        Writing(it.fhir, keys, it.order, lambda: it.new_id(it.now()), uuid4),
        feed.page,
        float(feed.timeout),
    )


def external(it: Worker) -> ExternalEvents:
    """Raises Misconfigured where nobody could have made the virtual tables."""
    from integration.change_events.to_dataverse import ExternalEvents, tables

    prefix = it.settings.mirroring.map_prefix
    if prefix is None:
        raise Misconfigured("set MAP_PREFIX: EXTERNAL_EVENTS needs the names of virtual tables")
    return ExternalEvents(
        it.there.outbox,
        it.fhir,
        it.dataverse,
        it.order,
        tables(it.routes.tables, prefix),
        it.now,
        float(it.settings.max_age),
        it.activities,
    )


def _sink(to: str, rows: WebApi, order: Order) -> Sink:
    from integration.mirror import healthcare_api_sink, web_api_sink

    if to == "healthcare-api":
        return partial(healthcare_api_sink.bring, healthcare_api_sink.HealthcareApi(rows, order))
    return partial(web_api_sink.bring, rows)
