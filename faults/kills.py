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
_LOOK = 0.02  # seconds between looks at the host


@dataclass(slots=True)
class Kills:
    """What was asked of the host while it was killed, and at which requests."""

    route: Route
    report: judge.Report
    points: Counter[str] = field(default_factory=Counter)

    async def at_every_request(
        self, maker: Maker, kind: Callable[[Maker], Stream], sides: Sequence[str] = _SIDES
    ) -> None:
        """From the first request of this kind of delivery to its last. With one side, at each
        request; with both, at each request twice."""
        number = 1
        while True:
            reached = [await self.once([kind(maker)], [f"{side}:{number}"]) for side in sides]
            if not any(reached):
                return
            number += 1

    async def at_every_other(self, maker: Maker, kind: Callable[[Maker], Stream]) -> None:
        """At each request once, by turns before and after it."""
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
        while not work.done():
            if not self.route.host.running:
                killed.append(self._killed())
                await self._revive(waiting)
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
        return await self.route.ended([told for stream in sent for told in stream])

    def _arm(self, waiting: list[str]) -> None:
        if waiting:
            self.route.arm(f"{waiting.pop(0)} {self.report.next_number()}")

    def _killed(self) -> str:
        request = self.route.killed_at
        if request is None:
            raise RuntimeError(f"the host has ended by itself:\n{self.route.host.last_lines()}")
        if self.points.total() % _TELL == _TELL - 1:
            self.report.tell(f"kills: {self.points.total() + 1}")
        point = _ID.sub("*", request.replace(f"{ACCOUNT}/", ""))
        self.points[point] += 1
        return point

    async def _revive(self, waiting: list[str]) -> None:
        await self.route.revive()
        self._arm(waiting)
