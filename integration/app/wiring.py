"""Build the parts of the app from its services and its configuration: at the first use of a worker,
and again for each version that is published.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from typing import TYPE_CHECKING

from integration.app.configuration_parts import build_configuration
from integration.app.http_clients import ClientContext, open_credential, open_upstream
from integration.app.identification import build_identification, build_replay_terms
from integration.app.inbox_parts import build_answers, build_inbox
from integration.app.map_parts import (
    build_edit_source,
    build_external_events,
    build_mirror,
    build_reconcile,
    build_virtual_tables,
)
from integration.app.operations_parts import build_housekeeping, build_status_check
from integration.app.package_documents import parse_configured_senders, parse_used_maps
from integration.app.services import Services, make_form_token, make_token, open_services
from integration.app.settings import (
    ReaderHeaders,
    Settings,
    find_renamed_settings,
    get_environment,
    read_dataverse_settings,
    read_settings,
)
from integration.app.shared_parts import MAX_DURATION, LazyMaps, SharedParts
from integration.app.shown_settings import list_settings
from integration.change_events.from_dataverse import EditSource
from integration.change_events.from_fhir import Events
from integration.core.activity_recorder import ActivityRecorder
from integration.core.flow_recorder import FlowRecorder
from integration.core.log_events import log_event
from integration.core.version import VERSION
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.intake.accept import Intake
from integration.intake.identify import Identification
from integration.intake.inbox import Inbox
from integration.journal.activity_log import ActivityLog
from integration.journal.audit_recorder import AuditRecorder
from integration.journal.configuration import ConfigurationVersion
from integration.journal.configured_routes import ConfiguredRoutes
from integration.journal.flow_log import FlowReader
from integration.journal.live_configuration import Configuration
from integration.journal.store import Journal
from integration.mapping import files
from integration.mirror.mirror import Mirror
from integration.operations.answers import Answers
from integration.operations.configuration import ConfigurationParts
from integration.operations.deliveries import ReplayTerms
from integration.operations.health import UpstreamCheck
from integration.operations.housekeeping import Housekeeping
from integration.operations.jobs import JobParts
from integration.operations.status import StatusCheck
from integration.pages.parts import AppFacts, MapSources, PagesParts, PatientParts
from integration.pages.people import SignIn
from integration.queues.queue_sender import QueueSender
from integration.relay.lane_run import LaneContext
from integration.relay.parts import Relay
from integration.virtual_tables.data_routes import DataRoutes

if TYPE_CHECKING:  # these import the mapping engine, which takes long to load
    from integration.change_events.to_dataverse import ExternalEvents
    from integration.virtual_tables.answer import VirtualTables


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What endpoints and triggers hand to the verbs. `version`: of the configuration that they are
    built for."""

    version: ConfigurationVersion
    journal: Journal
    queue: QueueSender
    fhir: FhirServer
    dataverse: Dataverse
    upstream_check: UpstreamCheck
    status_check: StatusCheck
    intake: Intake
    relay: Relay
    change_events: Events
    edit_source: EditSource
    housekeeping: Housekeeping
    activity: ActivityLog
    flow: FlowReader
    flow_recorder: FlowRecorder
    audit: AuditRecorder
    reader_headers: ReaderHeaders
    data_routes: DataRoutes
    identification: Identification
    replay_terms: ReplayTerms
    jobs: JobParts
    configuration: ConfigurationParts
    inbox: Inbox | None
    answers: Answers
    site_url: str | None
    public_url: str | None
    started: datetime
    now: Callable[[], datetime]
    pages: PagesParts
    maps: LazyMaps
    _mirror: Callable[[], Mirror]
    _virtual_tables: Callable[[], VirtualTables]
    _external_events: Callable[[], ExternalEvents]

    @property
    def mirror(self) -> Mirror:
        """Built at its first use, because its maps take longer to load than everything else."""
        return self._mirror()

    @property
    def virtual_tables(self) -> VirtualTables:
        """Built at its first use, for the same reason."""
        return self._virtual_tables()

    @property
    def external_events(self) -> ExternalEvents:
        """Built at its first use, for the same reason."""
        return self._external_events()


