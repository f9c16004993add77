"""Build the parts that need the maps: at their first use, since maps take long to load."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, date
from functools import cache, partial
from typing import TYPE_CHECKING
from uuid import uuid4

from integration.app.configuration_parts import find_changes, find_map_by_digest
from integration.app.services import Services
from integration.app.shared_parts import MAX_DURATION, SharedParts
from integration.change_events.from_dataverse import EditSource
from integration.core.errors import Misconfigured
from integration.journal.jobs import Comparison, Job
from integration.journal.write_guard import WriteGuard
from integration.mirror.mirror import Mirror
from integration.mirror.row_sink import RowSink
from integration.operations.job_work import Part
from integration.operations.reconcile_jobs import ReconcileWork
from integration.virtual_tables.data_routes import end_bringing, is_brought_by

if TYPE_CHECKING:  # these import the mapping engine
    from integration.change_events.to_dataverse import ExternalEvents
    from integration.mapping.model import EntityMap
    from integration.mirror.web_api_sink import WebApiSink
    from integration.mirror.write_edits import WriteBack
    from integration.reconcile.job import ReconcileParts
    from integration.virtual_tables.answer import VirtualTables
    from integration.virtual_tables.row_keys import RowKeyResolver


def _get_today(services: Services) -> date:
    return services.now().astimezone(UTC).date()


def build_mirror(shared: SharedParts) -> Mirror:
    """Build the mirror of every map that has a table for its rows."""
    from integration.mapping.model import Route
    from integration.mirror.web_api_sink import WebApiSink

    maps, services = shared.maps.load(), shared.services
    settings, stores = services.settings.mirror, services.stores
    web_api = WebApiSink(
        fhir=services.fhir,
        dataverse=services.dataverse,
        pending_lookups=stores.waits,
        deletions=stores.deletions,
        due_days=stores.due_days,
        queue=stores.queue,
        all_maps=maps.available,
        today=partial(_get_today, services),
        on_delete=settings.on_delete,
        change_queues=shared.data_routes.get_change_queues,
        former_urls=settings.former_urls,
        other_urls=settings.other_urls,
        write_back=_build_write_back(services),
    )
    return Mirror(
        journal=stores.journal,
        queue=stores.queue,
        sink=choose_sink(settings.target, web_api, services.guard),
        maps={
            name: entity.select_route(Route.DATAVERSE)
            for name, entity in maps.entities.items()
            if Route.DATAVERSE in entity.routes
        },
        broken_maps=maps.broken,
        now=services.now,
        max_age=services.max_age,
        activities=services.activities,
        flow=services.flow,
        change_queues=shared.data_routes.get_change_queues,
        current_queues=shared.data_routes.read_change_queues,
        get_reported=shared.data_routes.get_reported_types,
        row_keys=stores.row_keys,
        configuration=shared.version.number,
    )


_MAX_FORMER_MAPS = 100


def _build_write_back(services: Services) -> WriteBack | None:
    """Build what writes people's edits of rows to FHIR; None where nothing does."""
    from integration.edits.signed_write import EditWriter
    from integration.mirror.write_edits import WriteBack

    if services.settings.mirror.write_back == "off":
        return None
    known: dict[tuple[str, str], EntityMap | None] = {}

    async def find_former_map(type_: str, digest: str) -> EntityMap | None:
        if len(known) >= _MAX_FORMER_MAPS:  # anybody can write a digest into a row
            known.clear()
        if (type_, digest) not in known:
            known[type_, digest] = await find_map_by_digest(services, type_, digest)
        return known[type_, digest]

    return WriteBack(
        writer=EditWriter(
            fhir=services.fhir,
            guard=services.guard,
            new_run_id=lambda: services.new_id(services.now()),
            now=services.now,
            dataverse_url=services.settings.dataverse.url,
        ),
        find_former_map=find_former_map,
        makes_new=services.settings.mirror.makes_new,
    )


def build_edit_source(shared: SharedParts, load_mirror: Callable[[], Mirror]) -> EditSource:
    """Build what finds people's edits of rows."""
    services = shared.services
    stores = services.stores
    return EditSource(
        journal=stores.journal,
        queue=stores.queue,
        dataverse=services.dataverse,
        cursors=stores.edit_cursors,
        change_queues=shared.data_routes.get_change_queues,
        load_maps=lambda: load_mirror().maps,
        now=services.now,
        new_id=services.new_id,
        clock=time.monotonic,
        max_duration=MAX_DURATION,
        bell=services.bell,
        is_on=services.settings.mirror.write_back != "off",
        is_bell_on=services.settings.mirror.write_back == "bell",
        takes_new=services.settings.mirror.makes_new,
    )


