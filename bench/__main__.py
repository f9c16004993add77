"""`python -m bench`: compare the relay with a bare client that posts the same units.

The bare client is asyncio and httpx alone. It plans the units beforehand and posts them to the
same FHIR server with the same concurrency. The ratio is therefore the cost of storing, queueing,
planning, recording and mirroring. Rounds alternate; each result is a median.

Names of parts run those alone: `python -m bench planning memory`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import psutil

from bench import (
    arrival,
    feed,
    first_request,
    jobs,
    mapping,
    pages,
    planning,
    scale,
    signatures,
    throttled,
    waiting,
    write_guard,
)
from bench.route import (
    HEADERS,
    SENDER_HEADER,
    MeasuredRoute,
    deliver_all,
    encode,
    post_units,
    wait_until_idle,
)
from bench.waiting import Latency
from bench.watch import count_host_operations, count_storage_operations, watch_peak_memory
from local.dataverse.limits import Limits
from local.samples import build_transaction
from local.services import find_free_ports, run_services, start_host

ROUNDS = 3
DELIVERIES = 40
ENTRIES = 250
THROTTLED = 1_000
MIRRORED = 200
PAGES_OVER = (1_000, 20_000)  # deliveries
LARGE_ENTRIES = 16_000

SETTINGS = {
    "HOST_USE_FUNC": "0",
    "PAGES_SIGN_IN": "off",
    "HOST_LOG_LEVEL": "WARNING",
    "MALLOC_MMAP_THRESHOLD_": "1048576",  # as infra/main.bicep
    "SENDER_HEADER": SENDER_HEADER,
    "WRITE_ORDER": f"arrival, {write_guard.UNGUARDED}=off",
    "MAX_DELIVERY_BYTES": str(scale.MAX_BYTES),
    # Once a year: it would delete what is old while the pages are measured over it.
    "HOUSEKEEPING_SCHEDULE": "0 0 0 1 1 *",
}


@dataclass(frozen=True, slots=True)
class Round:
    """Wall seconds of both clients and processor seconds of the host, for the same resources."""

    bare: float
    relay: float
    cpu: float


async def main(names: Iterable[str], latency: Latency, pages_over: Sequence[int]) -> int:
    """Measure the parts of these names; without one, all of them. `pages_over`: numbers of
    deliveries."""
    # Thousands of rows are throttled and requeued on purpose: only errors are worth a line.
    logging.getLogger("integration").setLevel(logging.ERROR)
    wanted = set(names) or {*_ALONE, *_ON_ROUTE}
    for name, measure_alone in _ALONE.items():
        if name in wanted:
            await asyncio.to_thread(measure_alone)
    on_route: _Measures = {**_ON_ROUTE, "pages": partial(_measure_pages, numbers=pages_over)}
    parts = [measure for name, measure in on_route.items() if name in wanted]
    if not parts:
        return 0
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        with run_services(find_free_ports(), folder, access_log=True, tell=print) as running:
            settings = {**running.settings(), **SETTINGS}
            with start_host(settings, running.ports.host, folder) as host:
                async with httpx.AsyncClient(timeout=300) as http:
                    process, log = psutil.Process(host.pid), folder / "storage.log"
                    route = MeasuredRoute(
                        http=http, running=running, host=host.url, process=process, log=log
                    )
                    await deliver_all(route, _make_bodies("warm-up", 2))
                    for measure in parts:
                        await wait_until_idle(route)
                        await measure(route, latency)
    return 0


def _measure_planning() -> None:
    _print_result("planning_over_json", planning.compare_with_json())


def _measure_mapping() -> None:
    each_second, times = mapping.compare_with_by_hand()
    _print_result("patients_mapped_per_second", each_second)
    _print_result("mapping_over_by_hand", times)


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


async def _measure_throughput(route: MeasuredRoute, _: Latency) -> None:
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
    everything, of_host = await _count_operations(route)
    _print_result("storage_operations_per_delivery", everything)
    _print_result("storage_operations_per_delivery_of_the_app", everything - of_host)
    print(f"  (the host made {of_host:.3g}: it deletes the messages; its polls count nowhere)")


async def _count_operations(route: MeasuredRoute) -> tuple[float, float]:
    """Return the storage operations of a delivery with one unit and one patient, without polls:
    all, and those of the host alone."""

    async def count_contacts() -> int:
        stats = await route.http.get(f"{route.running.dataverse_url}/control/stats")
        return int(stats.json()["rows"]["contact"])

    before = await count_contacts()
    counted, of_host = count_storage_operations(route.log), count_host_operations(route.log)
    for body in _make_bodies("operations", DELIVERIES):
        await route.http.post(f"{route.host}/api/fhir", content=body, headers=HEADERS)
    async with asyncio.timeout(60):
        while await count_contacts() < before + DELIVERIES:
            await asyncio.sleep(0.1)
    await asyncio.sleep(2)  # until the last results are recorded and the last messages deleted
    everything = count_storage_operations(route.log) - counted
    return everything / DELIVERIES, (count_host_operations(route.log) - of_host) / DELIVERIES


async def _measure_waiting(route: MeasuredRoute, latency: Latency) -> None:
    ratio = await waiting.compare_with_bare_client(route, latency, _make_bodies)
    _print_result("relay_over_bare_client_waiting", ratio)
    print(f"  (at {latency.unit:g} ms a unit and {latency.entry:g} ms an entry of {ENTRIES})")


async def _measure_arrival(route: MeasuredRoute, _: Latency) -> None:
    seconds = await arrival.measure_arrival(route)
    for share in (0.5, 0.99):
        quantile = feed.compute_quantile(seconds, share)
        _print_result(f"post_to_contact_p{share * 100:.0f}_seconds", quantile)
    print(f"  ({arrival.RATE} deliveries of {arrival.ENTRIES} entries a second)")


async def _measure_memory(route: MeasuredRoute, _: Latency) -> None:
    large = encode(build_transaction([LARGE_ENTRIES], seed="large"))
    async with watch_peak_memory(route.process) as peak:
        await deliver_all(route, [large])
    _print_result("peak_memory_over_body_size", peak.grown / len(large))
    print(f"  ({peak.grown / 1e6:.0f} MB more than at rest, body of {len(large) / 1e6:.0f} MB)")


async def _measure_write_guard(route: MeasuredRoute, _: Latency) -> None:
    _print_result("order_guard_over_none", await write_guard.measure_first_writes(route))
    _print_result("order_guard_over_none_of_existing", await write_guard.measure_updates(route))
    added = await write_guard.measure_operations(route)
    _print_result("order_guard_storage_operations", added.first_write)
    _print_result("order_guard_storage_operations_of_existing", added.update)


async def _measure_scale(route: MeasuredRoute, _: Latency) -> None:
    first = None
    async for size, cpu, wall in scale.measure_costs(route):
        first = first or cpu
        _print_result(f"cpu_seconds_per_1000_resources_of_{size}", cpu)
        _print_result(f"cpu_of_{size}_over_{scale.SIZES[0]}", cpu / first)
        print(f"  ({wall:.2f} wall seconds for 1,000 resources)")


async def _measure_related_lists(route: MeasuredRoute, _: Latency) -> None:
    print(f"  (filling the FHIR server with {feed.RESOURCES:,} resources)", flush=True)
    times = await feed.measure_related_lists(
        route.http, route.running.fhir_url, f"{route.host}/api/odata"
    )
    for share in (0.5, 0.95):
        _print_result(f"feed_p{share * 100:.0f}_over_direct_search", times.compute_ratio(share))
        rows, direct = (feed.compute_quantile(ms, share) for ms in (times.feed, times.direct))
        print(f"  ({rows:.1f} ms and {direct:.1f} ms)")

    milliseconds = await feed.measure_processor_time(
        route.http, f"{route.host}/api/odata", route.read_cpu_seconds
    )
    _print_result("feed_cpu_milliseconds_per_page", milliseconds)
    print("  (of the host, with the audit entry of each page)")


async def _measure_first_request(route: MeasuredRoute, _: Latency) -> None:
    settings = {**route.running.settings(), **SETTINGS}
    seconds = await asyncio.to_thread(first_request.measure_first_request, settings)
    _print_result("feed_first_request_cpu_seconds", seconds["feed"])
    print(f"  (and {seconds['services']:.2f} s for the services, which any first work opens)")


async def _measure_signatures(route: MeasuredRoute, _: Latency) -> None:
    for scheme, ratio in (await signatures.measure_signatures(route)).items():
        _print_result(f"time_to_answer_{scheme}_over_function_key", ratio)


async def _measure_pages(
    route: MeasuredRoute, _: Latency, numbers: Sequence[int] = PAGES_OVER
) -> None:
    for number in numbers:
        measured = await pages.measure_pages(route, number)
        print(
            f"pages over {number} deliveries; the emulator alone: {measured.query:.0f} ms a query"
        )
        for page in measured.pages:
            print(
                f"  {page.page:36} median {page.median:6.0f} ms  p95 {page.p95:6.0f} ms  "
                f"{page.operations:.1f} storage operations"
            )


async def _measure_jobs(route: MeasuredRoute, _: Latency) -> None:
    alone = await jobs.measure_alone(route)
    _print_result("job_replayed_per_second", alone.job.done / alone.seconds)
    _print_result("job_storage_operations_per_delivery", alone.operations)
    print(f"  ({alone.job.done:,} in {alone.seconds:.0f} s, by one worker, and nothing else runs)")
    together = await jobs.measure_route(route)
    _print_result("job_replayed_per_second_beside_the_relay", together.job.done / together.seconds)
    _print_result("job_seconds_until_all_arrived", together.arrived)
    _print_result("job_doubled", together.doubled)
    _print_result("job_stale", together.stale)
    print(
        f"  ({together.job.done:,} replayed in {together.seconds:.0f} s, {together.missing} "
        f"missing; {together.operations:.1f} storage operations each with those of the relay)"
    )


def _make_bodies(seed: str, number: int) -> list[bytes]:
    return [encode(build_transaction([ENTRIES], seed=f"{seed} {index}")) for index in range(number)]


def _compute_median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _print_result(name: str, value: float) -> None:
    print(f"bench: {name}={value:.3g}", flush=True)


_ALONE: Mapping[str, Callable[[], None]] = {
    "planning": _measure_planning,
    "mapping": _measure_mapping,
    "throttled": _measure_throttled,
}
_Measures = Mapping[str, Callable[[MeasuredRoute, Latency], Awaitable[None]]]
_ON_ROUTE: _Measures = {
    "throughput": _measure_throughput,
    "waiting": _measure_waiting,
    "arrival": _measure_arrival,
    "memory": _measure_memory,
    "write-guard": _measure_write_guard,
    "scale": _measure_scale,
    "related-lists": _measure_related_lists,
    "first-request": _measure_first_request,
    "signatures": _measure_signatures,
    "jobs": _measure_jobs,
    "pages": _measure_pages,
}


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench")
    # Not by `choices`: argparse would check the empty list against them.
    parser.add_argument("parts", nargs="*", help=", ".join((*_ALONE, *_ON_ROUTE)))
    parser.add_argument("--unit-ms", type=float, default=Latency().unit, help="see bench.waiting")
    parser.add_argument("--entry-ms", type=float, default=Latency().entry)
    parser.add_argument(
        "--deliveries", type=int, nargs="+", default=PAGES_OVER, help="of pages: how many are kept"
    )
    arguments = parser.parse_args()
    unknown = {*arguments.parts} - {*_ALONE, *_ON_ROUTE}
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return arguments


if __name__ == "__main__":
    chosen = _parse_arguments()
    sys.exit(
        asyncio.run(main(chosen.parts, Latency(chosen.unit_ms, chosen.entry_ms), chosen.deliveries))
    )
