"""Work becomes a line, whatever comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from integration.check import remedies
from integration.check.connections import Connections
from integration.check.report import Line, failed, skipped
from integration.check.results import clock
from integration.core.errors import IntegrationError, Misconfigured, Unavailable
from integration.core.model import Response

_PATIENCE = 20.0


async def attempt(
    name: str, work: Awaitable[Line], *, away: str, refused: str | None, patience: float = _PATIENCE
) -> Line:
    """`away`, `refused`: what mends either. With `refused` None the app itself needs no such right:
    what this identity may not look at is for somebody else to look at."""
    try:
        async with asyncio.timeout(patience):
            return await work
    except TimeoutError:
        return failed(name, f"no answer in {patience:.0f} s", away)
    except Misconfigured as error:
        if refused is None:
            return skipped(name, f"this identity may not look at it: {remedies.PROVISION_LOOK}")
        return failed(name, str(error), refused)
    except Unavailable as error:
        return failed(name, str(error), remedies.IDENTITY if "no token" in error.why else away)
    except IntegrationError as error:
        return failed(name, str(error), away)


async def clock_line(ends: Connections, name: str, ask: Callable[[], Awaitable[Response]]) -> Line:
    """How far the neighbour's clock is from ours. That it does not answer is told elsewhere."""
    before = ends.now()
    try:
        async with asyncio.timeout(_PATIENCE):
            answer = await ask()
    except (TimeoutError, IntegrationError):
        return skipped(name, "no answer")
    return clock(name, answer.headers.get("date"), before, ends.now(), ends.skew)
