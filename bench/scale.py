"""Measure whether a resource costs the same in a small delivery and in a very large one."""

from __future__ import annotations

from collections.abc import AsyncIterator

from bench.route import MeasuredRoute, deliver_all, encode
from local.samples import build_transaction

SIZES = (100, 1_000, 10_000, 100_000)
PATIENT = 50  # entries of one patient, which refer to each other
ENTRY_BYTES = 400
RESOURCES_PER_SIZE = 20_000  # spread over as many deliveries as needed
MAX_BYTES = 120_000_000


async def measure_costs(route: MeasuredRoute) -> AsyncIterator[tuple[int, float, float]]:
    """Yield (entries, processor seconds, wall seconds) for 1,000 resources at each size."""
    for size in SIZES:
        number = max(1, RESOURCES_PER_SIZE // size)
        bodies = [
            encode(
                build_transaction(
                    [PATIENT] * (size // PATIENT),
                    entry_bytes=ENTRY_BYTES,
                    seed=f"scale {size} {index}",
                )
            )
            for index in range(number)
        ]
        cpu_before = route.read_cpu_seconds()
        wall = await deliver_all(route, bodies)
        thousands = number * size / 1000
        yield size, (route.read_cpu_seconds() - cpu_before) / thousands, wall / thousands
