"""Build the parts of the app from its settings: once per worker, at the first use.

No other module builds clients.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from integration.app.http_clients import ClientContext, open_credential, open_upstream
from integration.app.identification import build_identification, build_replay_terms
from integration.app.inbox_parts import build_answers, build_inbox
from integration.app.map_parts import (
    build_external_events,
    build_maps_loader,
    build_mirror,
    build_reconcile,
    build_virtual_tables,
)
from integration.app.operations_parts import build_housekeeping, build_status_check
from integration.app.settings import (
    MirrorSettings,
    ReaderHeaders,
    Settings,
    UpstreamSettings,
    find_renamed_settings,
    get_environment,
    read_dataverse_settings,
    read_settings,
)
from integration.app.shared_parts import SharedParts
from integration.app.shown_settings import list_settings
from integration.change_events.from_fhir import Events
from integration.core.activity_recorder import ActivityRecorder
from integration.core.byte_budget import ByteBudget
from integration.core.errors import Misconfigured
from integration.core.flow_recorder import FlowRecorder
from integration.core.model import Policy
from integration.core.version import VERSION
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.fhir.units import Limits
from integration.intake.accept import Intake
from integration.intake.identify import Identification
from integration.intake.inbox import Inbox
from integration.journal.activity_log import ActivityLog
from integration.journal.audit_log import AuditLog
from integration.journal.audit_recorder import AuditRecorder
from integration.journal.flow_log import FlowReader, LiveFlow
from integration.journal.store import Journal
from integration.journal.table_keys import make_delivery_id
from integration.journal.write_guard import WriteGuard, is_cancelled_or_gone
from integration.mapping import files
from integration.mapping.files import MapFile, MappedTable
from integration.mirror.mirror import Mirror
from integration.operations.answers import Answers
from integration.operations.deliveries import ReplayTerms
from integration.operations.health import UpstreamCheck
from integration.operations.housekeeping import Housekeeping
from integration.operations.jobs import JobParts
from integration.operations.status import StatusCheck
from integration.pages.parts import AppFacts, MapSources, PagesParts, PatientParts
from integration.pages.people import SignIn
from integration.queues.queue_sender import QueueSender
from integration.relay.fetch import Sources
from integration.relay.lane_run import LaneContext
from integration.relay.parts import Relay
from integration.virtual_tables.data_routes import VIRTUAL, DataRoutes

if TYPE_CHECKING:  # these import the mapping engine, which takes long to load
    from integration.app.storage_clients import Stores
    from integration.change_events.to_dataverse import ExternalEvents
    from integration.virtual_tables.answer import VirtualTables

# The SDKs log every request at INFO, which costs money and helps nobody.
logging.getLogger("azure").setLevel(logging.WARNING)

# Seconds after which the rest of a lane is left to a new work item, and what housekeeping has not
# deleted to its next run. The unit that is under way by
# then must end within functionTimeout of host.json, which ends the worker with all that it does:
# https://learn.microsoft.com/azure/azure-functions/functions-host-json#functiontimeout
MAX_DURATION = 240.0

# Seconds that entries of the activity log wait for others.
_ACTIVITY_DELAY = 1.0

# Concurrent requests of one worker to a sender's server.
_SOURCE_CONCURRENCY = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What endpoints and triggers hand to the verbs."""

    journal: Journal
    queue: QueueSender
    fhir: FhirServer
    dataverse: Dataverse
    upstream_check: UpstreamCheck
    status_check: StatusCheck
    intake: Intake
    relay: Relay
    change_events: Events
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
    inbox: Inbox | None
    answers: Answers
    site_url: str | None
    public_url: str | None
    started: datetime
    now: Callable[[], datetime]
    pages: PagesParts
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


_parts: Parts | None = None
_building = asyncio.Lock()
_exit_stack = AsyncExitStack()  # closes the clients of the parts


async def get_parts() -> Parts:
    """Return the parts of this worker. Raises Misconfigured that names every missing setting."""
    global _parts
    if _parts is None:
        async with _building:
            if _parts is None:
                _parts = await _build_parts(read_settings())
    return _parts


async def close_parts() -> None:
    """Close all clients, for a process that goes on without its parts. A worker just ends."""
    global _parts
    _parts = None
    await _exit_stack.aclose()


@asynccontextmanager
async def open_dataverse() -> AsyncIterator[Dataverse]:
    """Open Dataverse alone, for a command that needs nothing else. Raises Misconfigured."""
    settings = read_dataverse_settings()
    async with AsyncExitStack() as exit_stack:
        needs_token = settings.dataverse.scope is not None
        credential = open_credential(settings.client_id, exit_stack) if needs_token else None
        context = ClientContext(credential, ActivityRecorder(), exit_stack)
        yield Dataverse(open_upstream("Dataverse", settings.dataverse, context))


