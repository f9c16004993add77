"""Make the services throttle, fail, hang up, lose responses and answer nonsense, at random."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from faults import kinds, proxy
from faults.conditions import change_conditions
from faults.deliveries import DeliveryFactory
from faults.injected import DATAVERSE_FAILED, FHIR_FAILED, STORAGE_FAILED
from faults.judge import Report
from faults.route import Route
from faults.verdict import AcceptedDelivery

_SENDERS = 24
_MAX_PENDING = 16  # faults that no request has met yet
_MAX_GAP = 0.06  # seconds between two faults
_PROGRESS_EVERY = 100  # faults between two lines of output
_SERVICES = ("fhir",) * 4 + ("storage",) * 4 + ("dataverse",)
_IN_A_ROW = (1, 1, 1, 2, 3)  # a client retries two of them within one call, but not three

_BOTH: Sequence[dict[str, Any]] = ({}, {"retryAfter": 1})

# Longer than UPSTREAM_TIMEOUT in route.SETTINGS, and shorter.
_TOO_SLOW, _SLOW = 4500, 60

FHIR: Sequence[dict[str, Any]] = (
    *({"kind": "status", "status": status, **more} for status in (429, 503) for more in _BOTH),
    {"kind": "status", "status": 429, "retryAfter": 0.4, "retryHeader": "x-ms-retry-after-ms"},
    {"kind": "status", "status": 429, "retryAfter": 1, "retryHeader": "Retry-After"},
    *({"kind": "status", "status": status} for status in (500, 502, 504, 408, 409)),
    *({"kind": kind} for kind in ("reset", "lost-reply", "cutoff", "broken")),
    *({"kind": kind, "method": "GET"} for kind in ("reset", "cutoff", "broken")),
    *({"kind": "slow", "delayMs": delay} for delay in (_SLOW, _SLOW, _TOO_SLOW)),
    *({"kind": kind} for kind in ("missing-entry", "extra-entry", "status-text")),
    {"kind": "status", "scope": "entry", "status": 429, "fraction": 0.5, "retryAfter": 1},
    {"kind": "status", "scope": "entry", "status": 429, "entries": [1]},
    *(
        {"kind": "status", "scope": "entry", "status": status, "fraction": 0.34}
        for status in (500, 503, 408, 409)
    ),
)
DATAVERSE: Sequence[dict[str, Any]] = (
    {"kind": "throttle", "retryAfter": 1},
    {"kind": "throttle", "retryAfter": None},
    {"kind": "throttle", "retryAfter": 0},
    {"kind": "throttle", "retryAfter": 1, "code": "0x80072321"},
    *({"kind": "status", "status": status} for status in (500, 502, 503, 504, 408)),
    *({"kind": kind} for kind in ("reset", "lost-reply", "broken")),
    *({"kind": "lost-reply", "method": "PATCH"} for _ in range(2)),
    *({"kind": "slow", "delayMs": delay} for delay in (_SLOW, _TOO_SLOW)),
)


class Weather:
    """Injects faults, a few at a time, while senders send deliveries."""

    def __init__(self, route: Route, report: Report, maker: DeliveryFactory) -> None:
        self.route, self.report, self.maker = route, report, maker
        self.kinds: Counter[str] = Counter()

    async def run_storm(self, faults: int, senders: int = _SENDERS) -> None:
        """Inject this many faults, then none, until all deliveries are done. Then judge them."""
        await self.route.take_injected()
        streams = kinds.generate_streams(self.maker)
        accepted: list[AcceptedDelivery] = []
        async with change_conditions(self.route, self.maker.random) as changed:
            injecting = asyncio.create_task(self._inject_faults(faults))

            async def send_streams() -> None:
                while not injecting.done():
                    sent = await self.route.send(next(streams))
                    accepted.extend(await self.route.wait_for_outcomes(sent))

            await asyncio.gather(injecting, *(send_streams() for _ in range(senders)))
            self.report.record_stuck_work(await self.route.wait_until_idle())
        injected = changed + await self.route.take_injected()
        await self.report.judge(accepted, f"storm of {injected.total()} faults", injected)

    async def _inject_faults(self, faults: int) -> None:
        """Inject faults until enough were met. Few are pending at once, or one request would meet
        them all."""
        requested = printed = 0
        random, before = self.maker.random, await self._count_met()
        while (met := await self._count_met() - before) < faults:
            if requested - met < _MAX_PENDING:
                in_a_row = random.choice(_IN_A_ROW)
                await self._inject(in_a_row)
                requested += in_a_row
            if met >= printed + _PROGRESS_EVERY:
                printed = met
                self.report.print_line(f"{met} of {faults} faults")
            await asyncio.sleep(random.uniform(0, _MAX_GAP))
        await self.route.clear_faults()

    async def _count_met(self) -> int:
        injected = await self.route.count_injected()
        return sum(injected[kind] for kind in (FHIR_FAILED, DATAVERSE_FAILED, STORAGE_FAILED))

    async def _inject(self, in_a_row: int) -> None:
        random = self.maker.random
        service = random.choice(_SERVICES)
        if service == "storage":
            kind = random.choice(proxy.KINDS)
            self.route.proxy.faults.extend([kind] * in_a_row)
        else:
            fault = random.choice(FHIR if service == "fhir" else DATAVERSE)
            await self.route.inject_fault(service, next=in_a_row, **fault)
            kind = " ".join(str(value) for value in fault.values())
        self.kinds[f"{service} {kind}"] += in_a_row
