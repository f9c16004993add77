"""The host killed before or after each request that leaves it, then started again."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from faults import judge, kinds
from faults.deliveries import Maker, Stream
from faults.route import Route
from faults.verdict import Told
from local.host.emulator import ACCOUNT

_SIDES = ("before", "after")
# In an address: ids, and the keys of a table's entity.
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\(.*\)|\d+$")

_TELL = 20  # kills between two lines of progress
_LOOK = 0.05  # seconds between looks at the host


@dataclass(slots=True)
class Kills:
    """What was asked of the host while it was killed, and at which requests."""

    route: Route
    report: judge.Report
    points: Counter[str] = field(default_factory=Counter)

    async def at_both_sides(self, maker: Maker, kind: Callable[[Maker], Stream]) -> None:
        """Before and after each, from the first request of this kind of delivery to its last."""
        number = 1
        while any([await self.once([kind(maker)], [f"{side}:{number}"]) for side in _SIDES]):
            number += 1

    async def by_turns(self, maker: Maker, kind: Callable[[Maker], Stream]) -> None:
        """Before the one and after the next: enough for what does the same several times."""
        number = 1
        while await self.once([kind(maker)], [f"{_SIDES[number % 2]}:{number}"]):
            number += 1

    async def at_random(self, maker: Maker, streams: int, most: int) -> None:
        """Several deliveries under way; killed, and killed again while they are taken up."""
        orders = [
            f"{maker.random.choice(_SIDES)}:{maker.random.randint(1, most)}" for _ in range(3)
        ]
        await self.once(kinds.some(maker, streams), orders)

    async def once(self, streams: Sequence[Stream], orders: Sequence[str]) -> bool:
        """Whether the host was killed at least once, all is told and judged either way."""
        waiting = list(orders)
        killed: list[str] = []
        self._arm(waiting)
        work = asyncio.create_task(self._work(streams))
        while (request := self.route.killed_at) or not work.done():
            if request:
                killed.append(self._point(request))
                await self.route.revived()
                self._arm(waiting)
            await asyncio.wait({work}, timeout=_LOOK)
        told = await work
        where = f"killed {', then '.join(killed) or 'never'} ({', '.join(orders)})"
        await self.report.judge(told, where, injected=len(killed))
        return bool(killed)

    async def _work(self, streams: Sequence[Stream]) -> list[Told]:
        """Until the queues are empty. Nobody asks how far it is before: that would be counted
        too. The host may die of its very last request, so it is watched to the end."""
        sent = await asyncio.gather(*(self.route.send(stream) for stream in streams))
        self.report.note(await self.route.idle())
        self.route.disarm()
        ended = await self.route.ended([told for stream in sent for told in stream])
        self.report.note(await self.route.idle())
        return ended

    def _arm(self, waiting: list[str]) -> None:
        order = f"{waiting.pop(0)} {self.report.next_number()}" if waiting else ""
        self.route.arm(order)

    def _point(self, request: str) -> str:
        if self.points.total() % _TELL == _TELL - 1:
            self.report.tell(f"{self.points.total() + 1} kills")
        point = _ID.sub("*", request.replace(f"{ACCOUNT}/", ""))
        self.points[point] += 1
        return point
