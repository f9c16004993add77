"""Mirror many patients to a Dataverse that throttles like the real one, in simulated time.

The mirror, its rate limiter and the Dataverse stand-in are the real ones. Storage and the FHIR
server take no time, so only Dataverse's limits delay the patients.
"""

from __future__ import annotations

import asyncio
import heapq
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from math import ceil, inf
from typing import Any

import httpx

from integration.app.services import utc_now
from integration.core.http import Upstream, build_limiter
from integration.core.model import WorkItem
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.journal.deletions import MemoryDeletions
from integration.journal.due_days import MemoryDueDays
from integration.journal.pending_lookups import MemoryPendingLookups
from integration.journal.store import MemoryJournal
from integration.mapping import load
from integration.mirror import mirror as mirroring
from integration.mirror.mirror import Mirror
from integration.mirror.web_api_sink import WebApiSink
from integration.queues.queue_sender import MemoryQueueSender
from local.dataverse.app import create_app
from local.dataverse.limits import Limits
from local.dataverse.simulated import SimulatedLoop
from local.dataverse.wire import Call

WORKERS = 16  # messages that one instance processes at once: host.json
CONCURRENCY = 16
READ, WRITE = 0.05, 0.15  # seconds that a request takes
START = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """The cost until every patient had its contact: requests served and refused, and simulated
    seconds."""

    contacts: int
    parked: int
    served: int
    refused: int
    seconds: float

    def compute_rate(self, limits: Limits) -> float:
        """Return the shortest time that the limits allow for the served requests, over the time
        taken. A full window may go at once; the next starts when the window has passed."""
        windows = ceil(self.served / limits.requests) - 1
        return windows * limits.window / self.seconds


def measure_arrival(patients: int, limits: Limits) -> Arrival:
    """Mirror new patients to Dataverse, one work item for each."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(_measure_arrival(patients, limits))


def measure_requests(patients: int, workers: int) -> tuple[float, float, float]:
    """Return the Dataverse requests per patient when it is new, changed, and unchanged."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(_measure_rounds(patients, workers))


async def _measure_rounds(patients: int, workers: int) -> tuple[float, float, float]:
    state = {"version": 1}
    async with _open_route(
        Limits(), lambda request: _answer_patient(request, state["version"])
    ) as route:
        counts = []
        for version in (1, 2, 2):
            state["version"], before = version, route.request_counts["served"]
            work_items = [
                (0.0, n, WorkItem(f"v{n}", resource=_make_identity(n))) for n in range(patients)
            ]
            await _process_items(route.mirror, route.sender, work_items, route.clock, workers)
            counts.append((route.request_counts["served"] - before) / patients)
    new, changed, unchanged = counts
    return new, changed, unchanged


@dataclass(frozen=True, slots=True, kw_only=True)
class _Route:
    mirror: Mirror
    sender: MemoryQueueSender
    journal: MemoryJournal
    request_counts: dict[str, int]
    clock: Callable[[], float]


async def _measure_arrival(patients: int, limits: Limits) -> Arrival:
    async with _open_route(limits, lambda request: _answer_patient(request, 1)) as route:
        work_items = [
            (0.0, n, WorkItem(f"delivery {n}", resource=_make_identity(n))) for n in range(patients)
        ]
        await _process_items(route.mirror, route.sender, work_items, route.clock, WORKERS)
        rows = [
            row
            for n in range(patients)
            for row in await route.journal.list_row_results(f"delivery {n}")
        ]
        parked = sum(row.action not in ("created", "updated", "unchanged") for row in rows)
        contacts = len({row.row for row in rows if row.row})
        served, refused = route.request_counts["served"], route.request_counts["refused"]
        return Arrival(
            contacts=contacts, parked=parked, served=served, refused=refused, seconds=route.clock()
        )