async def _build_parts(settings: Settings) -> Parts:
    # Imported here with its SDKs, so that declaring the functions does not wait for them.
    from integration.app import storage_clients

    map_files = _read_map_files(settings.mirror)
    tables = files.list_tables(map_files)
    _check_event_types(settings.feed.event_types, tables)
    credential = build_credential(settings)
    stores = await storage_clients.open_stores(
        settings.storage, credential, _exit_stack, settings.inbox
    )
    activities = ActivityRecorder(
        stores.activity.add if settings.activity_days else None, utc_now, delay=_ACTIVITY_DELAY
    )
    _exit_stack.push_async_callback(activities.flush)
    flow = FlowRecorder(store=stores.flow.save_flows, worker=_make_token(), now=utc_now)
    _exit_stack.push_async_callback(flow.flush)
    context = ClientContext(credential, activities, _exit_stack)
    shared = SharedParts(
        settings=settings,
        stores=stores,
        fhir=FhirServer(open_upstream("FHIR server", settings.fhir, context)),
        dataverse=Dataverse(
            open_upstream("Dataverse", settings.dataverse, context), settings.mirror.change_headers
        ),
        guard=_build_write_guard(settings, stores),
        data_routes=DataRoutes(
            store=stores.data_routes,
            tables=tables,
            is_mirroring=settings.mirror.target != "off",
            event_types=frozenset(settings.feed.event_types),
            now=utc_now,
        ),
        activities=activities,
        flow=flow,
        audit=_build_audit(settings, stores.audit),
        load_maps=build_maps_loader(map_files),
        now=utc_now,
        new_id=new_delivery_id,
    )
    live_flow = LiveFlow(stores.flow, flow)
    intake = _build_intake(shared)
    identification = build_identification(
        settings, stores.journal, context, now=utc_now, new_token=_make_token
    )
    replay_terms = build_replay_terms(settings, intake, identification)
    upstream_check = UpstreamCheck(stores.journal, shared.fhir, shared.dataverse, utc_now)
    status_check = build_status_check(
        stores,
        identification.senders or {},
        now=utc_now,
        sender_problems=identification.secrets.problems,
        upstream_check=upstream_check,
        flow=live_flow,
    )
    load_mirror = cache(partial(build_mirror, shared))
    jobs = JobParts(
        jobs=stores.jobs,
        journal=stores.journal,
        queue=stores.queue,
        now=utc_now,
        new_token=_make_token,
        terms=replay_terms,
        reconcile=build_reconcile(shared, load_mirror),
    )
    return Parts(
        journal=stores.journal,
        queue=stores.queue,
        fhir=shared.fhir,
        dataverse=shared.dataverse,
        upstream_check=upstream_check,
        status_check=status_check,
        intake=intake,
        relay=_build_relay(shared, open_sources(settings, context)),
        change_events=Events(
            journal=stores.journal,
            queue=stores.queue,
            change_queues=shared.data_routes.get_change_queues,
            fhir_url=settings.fhir.url,
            now=utc_now,
        ),
        housekeeping=build_housekeeping(settings, stores, utc_now, MAX_DURATION),
        activity=stores.activity,
        flow=live_flow,
        flow_recorder=flow,
        audit=shared.audit,
        reader_headers=ReaderHeaders(settings.senders.sender_header, settings.audit.user_header),
        data_routes=shared.data_routes,
        identification=identification,
        replay_terms=replay_terms,
        jobs=jobs,
        inbox=build_inbox(settings, stores, intake, identification),
        answers=build_answers(settings, stores, utc_now),
        site_url=settings.senders.site_url,
        public_url=settings.senders.public_url,
        started=utc_now(),
        now=utc_now,
        pages=PagesParts(
            sign_in=SignIn(easy_auth=settings.senders.easy_auth, is_open=settings.pages_are_open),
            journal=stores.journal,
            audit=shared.audit,
            activity=stores.activity,
            queue=stores.queue,
            intake=intake,
            replay_terms=replay_terms,
            status_check=status_check,
            jobs=jobs,
            flow=live_flow,
            budget=ByteBudget(settings.deliveries.max_bytes_in_flight),
            dataverse_url=settings.dataverse.url,
            fhir=shared.fhir,
            dataverse=shared.dataverse,
            data_routes=shared.data_routes,
            maps=MapSources(
                files=map_files, load=shared.load_maps, on_delete=settings.mirror.on_delete
            ),
            app=AppFacts(
                version=VERSION,
                started=utc_now(),
                settings=list_settings(settings, get_environment()),
                renamed=tuple(find_renamed_settings().items()),
            ),
            now=utc_now,
            new_token=_make_form_token,
            identification=identification,
            public_url=settings.senders.public_url,
            patients=PatientParts(
                fhir=shared.fhir,
                queue=stores.queue,
                row_keys=stores.row_keys,
                change_queues=shared.data_routes.get_change_queues,
                load_mirror=load_mirror,
                new_id=new_delivery_id,
            ),
        ),
        _mirror=load_mirror,
        _virtual_tables=cache(partial(build_virtual_tables, shared)),
        _external_events=cache(partial(build_external_events, shared)),
    )