_services: Services | None = None
_parts: Parts | None = None
_building = asyncio.Lock()
_exit_stack = AsyncExitStack()  # closes the clients of the services


async def get_parts() -> Parts:
    """Return the parts of this worker, built for the version of the configuration that is in use.
    Raises Misconfigured that names every missing setting."""
    global _services, _parts
    if _services is None:
        async with _building:
            if _services is None:
                _services = await open_services(read_settings(), _exit_stack)
    configuration = await _services.configuration.get()
    if _parts is None or _parts.version != configuration.version:
        async with _building:
            # Again: while this one waited, another may have built the parts for a later version.
            configuration = await _services.configuration.get()
            if _parts is None or _parts.version != configuration.version:
                _parts = await _rebuild(_services, configuration, _parts)
    return _parts


async def close_parts() -> None:
    """Close all clients, for a process that goes on without its parts. A worker just ends."""
    global _services, _parts
    _services = _parts = None
    await _exit_stack.aclose()


async def _rebuild(services: Services, configuration: Configuration, old: Parts | None) -> Parts:
    """Build the parts for a configuration. What has begun with the old ones ends with them."""
    parts = _build_parts(services, configuration, old)
    if old is not None:
        log_event("configuration.used", version=configuration.version.number)
        if parts.maps is not old.maps:
            services.dataverse.expire_columns()  # a map may fill a column that is new
        if old.maps.are_loaded and not parts.maps.are_loaded:
            # Else the first work item would keep the event loop while it compiles the maps.
            await asyncio.to_thread(parts.maps.load)
    return parts


@asynccontextmanager
async def open_dataverse() -> AsyncIterator[Dataverse]:
    """Open Dataverse alone, for a command that needs nothing else. Raises Misconfigured."""
    settings = read_dataverse_settings()
    async with AsyncExitStack() as exit_stack:
        needs_token = settings.dataverse.scope is not None
        credential = open_credential(settings.client_id, exit_stack) if needs_token else None
        context = ClientContext(credential, ActivityRecorder(), exit_stack)
        yield Dataverse(open_upstream("Dataverse", settings.dataverse, context))


@asynccontextmanager
async def open_configuration() -> AsyncIterator[ConfigurationParts]:
    """Open what changes the configuration, for a command: also where the one in use is broken, so
    that no part of the app can be built. Raises Misconfigured."""
    async with AsyncExitStack() as exit_stack:
        yield build_configuration(await open_services(read_settings(), exit_stack))


def _find_own_prefix(settings: Settings) -> str | None:
    """Return the prefix of the tables that an organisation without Cloud for Healthcare has instead
    of Microsoft's."""
    return settings.mirror.map_prefix if settings.mirror.map_set == "plain" else None


