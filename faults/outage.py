"""Hours without a FHIR server, in simulated time.

Calls intake, relay and mirror directly, with a simulated clock and queues in memory that return
each work item when it is due.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count

import httpx

from faults import kinds
from faults.attention import parse_concern, record
from faults.attention_verdict import Difference, Due, compare
from faults.deliveries import Delivery, DeliveryFactory
from faults.injected import REFUSED_FOR_HOURS
from faults.judge import Report
from faults.verdict import AcceptedDelivery, EntryAnswer
from integration.app.services import utc_now
from integration.core.http import Upstream
from integration.core.model import Status, WorkItem
from integration.core.rate_limiter import Limiter, build_full_limit
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.fhir.units import Limits
from integration.intake.accept import Accepted, Intake, accept
from integration.intake.http_request import IncomingRequest
from integration.journal.attention import ConcernFilter
from integration.journal.deletions import MemoryDeletions
from integration.journal.due_days import MemoryDueDays
from integration.journal.guard_store import MemoryGuardStore
from integration.journal.pending_lookups import MemoryPendingLookups
from integration.journal.store import MemoryJournal
from integration.journal.table_keys import make_delivery_id
from integration.journal.write_guard import WriteGuard
from integration.mapping.load import load_shipped_maps
from integration.mirror import mirror
from integration.mirror.mirror import Mirror
from integration.mirror.web_api_sink import WebApiSink
from integration.operations.views import describe_concern
from integration.queues.names import MIRROR_QUEUE, RELAY_QUEUE
from integration.queues.queue_sender import QueueSender
from integration.relay import process
from integration.relay.lane_run import LaneContext
from integration.relay.parts import Relay
from local.services import Running

HOUR = 3600.0
HOURS = 2  # length of the outage
MAX_AGE = 72 * HOUR
LEASE = 330.0  # seconds of a write lock, as by default

# Delays of 2, 4, 8 … 900 seconds: in two hours a work item is retried less often than this.
MAX_ATTEMPTS = 20


class Clock:
    """A clock that starts now, as the servers' clocks do, and moves only by `advance`."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._begin = datetime.now(UTC)

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return self._begin + timedelta(seconds=self.seconds)

    async def advance(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass(slots=True)
class Queues:
    """A queue sender in memory. `take` returns the work item that is due first."""

    clock: Clock
    waiting: list[tuple[float, int, str, WorkItem]] = field(default_factory=list)
    max_attempts: int = 0
    _numbers: count[int] = field(default_factory=count)

    async def send(self, queue: str, work_item: WorkItem, delay: float = 0) -> None:
        due = self.clock() + round(delay)
        heapq.heappush(self.waiting, (due, next(self._numbers), queue, work_item))

    def take(self) -> tuple[str, WorkItem]:
        due, _, queue, work_item = heapq.heappop(self.waiting)
        self.clock.seconds = max(self.clock.seconds, due)
        self.max_attempts = max(self.max_attempts, work_item.attempt + 1)
        return queue, work_item


@dataclass(slots=True, kw_only=True)
class OutageTransport(httpx.AsyncBaseTransport):
    """Passes requests on to a real server, but fails them in several ways during the outage."""

    clock: Clock
    begin: float
    end: float
    inner: httpx.AsyncHTTPTransport = field(default_factory=httpx.AsyncHTTPTransport)
    refused: int = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not self.begin <= self.clock() < self.end:
            return await self.inner.handle_async_request(request)
        self.refused += 1
        match self.refused % 4:
            case 0:
                raise httpx.ConnectError("refused", request=request)
            case 1:
                raise httpx.ReadTimeout("too slow", request=request)
            case 2:
                return httpx.Response(503, request=request)
            case _:
                return httpx.Response(429, headers={"retry-after": "30"}, request=request)

    async def aclose(self) -> None:
        await self.inner.aclose()


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayParts:
    """Intake, relay and mirror as the app builds them, with the simulated clock and queues."""

    clock: Clock
    queues: Queues
    journal: MemoryJournal
    intake: Intake
    relay: Relay
    mirror: Mirror

    async def run_until(self, until: float | None = None) -> None:
        """Process work items until none is left, or none is due before `until`."""
        queues = self.queues
        while queues.waiting and (until is None or queues.waiting[0][0] <= until):
            queue, work_item = queues.take()
            if queue == RELAY_QUEUE:
                await process.process(self.relay, work_item)
            else:
                await mirror.mirror_resource(self.mirror, work_item)
        if until is not None:
            self.clock.seconds = max(self.clock.seconds, until)


@asynccontextmanager
async def open_parts(
    running: Running, transport: OutageTransport, clock: Clock
) -> AsyncIterator[RelayParts]:
    """Build the parts: journal and queues in memory, with the running FHIR server and Dataverse."""
    journal, queues, ids, tokens = MemoryJournal(), Queues(clock), count(1), count(1)
    sender: QueueSender = queues

    def make_upstream(name: str, base: str, http: httpx.AsyncClient) -> Upstream:
        limiter = Limiter(build_full_limit(16), 10.0, clock, clock.advance)
        return Upstream(name, base, http, limiter, pause=clock.advance, jitter=lambda: 0.5)

    async with (
        httpx.AsyncClient(transport=transport) as fhir_http,
        httpx.AsyncClient() as dataverse_http,
    ):
        fhir = FhirServer(make_upstream("FHIR server", running.fhir_url, fhir_http))
        dataverse = Dataverse(make_upstream("Dataverse", running.dataverse_url, dataverse_http))
        maps = load_shipped_maps()
        queues_by_type = {
            name: MIRROR_QUEUE
            for name, entity_map in maps.items()
            if entity_map.routes[0] == "dataverse"
        }

        async def find_queues() -> Mapping[str, str]:
            return queues_by_type

        guard = WriteGuard(
            store=MemoryGuardStore(),
            lease=LEASE,
            now=lambda: clock.now().timestamp(),
            token=lambda: f"token {next(tokens)}",
            pause=clock.advance,
            jitter=lambda: 0.5,
        )
        yield RelayParts(
            clock=clock,
            queues=queues,
            journal=journal,
            intake=Intake(
                journal=journal,
                queue=sender,
                now=clock.now,
                new_id=lambda now: make_delivery_id(now, next(ids)),
                max_bytes=1_000_000,
                limits=Limits(10),
            ),
            relay=Relay(
                context=LaneContext(
                    journal=journal, queue=sender, fhir=fhir, guard=guard, change_queues=find_queues
                ),
                limits=Limits(10),
                now=clock.now,
                max_age=MAX_AGE,
            ),
            mirror=Mirror(
                journal=journal,
                queue=sender,
                sink=WebApiSink(
                    fhir=fhir,
                    dataverse=dataverse,
                    pending_lookups=MemoryPendingLookups(),
                    deletions=MemoryDeletions(),
                    due_days=MemoryDueDays(),
                    today=lambda: utc_now().date(),
                    queue=sender,
                    all_maps=maps,
                ),
                maps=maps,
                broken_maps={},
                now=clock.now,
                max_age=MAX_AGE,
            ),
        )


async def run_outage(running: Running, report: Report, maker: DeliveryFactory, streams: int) -> str:
    """Send streams before, during and after the outage; judge them and return a summary."""
    clock = Clock()
    transport = OutageTransport(clock=clock, begin=60.0, end=60.0 + HOURS * HOUR)
    async with open_parts(running, transport, clock) as parts:
        accepted = []
        for stream in kinds.take_streams(maker, streams):
            for sent in stream:
                accepted += [await _accept(parts, sent) for _ in range(sent.times)]
            await parts.run_until(until=clock() + 1.5 * HOURS * HOUR / streams)
        await parts.run_until()
        unique = {delivery.address: delivery for delivery in accepted}
        outcomes = [await _read_outcome(parts, delivery) for delivery in unique.values()]
        max_attempts = parts.queues.max_attempts
    where = f"outage of {HOURS} hours, {streams} streams"
    await report.judge(outcomes, where, injected={REFUSED_FOR_HOURS: transport.refused})
    record(report, await _compare_attention(parts.journal, report), where)
    if max_attempts > MAX_ATTEMPTS:
        report.record_stuck_work(f"{where}: a work item was tried {max_attempts} times")
    tries = f"a work item tried {max_attempts} times"
    return f"{transport.refused} requests refused in {HOURS} hours, {tries}"


async def _compare_attention(journal: MemoryJournal, report: Report) -> list[Difference]:
    """Compare the list of what needs attention, as it would be answered."""
    found = await journal.list_concerns(ConcernFilter(), len(journal.concerns) + 1, None)
    shown = [parse_concern(describe_concern(concern)) for concern in found.concerns]
    refused = {
        concern.delivery: {
            result.position
            for result in await journal.list_entry_results(concern.delivery)
            if result.is_refused
        }
        for concern in shown
    }
    return compare(Due(entries=report.missing), shown, refused)


async def _accept(parts: RelayParts, sent: Delivery) -> AcceptedDelivery:
    kind, _, identifier = sent.path.strip("/").partition("/")
    headers = {"content-type": "application/fhir+json", **sent.headers}
    request = IncomingRequest(
        method=sent.method,
        type=kind or None,
        id=identifier or None,
        headers=headers,
        body=sent.body,
    )
    accepted = await accept(parts.intake, request)
    assert isinstance(accepted, Accepted)
    return AcceptedDelivery(sent, accepted.delivery, None)


async def _read_outcome(parts: RelayParts, accepted: AcceptedDelivery) -> AcceptedDelivery:
    delivery = await parts.journal.get_delivery(accepted.address)
    if delivery is None or delivery.status is not Status.DONE:
        return replace(accepted, state=str(delivery and (delivery.status, delivery.reason)))
    results = await parts.journal.list_entry_results(accepted.address)
    return replace(
        accepted, answers=[EntryAnswer(result.status, str(result.issues)) for result in results]
    )
