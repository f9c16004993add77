"""Let invocations run into functionTimeout, since the FHIR server answers late.

Azure ends the worker process then, with all that it has under way. The laptop's host only cancels
the invocation, unless HOST_TIMEOUT_KILLS is set; both are tried.
"""

from __future__ import annotations

import asyncio

from faults import kinds
from faults.deliveries import DeliveryFactory
from faults.injected import TIMED_OUT
from faults.judge import Report
from faults.route import Route

_STREAMS = 12  # in a round
_TIMEOUT = "00:00:06"
_LATE = 7000  # milliseconds of a late answer: longer than the timeout
_SETTINGS = {
    "AzureFunctionsJobHost__functionTimeout": _TIMEOUT,
    "UPSTREAM_TIMEOUT": "20",
    "HOST_LEASE_SECONDS": "4",
}


async def run_time_outs(
    route: Route, report: Report, maker: DeliveryFactory, number: int, streams: int = _STREAMS
) -> None:
    """Time out this many invocations: half of them cancelled, half of them killed. `streams`: that
    are sent at once. The more, the more of them time out since the machine is busy."""
    for kills, share in (("0", number // 2), ("1", number)):
        await route.restart(**_SETTINGS, HOST_TIMEOUT_KILLS=kills)
        while report.tally.injected[TIMED_OUT] < share:
            await _run_round(route, report, maker, streams)
            report.print_progress(f"{report.tally.injected[TIMED_OUT]} of {number} time-outs")


async def _run_round(route: Route, report: Report, maker: DeliveryFactory, number: int) -> None:
    before = route.count_in_log("function.timed_out")
    streams = kinds.take_streams(maker, number)
    for method in ("POST", "POST", "GET"):
        late = {"kind": "slow", "delayMs": _LATE, "method": method}
        await route.inject_fault("fhir", **late, next=maker.random.randint(2, number))
    sent = await asyncio.gather(*(route.send(stream) for stream in streams))
    accepted = await route.wait_for_outcomes([item for stream in sent for item in stream])
    report.record_stuck_work(await route.wait_until_idle())
    await route.clear_faults()
    met = route.count_in_log("function.timed_out") - before
    injected = {**await route.take_injected(), TIMED_OUT: met}
    await report.judge(accepted, f"{met} invocations timed out", injected)