def _read_map_files(mirror: MirrorSettings) -> list[MapFile]:
    return files.read_map_files(
        mirror.map_set, mirror.map_prefix, mirror.maps_folder, mirror.enabled_maps
    )


def _check_event_types(event_types: Iterable[str], tables: Mapping[str, MappedTable]) -> None:
    """Raise Misconfigured for a type without a virtual table: it may be misspelt."""
    virtual = {name for name, table in tables.items() if VIRTUAL in table.routes}
    if unknown := sorted({*event_types} - virtual):
        raise Misconfigured(f"EXTERNAL_EVENTS: there is no virtual table of {', '.join(unknown)}")


def utc_now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


def new_delivery_id(now: datetime) -> str:
    """Make a new id of a delivery that was accepted at `now`."""
    return make_delivery_id(now, secrets.randbits(74))


def _make_token() -> str:
    return secrets.token_hex(8)


def _make_form_token() -> str:
    return secrets.token_urlsafe(24)


def build_credential(settings: Settings, exit_stack: AsyncExitStack = _exit_stack) -> Any:
    """Build the credential for all upstreams. None: only services on a laptop are configured."""
    scopes = (settings.fhir.scope, settings.dataverse.scope, *settings.fetch_from.values())
    if settings.storage.connection and not any(scopes):
        return None
    return open_credential(settings.client_id, exit_stack)


def open_sources(settings: Settings, context: ClientContext) -> Sources:
    """Open the senders' servers that resources may be fetched from."""
    deliveries, timeout = settings.deliveries, settings.fhir.timeout
    max_bytes = deliveries.max_delivery_bytes
    upstreams = {}
    for base, scope in settings.fetch_from.items():
        upstream = UpstreamSettings(base, scope, _SOURCE_CONCURRENCY, timeout)
        upstreams[base] = open_upstream(f"source {base}", upstream, context, max_bytes)
    return Sources(upstreams, settings.fetch_pages, max_bytes, deliveries.max_delivery_entries)


# -- parts of a worker -----------------------------------------------------------------------------


def _build_write_guard(settings: Settings, stores: Stores) -> WriteGuard:
    return WriteGuard(
        store=stores.guard_store,
        # A third to start the request and a third to wait for it; the FHIR server may go on with it
        # for as long again.
        lease=3.0 * settings.fhir.timeout,
        read_lag=float(settings.read_lag),
        now=time.time,
        token=_make_token,
        pause=asyncio.sleep,
        jitter=random.random,  # noqa: S311 -- spreads retries, no secret
        is_over=partial(is_cancelled_or_gone, stores.journal),
    )


def _build_audit(settings: Settings, log: AuditLog) -> AuditRecorder:
    return AuditRecorder(
        log=log,
        now=utc_now,
        new_token=_make_token,
        is_on=settings.audit.days > 0,
        is_required=settings.audit.is_required,
    )


def _build_intake(shared: SharedParts) -> Intake:
    settings = shared.settings
    deliveries = settings.deliveries
    return Intake(
        journal=shared.stores.journal,
        queue=shared.stores.queue,
        now=shared.now,
        new_id=shared.new_id,
        max_bytes=deliveries.max_delivery_bytes,
        max_entries=deliveries.max_delivery_entries,
        policy=Policy(
            deliveries.messages, deliveries.documents, deliveries.dangling, deliveries.validate
        ),
        limits=_build_limits(settings),
        write_orders=settings.write_order,
        budget=ByteBudget(deliveries.max_bytes_in_flight),
        flow=shared.flow,
    )


def _build_limits(settings: Settings) -> Limits:
    deliveries = settings.deliveries
    return Limits(deliveries.unit_max_entries, deliveries.unit_max_bytes, deliveries.over_limit)


def _build_relay(shared: SharedParts, sources: Sources) -> Relay:
    return Relay(
        context=LaneContext(
            journal=shared.stores.journal,
            queue=shared.stores.queue,
            fhir=shared.fhir,
            guard=shared.guard,
            change_queues=shared.data_routes.get_change_queues,
        ),
        limits=_build_limits(shared.settings),
        now=shared.now,
        max_age=shared.max_age,
        max_duration=MAX_DURATION,
        sources=sources,
        activities=shared.activities,
        flow=shared.flow,
        # Its own: in Azure no other side runs in this process, and elsewhere neither side shall
        # keep the other from its work.
        budget=ByteBudget(shared.settings.deliveries.max_bytes_in_flight),
    )
