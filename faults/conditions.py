"""Change the clock of the FHIR server, and how far its reads lag, while work is under way.

Microsoft's service reads from replicas where they are on, and no two clocks agree.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from random import Random

from faults.injected import FHIR_CLOCK, READS_LAGGED
from faults.route import Route

_CLOCKS = (0, 60, -60)  # seconds that the FHIR server's clock is ahead
_LAGS = (0, 0, 0.3, 2)  # seconds that its reads lag behind its writes
_HOLDS = (False, False, False, True)  # reads see no write at all
_SHORTEST, _LONGEST = 0.5, 3.0  # seconds of one condition


@contextlib.asynccontextmanager
async def change_conditions(route: Route, random: Random) -> AsyncIterator[Counter[str]]:
    """Change the conditions at random, and restore them at the end. Yield how often, by kind."""
    counted: Counter[str] = Counter()
    changing = asyncio.create_task(_change_again_and_again(route, random, counted))
    try:
        yield counted
    finally:
        changing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await changing
        await route.change_fhir(clockOffset=0, readLag=0, holdReads=False)


async def _change_again_and_again(route: Route, random: Random, counted: Counter[str]) -> None:
    while True:
        clock, lag, hold = (random.choice(values) for values in (_CLOCKS, _LAGS, _HOLDS))
        before = await route.count_fhir_requests()
        await route.change_fhir(clockOffset=clock, readLag=lag, holdReads=hold)
        await asyncio.sleep(random.uniform(_SHORTEST, _LONGEST))
        if await route.count_fhir_requests() > before:  # it met somebody
            counted[FHIR_CLOCK] += clock != 0
            counted[READS_LAGGED] += bool(lag or hold)
