"""Kill the host before or after each request that it sends; it restarts at once."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from faults import judge, kinds
from faults.deliveries import DeliveryFactory, Stream
from faults.injected import KILLED
from faults.route import Route
from faults.verdict import AcceptedDelivery
from local.host.emulator import ACCOUNT

SIDES = ("before", "after")
# Ids and table keys in a URL.
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\(.*\)|\d+$")

_PROGRESS_EVERY = 20  # kills between two lines of output
_CHECK_SECONDS = 0.05  # seconds between checks of the host


@dataclass(slots=True)
class Kills:
    """Sends deliveries to a host that is killed, and counts the requests at which it was."""

    route: Route
    report: judge.Report
    points: Counter[str] = field(default_factory=Counter)

    async def kill_on_both_sides(
        self, maker: DeliveryFactory, kind: Callable[[DeliveryFactory], Stream]
    ) -> None:
        """Kill before and after every request that this kind of delivery causes."""
        number = 1
        while any(
            [await self.run_with_kills([kind(maker)], [f"{side}:{number}"]) for side in SIDES]
        ):
            number += 1

    async def kill_on_alternating_sides(
        self, maker: DeliveryFactory, kind: Callable[[DeliveryFactory], Stream]
    ) -> None:
        """Kill before one request and after the next: enough if requests repeat."""
        number = 1
        while await self.run_with_kills([kind(maker)], [f"{SIDES[number % 2]}:{number}"]):
            number += 1

    async def kill_at_random(self, maker: DeliveryFactory, streams: int, max_request: int) -> None:
        """Process several deliveries at once; kill the host three times at random requests."""
        orders = [
            f"{maker.random.choice(SIDES)}:{maker.random.randint(1, max_request)}" for _ in range(3)
        ]
        await self.run_with_kills(kinds.take_streams(maker, streams), orders)

    async def run_with_kills(self, streams: Sequence[Stream], orders: Sequence[str]) -> bool:
        """Send the streams, kill by the orders and judge. Return whether the host was killed."""
        waiting = list(orders)
        killed: list[str] = []
        self._arm_next(waiting)
        work = asyncio.create_task(self._send_all(streams))
        while (request := self.route.killed_at) or not work.done():
            if request:
                killed.append(self._record_kill(request))
                await self.route.wait_until_ready()
                self._arm_next(waiting)
            await asyncio.wait({work}, timeout=_CHECK_SECONDS)
        accepted = await work
        where = f"killed {', then '.join(killed) or 'never'} ({', '.join(orders)})"
        await self.report.judge(accepted, where, injected={KILLED: len(killed)})
        return bool(killed)

    async def _send_all(self, streams: Sequence[Stream]) -> list[AcceptedDelivery]:
        """Send the streams and wait until the queues are empty. No status is polled before that:
        a poll would be counted as a request. The host may be killed at its very last request."""
        sent = await asyncio.gather(*(self.route.send(stream) for stream in streams))
        self.report.record_stuck_work(await self.route.wait_until_idle())
        self.route.disarm()
        ended = await self.route.wait_for_outcomes(
            [accepted for stream in sent for accepted in stream]
        )
        self.report.record_stuck_work(await self.route.wait_until_idle())
        return ended

    def _arm_next(self, waiting: list[str]) -> None:
        order = f"{waiting.pop(0)} {self.report.next_number()}" if waiting else ""
        self.route.arm(order)

    def _record_kill(self, request: str) -> str:
        if self.points.total() % _PROGRESS_EVERY == _PROGRESS_EVERY - 1:
            self.report.print_line(f"{self.points.total() + 1} kills")
        point = _ID.sub("*", request.replace(f"{ACCOUNT}/", ""))
        self.points[point] += 1
        return point
