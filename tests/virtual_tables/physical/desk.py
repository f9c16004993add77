"""The feed before a real FHIR server and the stand-in for Dataverse, which has physical tables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import httpx

from integration.core.http import Upstream, build_limiter
from integration.core.model import RowResult, WorkItem
from integration.dataverse.client import Dataverse
from integration.journal.data_routes import ChosenRoute
from integration.journal.deletions import MemoryDeletions
from integration.journal.due_days import MemoryDueDays
from integration.journal.pending_lookups import MemoryPendingLookups
from integration.mapping.load import load_shipped_maps
from integration.mapping.model import EntityMap, Route
from integration.mirror.web_api_sink import WebApiSink
from integration.queues.queue_sender import MemoryQueueSender
from integration.virtual_tables.physical.source import PhysicalTables
from local.dataverse.tables import read_additions
from tests.builders import TODAY
from tests.doubles import DataverseDouble
from tests.virtual_tables.conftest import Feed, get_token_key

MAPS = load_shipped_maps()
URL = "http://dataverse"
DELIVERY = "019caaee-c260-7000-8000-000000000001"


@dataclass
class Desk:
    """The feed, and both of its sources."""

    feed: Feed
    double: DataverseDouble
    sink: WebApiSink
    maps: Mapping[str, EntityMap]

    def switch(self, *types: str, to: str = "dataverse") -> None:
        """Choose the route of these types, for all workers at once."""
        for name in types:
            self.feed.routes.routes[name] = ChosenRoute(to)
        self.feed.tables.data_routes.clear_cache()

    async def mirror(self, names: Iterable[str]) -> list[RowResult]:
        """Mirror these resources, as `Type/id`."""
        results = []
        for name in names:
            entity = self.maps[name.partition("/")[0]].select_route(Route.DATAVERSE)
            item = WorkItem(DELIVERY, resource=name)
            results.append(await self.sink.bring_up_to_date(entity, item))
        return results


@asynccontextmanager
async def open_desk(feed: Feed, maps: Mapping[str, EntityMap] = MAPS) -> AsyncIterator[Desk]:
    double = DataverseDouble(read_additions(prefix="abc"))
    async with httpx.AsyncClient(transport=double, base_url=URL) as http:
        dataverse = Dataverse(Upstream("Dataverse", URL, http, build_limiter(16)))
        physical = PhysicalTables(
            dataverse=dataverse, maps=maps, max_scanned=2000, get_token_key=get_token_key
        )
        feed.tables = replace(feed.tables, rows=physical)
        sink = WebApiSink(
            fhir=feed.tables.reader.fhir,
            dataverse=dataverse,
            pending_lookups=MemoryPendingLookups(),
            deletions=MemoryDeletions(),
            due_days=MemoryDueDays(),
            queue=MemoryQueueSender(),
            all_maps=maps,
            today=lambda: TODAY,
        )
        yield Desk(feed, double, sink, maps)
