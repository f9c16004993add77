"""Compare the relay with a bare client at a FHIR server that waits, as one across a network does.

Microsoft publishes no latency of its FHIR service. A bundle is processed entry by entry there
(`x-bundle-processing-logic: sequential`), so a unit takes a time of its own and a time for each
entry. Both are arguments, and the output states them. Another server was measured with 90 ms for an
entry: https://github.com/HeliosSoftware/hfs/issues/872 -- the less a server waits, the harder it is
for the relay to keep up, so the default is far lower.
"""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.route import MeasuredRoute, deliver_all, post_units

ROUNDS = 2
# Six times what the FHIR server is sent at once: the first and the last units count for little.
DELIVERIES = 96


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds that a FHIR server takes for each request, and for each entry of a bundle."""

    unit: float = 100.0
    entry: float = 10.0


async def compare_with_bare_client(
    route: MeasuredRoute, latency: Latency, make_bodies: Callable[[str, int], list[bytes]]
) -> float:
    """Return the time of the bare client over that of the relay, for the same deliveries."""
    ratios = []
    async with _slow_down(route, latency):
        for number in range(ROUNDS):
            bare = await post_units(route, make_bodies(f"waiting bare {number}", DELIVERIES))
            relay = await deliver_all(route, make_bodies(f"waiting relay {number}", DELIVERIES))
            print(f"  (bare client {bare:.2f} s, relay {relay:.2f} s)", flush=True)
            ratios.append(bare / relay)
    return statistics.median(ratios)


@asynccontextmanager
async def _slow_down(route: MeasuredRoute, latency: Latency) -> AsyncIterator[None]:
    """Make the FHIR server of the laptop wait while the block runs."""
    await _set_latency(route, latency)
    try:
        yield
    finally:
        await _set_latency(route, Latency(0, 0))


async def _set_latency(route: MeasuredRoute, latency: Latency) -> None:
    address = f"{route.running.fhir_url.removesuffix('/fhir')}/control/latency"
    wanted = {"requestMs": latency.unit, "entryMs": latency.entry}
    (await route.http.post(address, json=wanted)).raise_for_status()
