"""What the tests share: stores in memory, doubles of FHIR and Dataverse, and a route of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC
from functools import cache, partial
from itertools import chain, count
from math import inf
from pathlib import Path
from typing import Any
from zlib import crc32

import httpx
import pytest
from hypothesis import settings

from integration.change_events.from_dataverse import Bell, EditSource
from integration.core.activity_recorder import ActivityRecorder
from integration.core.flow_recorder import FlowRecorder
from integration.core.http import Upstream
from integration.core.model import Delivery, EntryResult, WorkItem
from integration.core.rate_limiter import Limiter, build_full_limit
from integration.dataverse.client import Dataverse
from integration.edits.signed_write import EditWriter
from integration.fhir.client import FhirServer
from integration.fhir.units import Limits
from integration.intake.accept import Accepted, Intake, accept
from integration.intake.http_request import IncomingRequest
from integration.journal.activity_log import MemoryActivityLog
from integration.journal.audit_log import MemoryAuditLog
from integration.journal.deletions import MemoryDeletions
from integration.journal.due_days import MemoryDueDays
from integration.journal.edit_cursors import MemoryEditCursors
from integration.journal.guard_store import MemoryGuardStore
from integration.journal.pending_lookups import MemoryPendingLookups
from integration.journal.row_keys import MemoryRowKeys
from integration.journal.store import Journal, MemoryJournal
from integration.journal.table_keys import make_delivery_id
from integration.journal.write_guard import WriteGuard, is_cancelled_or_gone
from integration.mapping import load
from integration.mapping.load import load_shipped_maps
from integration.mapping.model import EntityMap
from integration.mapping.model import Route as DataRoute
from integration.mirror.mirror import Mirror, mirror_resource
from integration.mirror.web_api_sink import WebApiSink
from integration.mirror.write_edits import WriteBack
from integration.queues.names import MIRROR_QUEUE, RELAY_QUEUE
from integration.queues.queue_sender import MemoryQueueSender
from integration.relay import process
from integration.relay.fetch import NO_SOURCES, Sources
from integration.relay.lane_run import LaneContext
from integration.relay.process import Relay
from integration.senders.model import make_unlisted_sender
from local.processes import PROJECT
from local.services import Running, find_free_ports, run_services
from tests.doubles import Clock, DataverseDouble, FhirDouble
from tests.randomness import PROFILE, register_profiles

register_profiles()
settings.load_profile(PROFILE)


# Fixtures that start services.
_STARTING = {"azurite", "fhir_url", "parts", "running", "server", "storage", "urls"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files that take longest first, so that no worker is left alone with one of them."""
    ranks: dict[Path, int] = {}
    for item in items:
        if item.get_closest_marker("slow"):
            rank = 0
        elif item.get_closest_marker("live") or _STARTING & {*getattr(item, "fixturenames", ())}:
            rank = 1
        else:
            rank = 2
        ranks[item.path] = min(rank, ranks.get(item.path, rank))
    items.sort(key=lambda item: ranks[item.path])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have recorded: the figures of the house rules."""
    reports = chain.from_iterable(terminalreporter.stats.values())
    recorded = {pair: None for report in reports for pair in getattr(report, "user_properties", ())}
    if recorded:
        terminalreporter.section("figures")
    for name, value in recorded:
        terminalreporter.write_line(f"{name}: {value}")


FHIR_JSON = "application/fhir+json"
DAY = 24 * 3600.0
LEASE = 220.0


@cache
def every_map() -> Mapping[str, EntityMap]:
    """Those too that are shipped, but not in use."""
    named = ["organization", "practitioner", "related_person"]
    return load.load_maps("healthcare", enabled=named).entities


@cache
def mirrored_maps() -> Mapping[str, EntityMap]:
    """Those of tables that nobody has to choose a route for to have them mirrored."""
    return {
        name: each
        for name, each in load_shipped_maps().items()
        if each.routes[0] is DataRoute.DATAVERSE
    }


async def patients_followed() -> dict[str, str]:
    """Patients are mirrored, and of other resources nobody has to hear."""
    return {"Patient": MIRROR_QUEUE}


@dataclass(repr=False)  # asyncio writes the arguments of each test down: maps are long
class Route:
    """A delivery's route with doubles at both ends: intake, relay, mirror."""

    journal: Any
    queue_sender: Any
    guard_store: Any
    clock: Clock
    fhir_double: FhirDouble
    dataverse_double: DataverseDouble
    fhir: FhirServer
    dataverse: Dataverse
    activity: MemoryActivityLog
    activities: ActivityRecorder
    limits: Limits = field(default_factory=Limits)
    max_age: float = 3 * DAY
    max_duration: float = inf
    settings: dict[str, Any] = field(default_factory=dict)
    sources: Sources = NO_SOURCES
    waits: list[float] = field(default_factory=list)
    audit: MemoryAuditLog = field(default_factory=MemoryAuditLog)
    row_keys: MemoryRowKeys = field(default_factory=MemoryRowKeys)
    row_waits: MemoryPendingLookups = field(default_factory=MemoryPendingLookups)
    deletions: MemoryDeletions = field(default_factory=MemoryDeletions)
    due_days: MemoryDueDays = field(default_factory=MemoryDueDays)
    maps: Mapping[str, EntityMap] = field(default_factory=mirrored_maps)
    all_maps: Mapping[str, EntityMap] = field(default_factory=every_map)
    on_delete: str = "deactivate"
    write_back: bool = False
    makes_new: bool = False
    former_maps: dict[str, EntityMap] = field(default_factory=dict)  # by digest
    edit_cursors: MemoryEditCursors = field(default_factory=MemoryEditCursors)
    bell: Bell = field(default_factory=Bell)
    flow: FlowRecorder = field(default_factory=FlowRecorder)
    first_items: dict[str, WorkItem] = field(default_factory=dict)  # by delivery
    _ids: Iterator[int] = field(default_factory=lambda: count(1))
    _tokens: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def intake(self) -> Intake:
        return Intake(
            journal=self.journal,
            queue=self.queue_sender,
            now=self.clock,
            new_id=lambda now: make_delivery_id(now, next(self._ids)),
            flow=self.flow,
            **{"max_bytes": 1_000_000, "limits": self.limits, **self.settings},
        )

    @property
    def order(self) -> WriteGuard:
        return WriteGuard(
            store=self.guard_store,
            lease=LEASE,
            now=lambda: self.clock().timestamp(),
            token=lambda: f"token {next(self._tokens)}",
            pause=self.wait,
            jitter=lambda: 0.5,
            is_over=partial(is_cancelled_or_gone, self.journal),
        )

    async def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock.later(seconds)

    @property
    def relay(self) -> Relay:
        context = LaneContext(
            journal=self.journal,
            queue=self.queue_sender,
            fhir=self.fhir,
            guard=self.order,
            change_queues=patients_followed,
        )
        limits, age = self.limits, self.max_age
        return Relay(
            context=context,
            limits=limits,
            now=self.clock,
            max_age=age,
            max_duration=self.max_duration,
            sources=self.sources,
            activities=self.activities,
            flow=self.flow,
        )

    @property
    def mirror(self) -> Mirror:
        return Mirror(
            journal=self.journal,
            queue=self.queue_sender,
            sink=self.web_api,
            maps=self.maps,
            broken_maps={},
            now=self.clock,
            max_age=self.max_age,
            activities=self.activities,
            row_keys=self.row_keys,
            flow=self.flow,
        )

    @property
    def web_api(self) -> WebApiSink:
        return WebApiSink(
            fhir=self.fhir,
            dataverse=self.dataverse,
            pending_lookups=self.row_waits,
            deletions=self.deletions,
            due_days=self.due_days,
            today=lambda: self.clock().astimezone(UTC).date(),
            queue=self.queue_sender,
            all_maps=self.all_maps,
            on_delete=self.on_delete,
            write_back=self.edits if self.write_back else None,
        )

    @property
    def edits(self) -> WriteBack:
        async def find_former_map(type_: str, digest: str) -> EntityMap | None:
            return self.former_maps.get(digest)

        writer = EditWriter(
            fhir=self.fhir,
            guard=self.order,
            new_run_id=lambda: make_delivery_id(self.clock(), next(self._ids)),
            now=self.clock,
            dataverse_url="http://dataverse",
        )
        return WriteBack(writer=writer, find_former_map=find_former_map, makes_new=self.makes_new)

    @property
    def edit_source(self) -> EditSource:
        return EditSource(
            journal=self.journal,
            queue=self.queue_sender,
            dataverse=self.dataverse,
            cursors=self.edit_cursors,
            change_queues=patients_followed,
            load_maps=lambda: self.maps,
            now=self.clock,
            new_id=lambda now: make_delivery_id(now, next(self._ids)),
            clock=lambda: self.clock().timestamp(),
            max_duration=60.0,
            bell=self.bell,
            is_bell_on=True,
            takes_new=self.makes_new,
        )

    async def ask(self, body: Any, **asked: Any) -> Accepted:
        """What a sender does: `headers`, `method`, `type` and `id` as it likes."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": FHIR_JSON, **asked.pop("headers", {})}
        headers = {name: value for name, value in headers.items() if value is not None}
        if isinstance(asked.get("sender"), str):
            asked["sender"] = make_unlisted_sender(asked["sender"])
        asked = {"method": "POST", "type": None, "id": None, **asked}
        return await accept(self.intake, IncomingRequest(headers=headers, body=content, **asked))

    async def deliver(self, body: Any, **asked: Any) -> str:
        """Accepted, and its claim taken off the queue: the id of the delivery."""
        accepted = await self.ask(body, **asked)
        message = (RELAY_QUEUE, WorkItem(accepted.delivery), 0)
        taken = self.queue_sender.sent.pop(self.queue_sender.sent.index(message))
        self.first_items[accepted.delivery] = taken[1]
        return accepted.delivery

    async def process(self, delivery: str, **claim: Any) -> None:
        """As its first work item does, which a queue may hand out again; with `claim` as another
        one does."""
        first = WorkItem(delivery) if claim else self.first_items.get(delivery, WorkItem(delivery))
        await process.process(self.relay, replace(first, **claim))

    async def process_all(self, delivery: str | None = None) -> None:
        """As the queue does it: hand out claims, whatever their delay, until none is left."""
        if delivery is not None:
            await self.process(delivery)
        for _ in range(1000):
            claim = self.take()
            if claim is None:
                return
            await process.process(self.relay, claim)
        raise AssertionError("the claims never end")

    def take(self) -> WorkItem | None:
        """The next claim for the relay."""
        for message in self.queue_sender.sent:
            if message[0] == RELAY_QUEUE:
                self.queue_sender.sent.remove(message)
                return message[1]
        return None

    def queued(self, queue: str = RELAY_QUEUE) -> list[tuple[WorkItem, float]]:
        return [(claim, delay) for name, claim, delay in self.queue_sender.sent if name == queue]

    async def mirror_all(self) -> None:
        """Hand out the work items for the mirror, each after its delay, until none is left."""
        for _ in range(1000):
            waiting = self.queued(MIRROR_QUEUE)
            if not waiting:
                return
            item, delay = min(waiting, key=lambda each: each[1])
            self.queue_sender.sent.remove((MIRROR_QUEUE, item, delay))
            self.clock.later(delay)
            await mirror_resource(self.mirror, item)
        raise AssertionError("the work items never end")

    @property
    def mirrored(self) -> list[str]:
        """The resources whose mirroring is queued."""
        return [claim.resource for claim, _ in self.queued(MIRROR_QUEUE)]

    async def known(self, delivery: str) -> Delivery:
        found = await self.journal.get_delivery(delivery)
        assert found is not None
        return found

    async def outcomes(self, delivery: str) -> list[EntryResult]:
        """What is noted so far."""
        found: list[EntryResult] = await self.journal.list_entry_results(delivery)
        return found

    async def statuses(self, delivery: str) -> list[int]:
        """What became of each entry, in the sender's order."""
        outcomes = await self.outcomes(delivery)
        assert [each.position for each in outcomes] == list(range(len(outcomes)))
        return [each.status for each in outcomes]


