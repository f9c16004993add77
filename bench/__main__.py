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
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from bench import feed, mapping, planning, scale, throttled, write_guard
from bench.route import HEADERS, SENDER_HEADER, Measured, bare, carried, encoded
from bench.watch import peak_memory, storage_operations
from local.samples import transaction
from local.services import free_ports, neighbours, start_host

ROUNDS = 3
DELIVERIES = 40
ENTRIES = 250
THROTTLED = 1_000
MIRRORED = 200
LARGE_ENTRIES = 16_000

SETTINGS = {
    "HOST_USE_FUNC": "0",
    "HOST_LOG_LEVEL": "WARNING",
    "SENDER_HEADER": SENDER_HEADER,
    "WRITE_ORDER": f"arrival, {write_guard.UNGUARDED}=off",
    "MAX_DELIVERY_BYTES": str(scale.MAX_BYTES),
}


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds of wall and processor for the same number of resources."""

    bare: float
    relay: float
    cpu: float


async def main() -> int:
    _say("planning_over_json", planning.over_json())
    each_second, times = mapping.over_by_hand()
    _say("patients_mapped_per_second", each_second)
    _say("mapping_over_by_hand", times)
    await asyncio.to_thread(_throttled)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with neighbours(free_ports(), folder, access_log=True, tell=print) as running:
            settings = {**running.settings(), **SETTINGS}
            with start_host(settings, running.ports.host, folder) as host:
                async with httpx.AsyncClient(timeout=300) as http:
                    process, log = psutil.Process(host.pid), folder / "storage.log"
                    it = Measured(http, running, host.url, process, log)
                    await _throughput(it)
                    await _memory(it)
                    await _order(it)
                    await _scale(it)
                    await _related_lists(it)
    return 0


def _throttled() -> None:
    """New patients one by one, under a tenth of Dataverse's limit of requests."""
    limits = throttled.Limits(requests=600)
    arrived = throttled.arrive(THROTTLED, limits)
    assert (arrived.contacts, arrived.parked) == (THROTTLED, 0)
    _say("dataverse_requests_per_new_patient", arrived.served / THROTTLED)
    _say("dataverse_rate_over_allowed", arrived.rate(limits))
    for workers, how in ((1, "alone"), (throttled.WORKERS, "among_others")):
        _, changed, unchanged = throttled.requests_each(MIRRORED, workers)
        _say(f"dataverse_requests_per_changed_patient_{how}", changed)
        _say(f"dataverse_requests_per_unchanged_patient_{how}", unchanged)


async def _throughput(it: Measured) -> None:
    await carried(it, _bodies("warm-up", 2))
    rounds = []
    for number in range(ROUNDS):
        least = await bare(it, _bodies(f"bare {number}", DELIVERIES))
        used = it.cpu()
        relay = await carried(it, _bodies(f"relay {number}", DELIVERIES))
        rounds.append(Round(least, relay, it.cpu() - used))
        print(f"round {number + 1} of {ROUNDS}: bare client {least:.2f} s, relay {relay:.2f} s")
    resources = DELIVERIES * ENTRIES
    _say("bare_resources_per_second", resources / _median(r.bare for r in rounds))
    _say("relay_resources_per_second", resources / _median(r.relay for r in rounds))
    _say("relay_over_bare_client", _median(r.bare / r.relay for r in rounds))
    _say("cpu_seconds_per_1000_resources", _median(r.cpu for r in rounds) * 1000 / resources)
    _say("storage_operations_per_delivery", await _operations(it))


async def _operations(it: Measured) -> float:
    """For a delivery of one unit and one patient, nobody asking what became of it."""

    async def contacts() -> int:
        stats = await it.http.get(f"{it.running.dataverse_url}/control/stats")
        return int(stats.json()["rows"]["contact"])

    before, counted = await contacts(), storage_operations(it.log)
    for body in _bodies("operations", DELIVERIES):
        await it.http.post(f"{it.host}/api/fhir", content=body, headers=HEADERS)
    async with asyncio.timeout(60):
        while await contacts() < before + DELIVERIES:
            await asyncio.sleep(0.1)
    await asyncio.sleep(2)  # for the last notes and the deletion of the last messages
    return (storage_operations(it.log) - counted) / DELIVERIES


async def _memory(it: Measured) -> None:
    large = encoded(transaction([LARGE_ENTRIES], seed="large"))
    async with peak_memory(it.process) as peak:
        await carried(it, [large])
    _say("peak_memory_over_body_size", peak.grown / len(large))
    print(f"  ({peak.grown / 1e6:.0f} MB above rest, for a body of {len(large) / 1e6:.0f} MB)")


async def _order(it: Measured) -> None:
    slower, operations = await write_guard.price(it)
    _say("order_guard_over_none", slower)
    _say("order_guard_storage_operations", operations)


async def _scale(it: Measured) -> None:
    first = None
    async for size, cpu, wall in scale.costs(it):
        first = first or cpu
        _say(f"cpu_seconds_per_1000_resources_of_{size}", cpu)
        _say(f"cpu_of_{size}_over_{scale.SIZES[0]}", cpu / first)
        print(f"  ({wall:.2f} s of wall for 1,000 resources)")


async def _related_lists(it: Measured) -> None:
    print(f"  (filling the FHIR server with {feed.RESOURCES:,} resources)", flush=True)
    times = await feed.related_lists(it.http, it.running.fhir_url, f"{it.host}/api/odata")
    for share in (0.5, 0.95):
        _say(f"feed_p{share * 100:.0f}_over_direct_search", times.over(share))
        print(f"  ({feed.at(times.feed, share):.1f} ms and {feed.at(times.direct, share):.1f} ms)")


def _bodies(seed: str, number: int) -> list[bytes]:
    return [encoded(transaction([ENTRIES], seed=f"{seed} {index}")) for index in range(number)]


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _say(name: str, value: float) -> None:
    print(f"bench: {name}={value:.3g}", flush=True)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
