"""Change the limits of units while deliveries are under way, and break replays off half-way."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import httpx

from faults import kinds
from faults.deliveries import DeliveryFactory
from faults.injected import KILLED, LIMITS_CHANGED, QUEUED_AGAIN, REPLAY_BROKEN
from faults.judge import Report
from faults.kills import SIDES
from faults.route import PATIENCE, Route
from faults.sweeping import sweep_later
from faults.verdict import AcceptedDelivery

_STREAMS = 14  # in a round
_LIMITS = ("3", "4", "6", "10", "25")  # UNIT_MAX_ENTRIES
_MAX_AGE = "3"  # seconds until a delivery without a FHIR server is parked
_SLOW = 100  # milliseconds of each request of the FHIR server
_LONGEST_START = 1.5  # seconds until the FHIR server fails
_REQUESTS = 7  # that a replay sends, at most
_LATER = timedelta(hours=2)
_SETTINGS = {"HOST_LEASE_SECONDS": "5", "MAX_AGE": _MAX_AGE}


class Replays:
    """Parks deliveries half-way, and replays them with other limits and interrupted."""

    def __init__(self, route: Route, report: Report, maker: DeliveryFactory) -> None:
        self.route, self.report, self.maker = route, report, maker
        self.counted: Counter[str] = Counter()

    async def run_round(self) -> None:
        self.counted.clear()
        random = self.maker.random
        first, second, third = random.sample(_LIMITS, 3)
        await self.route.restart(**_SETTINGS, UNIT_MAX_ENTRIES=first)
        await self.route.delay_fhir(_SLOW)
        streams = kinds.take_streams(self.maker, _STREAMS)
        sent = await asyncio.gather(*(self.route.send(stream) for stream in streams))
        accepted = [item for stream in sent for item in stream]
        await asyncio.sleep(random.uniform(0, _LONGEST_START))
        # Only what writes fails: the mirror, whose rows would be parked too, reads by GET.
        await self.route.inject_fault("fhir", kind="status", status=503, method="POST", next=10**6)
        open_ = [item for item in accepted if await self.route.is_open(item)]
        await self.route.restart(UNIT_MAX_ENTRIES=second)
        self.counted[LIMITS_CHANGED] += len(open_)
        parked = await self._wait_until_parked(accepted)
        await self.route.clear_faults()
        await self.route.delay_fhir(0)
        await self.route.restart(UNIT_MAX_ENTRIES=third)
        self.counted[LIMITS_CHANGED] += len(parked)
        for item in parked:
            await self._break_replay(item)
        self.route.disarm()
        self.counted[QUEUED_AGAIN] += await sweep_later(self.route.running, _LATER)
        ended = await self.route.wait_for_outcomes(accepted)
        self.report.record_stuck_work(await self.route.wait_until_idle())
        injected = self.counted + await self.route.take_injected()
        where = f"limits {first}, {second}, {third}, {len(parked)} deliveries replayed"
        await self.report.judge(ended, where, injected)

    async def _wait_until_parked(
        self, accepted: Sequence[AcceptedDelivery]
    ) -> list[AcceptedDelivery]:
        """Wait until no delivery is under way. Return those that are parked."""
        parked, left = [], list(accepted)
        async with asyncio.timeout(PATIENCE):
            while left:
                states = [await self.route.get_state(item) for item in left]
                parked += [
                    item for item, state in zip(left, states, strict=True) if "parked" in state
                ]
                left = [
                    item
                    for item, state in zip(left, states, strict=True)
                    if state.startswith("202") and "parked" not in state
                ]
                await asyncio.sleep(0.2)
        return parked

    async def _break_replay(self, item: AcceptedDelivery) -> None:
        """Replay a delivery and kill the host meanwhile. Then the operator repeats the replay, or
        leaves it to housekeeping."""
        random = self.maker.random
        order = f"{random.choice(SIDES)}:{random.randint(1, _REQUESTS)}"
        self.route.arm(f"{order} {self.report.next_number()}")
        is_broken = not await self._replay(item)
        if self.route.killed_at:
            self.counted[REPLAY_BROKEN if is_broken else KILLED] += 1
            await self.route.wait_until_ready()
        self.route.disarm()
        if is_broken and random.random() < 0.5:
            while not await self._replay(item):
                await self.route.wait_until_ready()

    async def _replay(self, item: AcceptedDelivery) -> bool:
        """Return whether the replay was answered."""
        with contextlib.suppress(httpx.TransportError):
            answer = await self.route.replay(item)
            return answer.status_code < 500
        return False
