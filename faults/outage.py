"""Hours without a FHIR server, in simulated time: the verbs themselves, a clock that obeys, and
queues that hand out each claim when it is due."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count

import httpx

from faults import kinds
from faults.deliveries import Maker, Sent
from faults.judge import Report
from faults.verdict import Answer, Told
from integration.core.http import Upstream
from integration.core.model import Status, WorkItem
from integration.core.rate_limiter import Limiter, build_full_limit
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.fhir.units import Limits
from integration.intake.accept import Accepted, Intake, accept
from integration.intake.http_request import IncomingRequest
from integration.journal.guard_store import MemoryGuardStore
from integration.journal.keys import make_delivery_id
from integration.journal.pending_lookups import MemoryPendingLookups
from integration.journal.store import MemoryJournal
from integration.journal.write_guard import WriteGuard
from integration.mapping.load import load_shipped_maps
from integration.mirror import mirror, web_api_sink
from integration.mirror.mirror import Mirror
from integration.mirror.web_api_sink import WebApiSink
from integration.queues.names import MIRROR_QUEUE, RELAY_QUEUE
from integration.queues.queue_sender import QueueSender
from integration.relay import process
from integration.relay.lane import LaneContext
from integration.relay.process import Relay
from local.services import Running

HOUR = 3600.0
HOURS = 2  # that the outage lasts
MAX_AGE = 72 * HOUR
LEASE = 330.0  # of a turn, as by default

# 2, 4, 8 … 900 seconds: in two hours a claim comes back less often than this.
MOST_TRIES = 20


class Clock:
    """Begins now, since servers stamp what they write, and goes on only when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._begin = datetime.now(UTC)

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return self._begin + timedelta(seconds=self.seconds)

    async def pause(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass(slots=True)
class Queues:
    """An outbox whose claims come out when they are due, the earliest first."""

    clock: Clock
    waiting: list[tuple[float, int, str, WorkItem]] = field(default_factory=list)
    most_tries: int = 0
    _numbers: count[int] = field(default_factory=count)

    async def send(self, queue: str, claim: WorkItem, delay: float = 0) -> None:
        due = self.clock() + round(delay)
        heapq.heappush(self.waiting, (due, next(self._numbers), queue, claim))

    def take(self) -> tuple[str, WorkItem]:
        due, _, queue, claim = heapq.heappop(self.waiting)
        self.clock.seconds = max(self.clock.seconds, due)
        self.most_tries = max(self.most_tries, claim.attempt + 1)
        return queue, claim


@dataclass(slots=True)
class Gone(httpx.AsyncBaseTransport):
    """In front of a real server: for a while nobody answers, in one of several ways."""

    clock: Clock
    begin: float
    end: float
    onward: httpx.AsyncHTTPTransport = field(default_factory=httpx.AsyncHTTPTransport)
    met: int = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not self.begin <= self.clock() < self.end:
            return await self.onward.handle_async_request(request)
        self.met += 1
        match self.met % 4:
            case 0:
                raise httpx.ConnectError("refused", request=request)
            case 1:
                raise httpx.ReadTimeout("too slow", request=request)
            case 2:
                return httpx.Response(503, request=request)
            case _:
                return httpx.Response(429, headers={"retry-after": "30"}, request=request)

    async def aclose(self) -> None:
        await self.onward.aclose()


@dataclass(frozen=True, slots=True)
class Verbs:
    """What the doors would be handed."""

    clock: Clock
    queues: Queues
    journal: MemoryJournal
    intake: Intake
    relay: Relay
    mirror: Mirror

    async def work(self, until: float | None = None) -> None:
        """Hand out claims until none is left, or none is due before `until`."""
        queues = self.queues
        while queues.waiting and (until is None or queues.waiting[0][0] <= until):
            queue, claim = queues.take()
            if queue == RELAY_QUEUE:
                await process.process(self.relay, claim)
            else:
                await mirror.mirror_resource(self.mirror, claim)
        if until is not None:
            self.clock.seconds = max(self.clock.seconds, until)


@asynccontextmanager
async def verbs(running: Running, transport: Gone, clock: Clock) -> AsyncIterator[Verbs]:
    """Journal and queues in memory; the FHIR server and Dataverse are the real ones beyond."""
    journal, queues, ids, tokens = MemoryJournal(), Queues(clock), count(1), count(1)
    outbox: QueueSender = queues

    def neighbour(name: str, base: str, http: httpx.AsyncClient) -> Upstream:
        room = Limiter(build_full_limit(16), 10.0, clock, clock.pause)
        return Upstream(name, base, http, room, pause=clock.pause, jitter=lambda: 0.5)

    async with (
        httpx.AsyncClient(transport=transport) as fhir_http,
        httpx.AsyncClient() as dataverse_http,
    ):
        fhir = FhirServer(neighbour("FHIR server", running.fhir_url, fhir_http))
        dataverse = Dataverse(neighbour("Dataverse", running.dataverse_url, dataverse_http))
        maps = load_shipped_maps()
        queue_of = {
            name: MIRROR_QUEUE for name, each in maps.items() if each.routes[0] == "dataverse"
        }

        async def followed() -> Mapping[str, str]:
            return queue_of

        order = WriteGuard(
            MemoryGuardStore(),
            LEASE,
            lambda: clock.now().timestamp(),
            lambda: f"token {next(tokens)}",
            clock.pause,
            lambda: 0.5,
        )
        yield Verbs(
            clock,
            queues,
            journal,
            Intake(
                journal,
                outbox,
                clock.now,
                lambda now: make_delivery_id(now, next(ids)),
                max_bytes=1_000_000,
            ),
            Relay(
                LaneContext(journal, outbox, fhir, order, followed),
                Limits(10),
                clock.now,
                MAX_AGE,
            ),
            Mirror(
                journal,
                outbox,
                partial(
                    web_api_sink.bring_up_to_date,
                    WebApiSink(fhir, dataverse, MemoryPendingLookups(), outbox, maps),
                ),
                maps,
                {},
                clock.now,
                MAX_AGE,
            ),
        )


async def endured(running: Running, report: Report, maker: Maker, streams: int) -> str:
    """Streams that come before, during and after an outage. How it went."""
    clock = Clock()
    gone = Gone(clock, 60.0, 60.0 + HOURS * HOUR)
    async with verbs(running, gone, clock) as it:
        told = []
        for stream in kinds.some(maker, streams):
            for sent in stream:
                told += [await _accepted(it, sent) for _ in range(sent.times)]
            await it.work(until=clock() + 1.5 * HOURS * HOUR / streams)
        await it.work()
        unique = {each.address: each for each in told}
        ended = [await _ended(it, each) for each in unique.values()]
        most = it.queues.most_tries
    where = f"outage of {HOURS} hours, {streams} streams"
    await report.judge(ended, where, injected=gone.met)
    if most > MOST_TRIES:
        report.note(f"{where}: a claim was tried {most} times")
    return f"{gone.met} requests refused in {HOURS} hours, a claim tried {most} times"


async def _accepted(it: Verbs, sent: Sent) -> Told:
    kind, _, identifier = sent.path.strip("/").partition("/")
    headers = {"content-type": "application/fhir+json", **sent.headers}
    ask = IncomingRequest(sent.method, kind or None, identifier or None, headers, sent.body)
    accepted = await accept(it.intake, ask)
    assert isinstance(accepted, Accepted)
    return Told(sent, accepted.delivery, None)


async def _ended(it: Verbs, told: Told) -> Told:
    delivery = await it.journal.get_delivery(told.address)
    if delivery is None or delivery.status is not Status.DONE:
        return replace(told, state=str(delivery and (delivery.status, delivery.reason)))
    outcomes = await it.journal.list_entry_results(told.address)
    return replace(told, answers=[Answer(each.status, str(each.issues)) for each in outcomes])