def _build_parts(services: Services, in_use: Configuration, old: Parts | None) -> Parts:
    settings, stores = services.settings, services.stores
    map_files = parse_used_maps(in_use.documents, settings)
    tables = files.list_tables(map_files)
    shared = SharedParts(
        services=services,
        version=in_use.version,
        senders=parse_configured_senders(in_use.documents),
        data_routes=DataRoutes(
            store=ConfiguredRoutes(services.configuration),
            tables=tables,
            is_mirroring=settings.mirror.target != "off",
            event_types=frozenset(settings.feed.event_types),
            now=services.now,
        ),
        maps=LazyMaps(map_files, _find_own_prefix(settings))
        if old is None or old.maps.files != map_files
        else old.maps,
    )
    identification = build_identification(services, shared.senders)
    replay_terms = build_replay_terms(settings, services.intake, identification)
    status_check = build_status_check(
        stores,
        identification.senders or {},
        now=services.now,
        sender_problems=identification.secrets.problems,
        upstream_check=services.upstream_check,
        flow=services.live_flow,
    )
    load_mirror = cache(partial(build_mirror, shared))
    configuration = build_configuration(services)
    jobs = JobParts(
        jobs=stores.jobs,
        journal=stores.journal,
        queue=stores.queue,
        now=services.now,
        new_token=make_token,
        terms=replay_terms,
        reconcile=build_reconcile(shared, load_mirror),
    )
    return Parts(
        version=in_use.version,
        journal=stores.journal,
        queue=stores.queue,
        fhir=services.fhir,
        dataverse=services.dataverse,
        upstream_check=services.upstream_check,
        status_check=status_check,
        intake=services.intake,
        relay=_build_relay(shared),
        change_events=Events(
            journal=stores.journal,
            queue=stores.queue,
            change_queues=shared.data_routes.get_change_queues,
            fhir_url=settings.fhir.url,
            now=services.now,
        ),
        edit_source=build_edit_source(shared, load_mirror),
        housekeeping=build_housekeeping(settings, stores, services.now, MAX_DURATION),
        activity=stores.activity,
        flow=services.live_flow,
        flow_recorder=services.flow,
        audit=services.audit,
        reader_headers=ReaderHeaders(settings.senders.sender_header, settings.audit.user_header),
        data_routes=shared.data_routes,
        identification=identification,
        replay_terms=replay_terms,
        jobs=jobs,
        configuration=configuration,
        inbox=build_inbox(settings, stores, services.intake, identification),
        answers=build_answers(settings, stores, services.now),
        site_url=settings.senders.site_url,
        public_url=settings.senders.public_url,
        started=services.started,
        now=services.now,
        pages=_build_pages(
            shared,
            identification=identification,
            replay_terms=replay_terms,
            status_check=status_check,
            jobs=jobs,
            configuration=configuration,
            load_mirror=load_mirror,
        ),
        maps=shared.maps,
        _mirror=load_mirror,
        _virtual_tables=cache(partial(build_virtual_tables, shared)),
        _external_events=cache(partial(build_external_events, shared)),
    )


def _build_pages(
    shared: SharedParts,
    *,
    identification: Identification,
    replay_terms: ReplayTerms,
    status_check: StatusCheck,
    jobs: JobParts,
    configuration: ConfigurationParts,
    load_mirror: Callable[[], Mirror],
) -> PagesParts:
    services = shared.services
    settings, stores = services.settings, services.stores
    return PagesParts(
        sign_in=SignIn(easy_auth=settings.senders.easy_auth, is_open=settings.pages_are_open),
        journal=stores.journal,
        audit=services.audit,
        activity=stores.activity,
        queue=stores.queue,
        intake=services.intake,
        replay_terms=replay_terms,
        status_check=status_check,
        jobs=jobs,
        configuration=configuration,
        flow=services.live_flow,
        budget=services.pages_budget,
        dataverse_url=settings.dataverse.url,
        fhir=services.fhir,
        dataverse=services.dataverse,
        data_routes=shared.data_routes,
        maps=MapSources(
            files=shared.maps.files, load=shared.maps.load, on_delete=settings.mirror.on_delete
        ),
        app=AppFacts(
            version=VERSION,
            started=services.started,
            settings=list_settings(settings, get_environment()),
            renamed=tuple(find_renamed_settings().items()),
        ),
        now=services.now,
        new_token=make_form_token,
        identification=identification,
        public_url=settings.senders.public_url,
        patients=PatientParts(
            fhir=services.fhir,
            queue=stores.queue,
            row_keys=stores.row_keys,
            change_queues=shared.data_routes.get_change_queues,
            load_mirror=load_mirror,
            new_id=services.new_id,
        ),
    )


def _build_relay(shared: SharedParts) -> Relay:
    services = shared.services
    return Relay(
        context=LaneContext(
            journal=services.stores.journal,
            queue=services.stores.queue,
            fhir=services.fhir,
            guard=services.guard,
            change_queues=shared.data_routes.get_change_queues,
        ),
        limits=services.limits,
        now=services.now,
        max_age=services.max_age,
        max_duration=MAX_DURATION,
        sources=services.sources,
        activities=services.activities,
        flow=services.flow,
        budget=services.relay_budget,
    )