def told_by(records: list[Any]) -> str:
    """Everything that log records hold, as text, to be searched."""
    return "\n".join(repr(vars(record)) for record in records)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal() -> Journal:
    return MemoryJournal()


@pytest.fixture
def queue_sender() -> MemoryQueueSender:
    return MemoryQueueSender()


@pytest.fixture
def guard_store() -> MemoryGuardStore:
    return MemoryGuardStore()


@pytest.fixture
def fhir_double(clock: Clock) -> FhirDouble:
    return FhirDouble(clock)


@pytest.fixture
def dataverse() -> Iterator[DataverseDouble]:
    found = DataverseDouble()
    yield found
    found.app.close()


@pytest.fixture
async def route(
    *,
    journal: Journal,
    queue_sender: MemoryQueueSender,
    guard_store: MemoryGuardStore,
    clock: Clock,
    fhir_double: FhirDouble,
    dataverse: DataverseDouble,
) -> AsyncIterator[Route]:
    async with routed(
        fhir_double=fhir_double,
        dataverse=dataverse,
        clock=clock,
        journal=journal,
        queue_sender=queue_sender,
        guard_store=guard_store,
    ) as found:
        yield found


@asynccontextmanager
async def routed(
    fhir_double: FhirDouble,
    dataverse: httpx.AsyncBaseTransport,
    clock: Clock,
    *,
    journal: Any,
    queue_sender: Any,
    guard_store: Any,
    most: int = 4,
    fhir_transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[Route]:
    """A route between these ends; up to `most` requests to each neighbour are under way.
    `fhir_transport`: what leads to the FHIR server, if not the double itself."""
    started = clock.now

    def moment() -> float:
        return (clock.now - started).total_seconds() + sum(fhir_double.pauses)

    async def pause(seconds: float) -> None:
        fhir_double.pauses.append(seconds)

    def reached(name: str, base: str, transport: httpx.AsyncBaseTransport) -> Upstream:
        http = httpx.AsyncClient(transport=transport)
        # A claim that a test hands out early waits here, as the queue would have kept it.
        room = Limiter(build_full_limit(most), inf, moment, pause)
        return Upstream(
            name, base, http, room, pause=pause, jitter=lambda: 0.5, activities=activities
        )

    activity = MemoryActivityLog()
    activities = ActivityRecorder(activity.add, clock, moment)
    transport = fhir_transport or httpx.MockTransport(fhir_double.hear)
    fhir = reached("FHIR server", "http://fhir/fhir", transport)
    rows = reached("Dataverse", "http://dataverse", dataverse)
    yield Route(
        journal=journal,
        queue_sender=queue_sender,
        guard_store=guard_store,
        clock=clock,
        fhir_double=fhir_double,
        dataverse_double=dataverse,
        fhir=FhirServer(fhir),
        dataverse=Dataverse(rows),
        activity=activity,
        activities=activities,
    )
    await fhir.http.aclose()
    await rows.http.aclose()


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The real storage emulator, on ports of its own."""
    if not (PROJECT / "local/node_modules/azurite").is_dir():
        pytest.skip("azurite is not installed: npm ci --prefix local")
    with run_services(
        find_free_ports(), tmp_path_factory.mktemp("azurite"), parts=("storage",)
    ) as it:
        yield it


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses, for containers, tables and queues of its own."""
    return f"t{crc32(request.node.nodeid.encode()):010d}"
