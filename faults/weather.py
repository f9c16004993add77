"""Neighbours that throttle, fail, hang up, lose their answers and answer nonsense, at random."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from faults import kinds, proxy
from faults.deliveries import Maker
from faults.judge import Report
from faults.route import Route
from faults.verdict import Told

_SENDERS = 24
_WAITING = 16  # faults that are not met yet
_GAP = 0.06  # seconds between two faults, at most
_TELL = 100  # faults between two lines of progress
_WHERE = ("fhir",) * 4 + ("storage",) * 4 + ("dataverse",)
_IN_A_ROW = (1, 1, 1, 2, 3)  # two are waited out inside one call, three are not

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
    """Brings faults, a few at a time, while senders send."""

    def __init__(self, route: Route, report: Report, maker: Maker) -> None:
        self.route, self.report, self.maker = route, report, maker
        self.kinds: Counter[str] = Counter()

    async def storm(self, faults: int, senders: int = _SENDERS) -> None:
        """As many faults as are wanted; then fair weather, until all that was sent has ended."""
        before = await self.route.met()
        clouds = asyncio.create_task(self._clouds(before, faults))
        streams = kinds.streams(self.maker)
        told: list[Told] = []

        async def sender() -> None:
            while not clouds.done():
                sent = await self.route.send(next(streams))
                told.extend(await self.route.ended(sent))

        await asyncio.gather(clouds, *(sender() for _ in range(senders)))
        self.report.note(await self.route.idle())
        met = await self.route.met() - before
        await self.report.judge(told, f"storm of {met} faults", met)

    async def _clouds(self, before: int, faults: int) -> None:
        """Few wait at once to be met, or one request would meet them all."""
        brought = told = 0
        random = self.maker.random
        while (met := await self.route.met() - before) < faults:
            if brought - met < _WAITING:
                row = random.choice(_IN_A_ROW)
                await self._bring(row)
                brought += row
            if met >= told + _TELL:
                told = met
                self.report.tell(f"{met} of {faults} faults")
            await asyncio.sleep(random.uniform(0, _GAP))
        await self.route.no_faults()

    async def _bring(self, row: int) -> None:
        random = self.maker.random
        neighbour = random.choice(_WHERE)
        if neighbour == "storage":
            kind = random.choice(proxy.KINDS)
            self.route.proxy.faults.extend([kind] * row)
        else:
            fault = random.choice(FHIR if neighbour == "fhir" else DATAVERSE)
            await self.route.fault(neighbour, next=row, **fault)
            kind = " ".join(str(value) for value in fault.values())
        self.kinds[f"{neighbour} {kind}"] += row
