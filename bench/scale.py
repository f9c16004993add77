"""Whether a resource costs the same in a small delivery and in a very large one."""

from __future__ import annotations

from collections.abc import AsyncIterator

from bench.route import Measured, carried, encoded
from local.samples import transaction

SIZES = (100, 1_000, 10_000, 100_000)
PATIENT = 50  # entries that hang together
ENTRY_BYTES = 400
TOGETHER = 20_000  # resources at each size, in as many deliveries as that takes
MAX_BYTES = 120_000_000


async def costs(it: Measured) -> AsyncIterator[tuple[int, float, float]]:
    """(entries, seconds of processor, seconds of wall) for 1,000 resources at each size."""
    for size in SIZES:
        number = max(1, TOGETHER // size)
        bodies = [
            encoded(
                transaction(
                    [PATIENT] * (size // PATIENT),
                    entry_bytes=ENTRY_BYTES,
                    seed=f"scale {size} {index}",
                )
            )
            for index in range(number)
        ]
        used = it.cpu()
        wall = await carried(it, bodies)
        thousands = number * size / 1000
        yield size, (it.cpu() - used) / thousands, wall / thousands
