"""`python -m bench`: compare the relay with a bare client that posts the same units.

The bare client is asyncio and httpx alone. It plans the units beforehand and posts them to the
same FHIR server with the same concurrency. The ratio is therefore the cost of storing, queueing,
planning, recording and mirroring. Rounds alternate; each result is a median.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from bench import feed, mapping, planning, scale, throttled, write_guard
from bench.route import HEADERS, SENDER_HEADER, MeasuredRoute, deliver_all, encode, post_units
from bench.watch import count_storage_operations, watch_peak_memory
from local.dataverse.limits import Limits
from local.samples import build_transaction
from local.services import find_free_ports, run_services, start_host

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
    """Wall seconds of both clients and processor seconds of the host, for the same resources."""

    bare: float
    relay: float
    cpu: float


async def main() -> int:
    # Thousands of rows are throttled and requeued on purpose: only errors are worth a line.
    logging.getLogger("integration").setLevel(logging.ERROR)
    _print_result("planning_over_json", planning.compare_with_json())
    each_second, times = mapping.compare_with_by_hand()
    _print_result("patients_mapped_per_second", each_second)
    _print_result("mapping_over_by_hand", times)
    await asyncio.to_thread(_measure_throttled)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with run_services(find_free_ports(), folder, access_log=True, tell=print) as running:
            settings = {**running.settings(), **SETTINGS}
            with start_host(settings, running.ports.host, folder) as host:
                async with httpx.AsyncClient(timeout=300) as http:
                    process, log = psutil.Process(host.pid), folder / "storage.log"
                    route = MeasuredRoute(
                        http=http, running=running, host=host.url, process=process, log=log
                    )
                    await _measure_throughput(route)
                    await _measure_memory(route)
                    await _measure_write_guard(route)
                    await _measure_scale(route)
                    await _measure_related_lists(route)
    return 0


def _measure_throttled() -> None:
    """Mirror new patients one by one, under a tenth of Dataverse's request limit."""
    limits = Limits(requests=600)
    arrived = throttled.measure_arrival(THROTTLED, limits)
    assert (arrived.contacts, arrived.parked) == (THROTTLED, 0)
    _print_result("dataverse_requests_per_new_patient", arrived.served / THROTTLED)
    _print_result("dataverse_rate_over_allowed", arrived.compute_rate(limits))
    for workers, how in ((1, "alone"), (throttled.WORKERS, "among_others")):
        _, changed, unchanged = throttled.measure_requests(MIRRORED, workers)
        _print_result(f"dataverse_requests_per_changed_patient_{how}", changed)
        _print_result(f"dataverse_requests_per_unchanged_patient_{how}", unchanged)


async def _measure_throughput(route: MeasuredRoute) -> None:
    await deliver_all(route, _make_bodies("warm-up", 2))
    rounds = []
    for number in range(ROUNDS):
        least = await post_units(route, _make_bodies(f"bare {number}", DELIVERIES))
        cpu_before = route.read_cpu_seconds()
        relay = await deliver_all(route, _make_bodies(f"relay {number}", DELIVERIES))
        rounds.append(Round(least, relay, route.read_cpu_seconds() - cpu_before))
        print(f"round {number + 1} of {ROUNDS}: bare client {least:.2f} s, relay {relay:.2f} s")
    resources = DELIVERIES * ENTRIES
    _print_result("bare_resources_per_second", resources / _compute_median(r.bare for r in rounds))
    _print_result(
        "relay_resources_per_second", resources / _compute_median(r.relay for r in rounds)
    )
    _print_result("relay_over_bare_client", _compute_median(r.bare / r.relay for r in rounds))
    _print_result(
        "cpu_seconds_per_1000_resources", _compute_median(r.cpu for r in rounds) * 1000 / resources
    )
    _print_result("storage_operations_per_delivery", await _count_operations(route))


async def _count_operations(route: MeasuredRoute) -> float:
    """Return the storage operations of a delivery with one unit and one patient, without polls."""

    async def count_contacts() -> int:
        stats = await route.http.get(f"{route.running.dataverse_url}/control/stats")
        return int(stats.json()["rows"]["contact"])

    before, counted = await count_contacts(), count_storage_operations(route.log)
    for body in _make_bodies("operations", DELIVERIES):
        await route.http.post(f"{route.host}/api/fhir", content=body, headers=HEADERS)
    async with asyncio.timeout(60):
        while await count_contacts() < before + DELIVERIES:
            await asyncio.sleep(0.1)
    await asyncio.sleep(2)  # until the last results are recorded and the last messages deleted
    return (count_storage_operations(route.log) - counted) / DELIVERIES


async def _measure_memory(route: MeasuredRoute) -> None:
    large = encode(build_transaction([LARGE_ENTRIES], seed="large"))
    async with watch_peak_memory(route.process) as peak:
        await deliver_all(route, [large])
    _print_result("peak_memory_over_body_size", peak.grown / len(large))
    print(f"  ({peak.grown / 1e6:.0f} MB more than at rest, body of {len(large) / 1e6:.0f} MB)")


async def _measure_write_guard(route: MeasuredRoute) -> None:
    slower, operations = await write_guard.measure_cost(route)
    _print_result("order_guard_over_none", slower)
    _print_result("order_guard_storage_operations", operations)


async def _measure_scale(route: MeasuredRoute) -> None:
    first = None
    async for size, cpu, wall in scale.measure_costs(route):
        first = first or cpu
        _print_result(f"cpu_seconds_per_1000_resources_of_{size}", cpu)
        _print_result(f"cpu_of_{size}_over_{scale.SIZES[0]}", cpu / first)
        print(f"  ({wall:.2f} wall seconds for 1,000 resources)")


async def _measure_related_lists(route: MeasuredRoute) -> None:
    print(f"  (filling the FHIR server with {feed.RESOURCES:,} resources)", flush=True)
    times = await feed.measure_related_lists(
        route.http, route.running.fhir_url, f"{route.host}/api/odata"
    )
    for share in (0.5, 0.95):
        _print_result(f"feed_p{share * 100:.0f}_over_direct_search", times.compute_ratio(share))
        rows, direct = (feed.compute_quantile(ms, share) for ms in (times.feed, times.direct))
        print(f"  ({rows:.1f} ms and {direct:.1f} ms)")


def _make_bodies(seed: str, number: int) -> list[bytes]:
    return [encode(build_transaction([ENTRIES], seed=f"{seed} {index}")) for index in range(number)]


def _compute_median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _print_result(name: str, value: float) -> None:
    print(f"bench: {name}={value:.3g}", flush=True)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
