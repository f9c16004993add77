"""`python -m bench`: the route against a bare client that posts the same units.

The baseline, `bare client`, is asyncio and httpx alone: it has the units ready-made and posts
them to the same FHIR server, as many at once as the relay may. So the ratio is what keeping,
queueing, planning, noting and mirroring cost. Rounds alternate, and each figure is a median.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from bench.watch import peak_memory, storage_operations
from integration import exact_json
from integration.fhir import bundle, units
from integration.fhir.identity import Naming
from integration.fhir.plan import plan
from integration.model import Received, Request
from integration.settings import from_env
from local.access import fhir_headers
from local.neighbours import Running, free_ports, neighbours, start_host
from local.samples import transaction

ROUNDS = 3
DELIVERIES = 40
ENTRIES = 250
PLACES = 16  # FHIR_CONCURRENCY by default
LARGE_ENTRIES = 16_000
HEADERS = {"content-type": "application/fhir+json"}


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds of wall and processor for the same number of resources."""

    bare: float
    relay: float
    cpu: float


async def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with neighbours(free_ports(), folder, access_log=True, tell=print) as running:
            settings = {**running.settings(), "HOST_USE_FUNC": "0", "HOST_LOG_LEVEL": "WARNING"}
            with start_host(settings, running.ports.host, folder) as host:
                process = psutil.Process(host.pid)
                async with httpx.AsyncClient(timeout=120) as http:
                    await _measure(http, running, host.url, process, folder / "storage.log")
    return 0


async def _measure(
    http: httpx.AsyncClient, running: Running, host: str, process: psutil.Process, log: Path
) -> None:
    await _relay(http, host, _bodies("warm-up", 2))
    rounds = []
    for number in range(ROUNDS):
        bare = await _bare(http, running, _bodies(f"bare {number}", DELIVERIES))
        used = _cpu(process)
        relay = await _relay(http, host, _bodies(f"relay {number}", DELIVERIES))
        rounds.append(Round(bare, relay, _cpu(process) - used))
        print(f"round {number + 1} of {ROUNDS}: bare client {bare:.2f} s, relay {relay:.2f} s")
    resources = DELIVERIES * ENTRIES
    _say("bare_resources_per_second", resources / _median(r.bare for r in rounds))
    _say("relay_resources_per_second", resources / _median(r.relay for r in rounds))
    _say("relay_over_bare_client", _median(r.bare / r.relay for r in rounds))
    _say("cpu_seconds_per_1000_resources", _median(r.cpu for r in rounds) * 1000 / resources)
    _say("storage_operations_per_delivery", await _operations(http, running, host, log))
    large = exact_json.encode(transaction([LARGE_ENTRIES], seed="large"))
    async with peak_memory(process) as peak:
        await _relay(http, host, [large])
    _say("peak_memory_over_body_size", peak.grown / len(large))
    print(f"  ({peak.grown / 1e6:.0f} MB above rest, for a body of {len(large) / 1e6:.0f} MB)")


def _bodies(seed: str, number: int) -> list[bytes]:
    return [
        exact_json.encode(transaction([ENTRIES], seed=f"{seed} {index}")) for index in range(number)
    ]


async def _bare(http: httpx.AsyncClient, running: Running, bodies: Sequence[bytes]) -> float:
    """Seconds for the units of these deliveries, planned beforehand."""
    places = asyncio.Semaphore(PLACES)
    requests = [
        units.request(unit, unit.entries, {})
        for body in bodies
        for lane in plan(
            bundle.read(body, Received("POST")), Naming("bench", body[:99].hex())
        ).lanes
        for unit in lane.units
    ]

    own = fhir_headers(from_env(running.settings()).fhir_scope)

    async def send(request: Request) -> None:
        headers = {**request.headers, **own}
        async with places:
            answer = await http.post(running.fhir_url, content=request.body, headers=headers)
        assert answer.status_code == 200, answer.text

    begun = time.perf_counter()
    await asyncio.gather(*(send(request) for request in requests))
    return time.perf_counter() - begun


async def _relay(http: httpx.AsyncClient, host: str, bodies: Sequence[bytes]) -> float:
    """Seconds from the first byte sent to the last delivery done."""

    async def deliver(body: bytes) -> None:
        answer = await http.post(f"{host}/api/fhir", content=body, headers=HEADERS)
        assert answer.status_code == 202, answer.text
        while True:
            status = await http.get(answer.headers["content-location"])
            if status.status_code != 202:
                break
            await asyncio.sleep(0.2)
        assert status.status_code == 200, status.text
        assert all(e["response"]["status"] == "201" for e in status.json()["entry"])

    begun = time.perf_counter()
    await asyncio.gather(*(deliver(body) for body in bodies))
    return time.perf_counter() - begun


async def _operations(http: httpx.AsyncClient, running: Running, host: str, log: Path) -> float:
    """For a delivery of one unit and one patient, nobody asking what became of it."""

    async def contacts() -> int:
        stats = await http.get(f"{running.dataverse_url}/control/stats")
        return int(stats.json()["rows"]["contact"])

    before, counted = await contacts(), storage_operations(log)
    for body in _bodies("operations", DELIVERIES):
        await http.post(f"{host}/api/fhir", content=body, headers=HEADERS)
    async with asyncio.timeout(60):
        while await contacts() < before + DELIVERIES:
            await asyncio.sleep(0.1)
    await asyncio.sleep(2)  # for the last notes and the deletion of the last messages
    return (storage_operations(log) - counted) / DELIVERIES


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _say(name: str, value: float) -> None:
    print(f"bench: {name}={value:.3g}", flush=True)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