def build_reconcile(shared: SharedParts, load_mirror: Callable[[], Mirror]) -> ReconcileWork:
    """Build what does the jobs of kind reconcile. Its modules are imported at its first use."""

    async def end(type_: str, job_id: str, is_brought: bool) -> bool:
        return await end_bringing(shared.data_routes, type_, job_id, is_brought=is_brought)

    @cache
    def get_parts() -> ReconcileParts:
        from integration.reconcile.job import ReconcileParts

        return ReconcileParts(
            fhir=shared.services.fhir,
            dataverse=shared.services.dataverse,
            load_mirror=load_mirror,
            change_queues=shared.data_routes.get_change_queues,
            is_brought_by=partial(is_brought_by, shared.data_routes),
            end_bringing=end,
        )

    async def list_comparisons(type_: str) -> Sequence[Comparison]:
        from integration.reconcile import job

        return await job.list_comparisons(get_parts(), type_)

    async def check_bringing(type_: str) -> Sequence[Comparison]:
        from integration.reconcile import job

        return await job.check_bringing(get_parts(), type_)

    def work(asked: Job) -> AsyncGenerator[Part, None]:
        from integration.reconcile import job

        return job.work(get_parts(), asked)

    def preview(asked: Job) -> AsyncGenerator[Part, None]:
        from integration.reconcile import preview

        return preview.preview(get_parts(), partial(find_changes, shared.services), asked)

    return ReconcileWork(
        list_comparisons=list_comparisons,
        check_bringing=check_bringing,
        work=work,
        preview=preview,
    )


def build_virtual_tables(shared: SharedParts) -> VirtualTables:
    """Build the feed of every map that may be virtual."""
    from integration.mapping.model import Route
    from integration.virtual_tables.answer import VirtualTables
    from integration.virtual_tables.entity_type import build_entity_type
    from integration.virtual_tables.feed_reader import FeedReader
    from integration.virtual_tables.physical.source import PhysicalTables
    from integration.virtual_tables.write import FeedWriter

    services = shared.services
    entity_types = {
        entity.resource: build_entity_type(entity)
        for entity in shared.maps.load().entities.values()
        if Route.VIRTUAL in entity.routes
    }
    keys = _build_row_keys(shared)
    feed = services.settings.feed
    return VirtualTables(
        data_routes=shared.data_routes,
        entity_types=entity_types,
        reader=FeedReader(
            fhir=services.fhir,
            keys=keys,
            max_scanned=feed.max_scanned,
            today=partial(_get_today, services),
            get_token_key=services.token_key.get,
        ),
        writer=FeedWriter(
            fhir=services.fhir,
            keys=keys,
            guard=services.guard,
            new_run_id=lambda: services.new_id(services.now()),
            new_key=uuid4,
            today=partial(_get_today, services),
        ),
        audit=services.audit,
        max_page_size=feed.page_size,
        timeout=float(feed.timeout),
        rows=PhysicalTables(
            dataverse=services.dataverse,
            maps=shared.maps.load().available,
            max_scanned=feed.max_scanned,
            get_token_key=services.token_key.get,
        ),
    )


def _build_row_keys(shared: SharedParts) -> RowKeyResolver:
    """Build what finds the keys of the rows that the feed shows."""
    from integration.mapping.primary_keys import ServerKeys
    from integration.virtual_tables.row_keys import RowKeyResolver

    return RowKeyResolver(
        shared.services.stores.row_keys,
        shared.data_routes.has_had_rows,
        server_keys=ServerKeys(shared.services.settings.fhir.url),
    )


def build_external_events(shared: SharedParts) -> ExternalEvents:
    """Build what tells Dataverse of changes. Raises Misconfigured without MAP_PREFIX."""
    from integration.change_events.to_dataverse import ExternalEvents, list_virtual_tables

    services = shared.services
    prefix = services.settings.mirror.map_prefix
    if prefix is None:
        raise Misconfigured("set MAP_PREFIX: EXTERNAL_EVENTS needs the names of virtual tables")
    keys = _build_row_keys(shared)

    async def find_key(resource: str) -> str:
        await shared.data_routes.get_routes()  # it knows by them whose rows may have other keys
        return str((await keys.resolve_keys([resource]))[resource])

    return ExternalEvents(
        queue=services.stores.queue,
        fhir=services.fhir,
        dataverse=services.dataverse,
        guard=services.guard,
        tables=list_virtual_tables(shared.data_routes.tables, prefix),
        find_key=find_key,
        now=services.now,
        max_age=services.max_age,
        activities=services.activities,
    )


def choose_sink(target: str, web_api: WebApiSink, guard: WriteGuard) -> RowSink:
    """Choose what writes the rows of a resource, by the setting MIRROR_TO."""
    from integration.mirror import healthcare_api_sink

    if target == "healthcare-api":
        return healthcare_api_sink.HealthcareApiSink(web_api, guard)
    return web_api
