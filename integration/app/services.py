"""Open what lives as long as a worker: its clients, its stores, and what counts or caches.

It follows from the settings alone. What follows from the configuration, too, is built from it by
`wiring`, again for each version.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from integration.app.http_clients import ClientContext, open_credential, open_upstream
from integration.app.package_documents import read_package_documents
from integration.app.settings import Settings, UpstreamSettings
from integration.change_events.from_dataverse import Bell
from integration.core.activity_recorder import ActivityRecorder
from integration.core.byte_budget import ByteBudget
from integration.core.flow_recorder import FlowRecorder
from integration.core.model import Policy
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.fhir.units import Limits
from integration.intake.accept import Intake
from integration.intake.quotas import Quotas
from integration.journal.audit_log import AuditLog
from integration.journal.audit_recorder import AuditRecorder
from integration.journal.flow_log import LiveFlow
from integration.journal.live_configuration import LiveConfiguration
from integration.journal.signing_keys import SKIP_TOKENS, SigningKey
from integration.journal.table_keys import make_delivery_id
from integration.journal.write_guard import WriteGuard, is_cancelled_or_gone
from integration.operations.health import UpstreamCheck
from integration.relay.fetch import Sources
from integration.senders.jwks import KeySet

if TYPE_CHECKING:  # its SDKs take long to load
    from integration.app.storage_clients import Stores

# The SDKs log every request at INFO, which costs money and helps nobody.
logging.getLogger("azure").setLevel(logging.WARNING)

# Seconds that entries of the activity log wait for others.
_ACTIVITY_DELAY = 1.0

# Concurrent requests of one worker to a sender's server.
_SOURCE_CONCURRENCY = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What all parts of a worker are made of, whatever the configuration says. `key_sets`: of the
    issuers whose tokens senders prove themselves with, by address."""

    settings: Settings
    stores: Stores
    context: ClientContext
    fhir: FhirServer
    dataverse: Dataverse
    guard: WriteGuard
    activities: ActivityRecorder
    flow: FlowRecorder
    live_flow: LiveFlow
    audit: AuditRecorder
    intake: Intake
    sources: Sources
    upstream_check: UpstreamCheck
    configuration: LiveConfiguration
    now: Callable[[], datetime]
    new_id: Callable[[datetime], str]
    started: datetime
    # In Azure no two sides run in one process, and elsewhere neither shall keep the other from its
    # work.
    relay_budget: ByteBudget
    pages_budget: ByteBudget
    token_key: SigningKey
    bell: Bell = field(default_factory=Bell)
    quotas: Quotas = field(default_factory=lambda: Quotas(time.monotonic))
    key_sets: dict[str, KeySet] = field(default_factory=dict)

    @property
    def max_age(self) -> float:
        """Seconds after which work is parked."""
        return float(self.settings.max_age)

    @property
    def limits(self) -> Limits:
        """Of a unit."""
        return _build_limits(self.settings)


async def open_services(settings: Settings, exit_stack: AsyncExitStack) -> Services:
    """Open the services, which `exit_stack` closes. Raises Unavailable or Misconfigured."""
    # Imported here with its SDKs, so that declaring the functions does not wait for them.
    from integration.app import storage_clients

    package = read_package_documents(settings)
    credential = build_credential(settings, exit_stack)
    stores = await storage_clients.open_stores(
        settings.storage, credential, exit_stack, settings.inbox
    )
    activities = ActivityRecorder(
        stores.activity.add if settings.activity_days else None, utc_now, delay=_ACTIVITY_DELAY
    )
    exit_stack.push_async_callback(activities.flush)
    flow = FlowRecorder(store=stores.flow.save_flows, worker=make_token(), now=utc_now)
    exit_stack.push_async_callback(flow.flush)
    context = ClientContext(credential, activities, exit_stack)
    fhir = FhirServer(open_upstream("FHIR server", settings.fhir, context))
    dataverse = Dataverse(
        open_upstream("Dataverse", settings.dataverse, context), settings.mirror.change_headers
    )
    max_bytes = settings.deliveries.max_bytes_in_flight
    return Services(
        settings=settings,
        stores=stores,
        context=context,
        fhir=fhir,
        dataverse=dataverse,
        guard=_build_write_guard(settings, stores),
        activities=activities,
        flow=flow,
        live_flow=LiveFlow(stores.flow, flow),
        audit=_build_audit(settings, stores.audit),
        intake=_build_intake(settings, stores, flow),
        sources=open_sources(settings, context),
        upstream_check=UpstreamCheck(stores.journal, fhir, dataverse, utc_now),
        configuration=LiveConfiguration(store=stores.configuration, package=package),
        now=utc_now,
        new_id=new_delivery_id,
        started=utc_now(),
        relay_budget=ByteBudget(max_bytes),
        pages_budget=ByteBudget(max_bytes),
        token_key=SigningKey(stores.signing_keys, SKIP_TOKENS, make_signing_key),
    )


def utc_now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


def new_delivery_id(now: datetime) -> str:
    """Make a new id of a delivery that was accepted at `now`."""
    return make_delivery_id(now, secrets.randbits(74))


def make_token() -> str:
    """Make a token that tells apart what happens at one time."""
    return secrets.token_hex(8)


def make_signing_key() -> bytes:
    """Make a key for AES-SIV, which takes as many bytes."""
    return secrets.token_bytes(32)


def make_form_token() -> str:
    """Make a token that nobody can guess."""
    return secrets.token_urlsafe(24)


def build_credential(settings: Settings, exit_stack: AsyncExitStack) -> Any:
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


def _build_write_guard(settings: Settings, stores: Stores) -> WriteGuard:
    return WriteGuard(
        store=stores.guard_store,
        # A third to start the request and a third to wait for it; the FHIR server may go on with it
        # for as long again.
        lease=3.0 * settings.fhir.timeout,
        read_lag=float(settings.read_lag),
        now=time.time,
        token=make_token,
        pause=asyncio.sleep,
        jitter=random.random,  # noqa: S311 -- spreads retries, no secret
        is_over=partial(is_cancelled_or_gone, stores.journal),
    )


def _build_audit(settings: Settings, log: AuditLog) -> AuditRecorder:
    return AuditRecorder(
        log=log,
        now=utc_now,
        new_token=make_token,
        is_on=settings.audit.days > 0,
        is_required=settings.audit.is_required,
    )


def _build_intake(settings: Settings, stores: Stores, flow: FlowRecorder) -> Intake:
    deliveries = settings.deliveries
    return Intake(
        journal=stores.journal,
        queue=stores.queue,
        now=utc_now,
        new_id=new_delivery_id,
        max_bytes=deliveries.max_delivery_bytes,
        max_entries=deliveries.max_delivery_entries,
        policy=Policy(
            deliveries.messages, deliveries.documents, deliveries.dangling, deliveries.validate
        ),
        limits=_build_limits(settings),
        write_orders=settings.write_order,
        budget=ByteBudget(deliveries.max_bytes_in_flight),
        flow=flow,
    )


def _build_limits(settings: Settings) -> Limits:
    deliveries = settings.deliveries
    return Limits(deliveries.unit_max_entries, deliveries.unit_max_bytes, deliveries.over_limit)