@asynccontextmanager
async def _open_route(
    limits: Limits, answer: Callable[[httpx.Request], httpx.Response]
) -> AsyncIterator[_Route]:
    loop = asyncio.get_running_loop()
    app = create_app(limits=limits, clock=loop.time, execution_seconds=_estimate_seconds)
    inner = httpx.ASGITransport(app=app)
    request_counts = {"served": 0, "refused": 0}

    async def count_request(request: httpx.Request) -> httpx.Response:
        answer = await inner.handle_async_request(request)
        if "EntityDefinitions" not in request.url.path:
            request_counts["refused" if answer.status_code == 429 else "served"] += 1
        return answer

    sender, journal = MemoryQueueSender(), MemoryJournal()
    fhir = FhirServer(_make_upstream("FHIR server", httpx.MockTransport(answer), loop.time))
    dataverse = Dataverse(
        _make_upstream("Dataverse", httpx.MockTransport(count_request), loop.time)
    )
    maps = load.load_shipped_maps()
    sink = WebApiSink(
        fhir=fhir,
        dataverse=dataverse,
        pending_lookups=MemoryPendingLookups(),
        deletions=MemoryDeletions(),
        due_days=MemoryDueDays(),
        today=lambda: utc_now().date(),
        queue=sender,
        all_maps=maps,
    )
    mirror = Mirror(
        journal=journal,
        queue=sender,
        sink=sink,
        maps=maps,
        broken_maps={},
        now=lambda: START + _to_timedelta(loop.time()),
        max_age=inf,
    )
    yield _Route(
        mirror=mirror,
        sender=sender,
        journal=journal,
        request_counts=request_counts,
        clock=loop.time,
    )
    app.close()


async def _process_items(
    mirror: Mirror,
    sender: MemoryQueueSender,
    work_items: list[tuple[float, int, WorkItem]],
    clock: Callable[[], float],
    workers: int,
) -> None:
    """Process work items when they are due, at most `workers` at once, until none is left."""
    heapq.heapify(work_items)
    numbers, busy = count(len(work_items)), set[asyncio.Task[None]]()
    while work_items or busy:
        while work_items and work_items[0][0] <= clock() and len(busy) < workers:
            busy.add(
                asyncio.create_task(mirroring.mirror_resource(mirror, heapq.heappop(work_items)[2]))
            )
        wait = work_items[0][0] - clock() if work_items and len(busy) < workers else None
        if busy:
            done, busy = await asyncio.wait(busy, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        elif wait:
            await asyncio.sleep(wait)
        for _, work_item, delay in sender.sent:
            heapq.heappush(work_items, (clock() + delay, next(numbers), work_item))
        sender.sent.clear()


def _make_upstream(name: str, transport: httpx.AsyncBaseTransport, clock: Any) -> Upstream:
    http = httpx.AsyncClient(transport=transport)
    base = "http://dataverse" if name == "Dataverse" else "http://fhir/fhir"
    return Upstream(name, base, http, build_limiter(CONCURRENCY, clock))


def _estimate_seconds(call: Call) -> float:
    return READ if call.method == "GET" else WRITE


def _to_timedelta(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def _make_identity(number: int) -> str:
    return f"Patient/{number:08x}-0000-4000-8000-000000000000"


def _answer_patient(request: httpx.Request, version: int) -> httpx.Response:
    found = make_patient(request.url.path.rpartition("/")[2])
    found["meta"]["versionId"] = str(version)
    found["address"][0]["city"] += " again" * (version - 1)
    return httpx.Response(200, content=json.dumps(found).encode())


def make_patient(identifier: str) -> dict[str, Any]:
    """Return a Patient with the elements that most patients have."""
    return {
        "resourceType": "Patient",
        "id": identifier,
        "meta": {"versionId": "1", "lastUpdated": "2026-02-28T09:30:00Z"},
        "active": True,
        "identifier": [
            {"type": {"coding": [{"code": "MR"}]}, "system": "urn:mrn", "value": identifier[:8]},
            {"system": "urn:insurance", "value": identifier[::-1]},
        ],
        "name": [{"use": "official", "family": "Sampleton", "given": ["Anna", "Maria"]}],
        "telecom": list(_make_telecom(identifier)),
        "gender": "female",
        "birthDate": "1980-02-29",
        "address": [
            {
                "use": "home",
                "line": ["1 Example Street"],
                "city": "Sampletown",
                "postalCode": identifier[:5],
                "country": "US",
            }
        ],
        "maritalStatus": {"coding": [{"code": "M"}]},
    }


def _make_telecom(identifier: str) -> Iterator[dict[str, Any]]:
    yield {"system": "phone", "use": "home", "value": f"555-{identifier[:4]}"}
    yield {"system": "phone", "use": "mobile", "value": f"556-{identifier[:4]}"}
    yield {"system": "email", "value": f"{identifier[:8]}@example.org"}
