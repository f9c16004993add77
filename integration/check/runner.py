"""Run one check: whatever happens, it becomes one result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from integration.check import remedies
from integration.check.connections import Connections
from integration.check.report import CheckResult, report_failure, report_skip
from integration.check.results import evaluate_clock
from integration.core.errors import IntegrationError, Misconfigured, Unavailable
from integration.core.model import Response

_TIMEOUT = 20.0


async def run_check(
    name: str,
    work: Awaitable[CheckResult],
    *,
    if_unreachable: str,
    if_refused: str | None,
    max_seconds: float = _TIMEOUT,
) -> CheckResult:
    """Await `work` and return its result; return a failure if the service does not answer.

    `if_unreachable` and `if_refused` are the remedies. With `if_refused` None the app itself does
    not need the right, so a refusal only skips the check.
    """
    try:
        async with asyncio.timeout(max_seconds):
            return await work
    except TimeoutError:
        return report_failure(name, f"did not answer within {max_seconds:.0f} s", if_unreachable)
    except Misconfigured as error:
        if if_refused is None:
            return report_skip(
                name, f"this identity has no right to see it: {remedies.PROVISION_DRY_RUN}"
            )
        return report_failure(name, str(error), if_refused)
    except Unavailable as error:
        return report_failure(
            name, str(error), remedies.IDENTITY if "no token" in error.why else if_unreachable
        )
    except IntegrationError as error:
        return report_failure(name, str(error), if_unreachable)


async def check_clock(
    connections: Connections, name: str, fetch: Callable[[], Awaitable[Response]]
) -> CheckResult:
    """Compare a service's clock with ours. That it does not answer, another check reports."""
    before = connections.now()
    try:
        async with asyncio.timeout(_TIMEOUT):
            response = await fetch()
    except (TimeoutError, IntegrationError):
        return report_skip(name, "no answer")
    return evaluate_clock(
        name, response.headers.get("date"), before, connections.now(), connections.max_skew
    )
