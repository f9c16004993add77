"""The host killed before or after each request that leaves it, then started again."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from faults import judge, kinds
from faults.deliveries import DeliveryFactory, Stream
from faults.route import Route
from faults.verdict import AcceptedDelivery
from local.host.emulator import ACCOUNT

_SIDES = ("before", "after")
# In an address: ids, and the keys of a table's entity.
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\(.*\)|\d+$")

_PROGRESS_EVERY = 20  # kills between two lines of progress
_CHECK_SECONDS = 0.05  # seconds between looks at the host


@dataclass(slots=True)
class Kills:
    """What was asked of the host while it was killed, and at which requests."""

    route: Route
    report: judge.Report
    points: Counter[str] = field(default_factory=Counter)

    async def kill_on_both_sides(
        self, maker: DeliveryFactory, kind: Callable[[DeliveryFactory], Stream]
    ) -> None:
        """Before and after each, from the first request of this kind of delivery to its last."""
        number = 1
        while any(
            [await self.run_with_kills([kind(maker)], [f"{side}:{number}"]) for side in _SIDES]
        ):
            number += 1

    async def kill_on_alternating_sides(
        self, maker: DeliveryFactory, kind: Callable[[DeliveryFactory], Stream]
    ) -> None:
        """Before the one and after the next: enough for what does the same several times."""
        number = 1
        while await self.run_with_kills([kind(maker)], [f"{_SIDES[number % 2]}:{number}"]):
            number += 1

    async def kill_at_random(self, maker: DeliveryFactory, streams: int, max_request: int) -> None:
        """Several deliveries under way; killed, and killed again while they are taken up."""
        orders = [
            f"{maker.random.choice(_SIDES)}:{maker.random.randint(1, max_request)}"
            for _ in range(3)
        ]
        await self.run_with_kills(kinds.take_streams(maker, streams), orders)

    async def run_with_kills(self, streams: Sequence[Stream], orders: Sequence[str]) -> bool:
        """Whether the host was killed at least once, all is told and judged either way."""
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
        await self.report.judge(accepted, where, injected=len(killed))
        return bool(killed)

    async def _send_all(self, streams: Sequence[Stream]) -> list[AcceptedDelivery]:
        """Until the queues are empty. Nobody asks how far it is before: that would be counted
        too. The host may die of its very last request, so it is watched to the end."""
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
