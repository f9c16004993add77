"""How many requests a worker may have under way to one neighbour, and from when on.

Fewer when the neighbour throttles, slowly more when it does not: additive increase, multiplicative
decrease, as TCP does it (https://www.rfc-editor.org/rfc/rfc5681).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

# The longest closing, in seconds: however long a neighbour wants to be left alone, it is asked
# again after this.
_LONGEST = 15 * 60.0


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    """How many requests may be under way, and what it takes to change that. Pure."""

    maximum: int  # what the operator allows
    ceiling: int  # what the neighbour recommends, within that
    current: int
    round: int = 0  # one more at each fall; a request belongs to the round in which it started
    successes: int = 0  # of this round, since the last change

    def after_success(self, round_: int) -> ConcurrencyLimit:
        """One more after as many successes as there may be requests under way."""
        if round_ != self.round:
            return self
        if self.successes + 1 < self.current:
            return replace(self, successes=self.successes + 1)
        return replace(self, current=min(self.current + 1, self.ceiling), successes=0)

    def after_throttle(self, round_: int) -> ConcurrencyLimit:
        """Half as many. A request from before the last fall says nothing new."""
        if round_ != self.round:
            return self
        return replace(self, current=max(self.current // 2, 1), round=self.round + 1, successes=0)

    def after_advice(self, most: int) -> ConcurrencyLimit:
        """No more than the neighbour recommends; a higher recommendation is grown into."""
        ceiling = max(1, min(most, self.maximum))
        return replace(self, ceiling=ceiling, current=min(self.current, ceiling))


def build_full_limit(maximum: int) -> ConcurrencyLimit:
    """Where a worker starts."""
    return ConcurrencyLimit(maximum, maximum, maximum)


class LimiterClosed(Exception):
    """The neighbour wants to be left alone for longer than is waited for here."""

    def __init__(self, remaining: float) -> None:
        super().__init__(f"closed for {remaining:.0f} s")
        self.remaining = remaining


@dataclass(slots=True)
class Limiter:
    """Shared by all requests to one neighbour. First come, first served.

    `clock` and `pause` are in seconds; `patience` is how long one request waits while closed.
    """

    limit: ConcurrencyLimit
    max_wait: float
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep
    under_way: int = 0
    _opens: float = float("-inf")  # the moment
    _closed: float = 0.0  # seconds of all closings together, to the end of the last one
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # whose it is waits, others queue
    _freed: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def acquire_slot(self) -> AsyncIterator[int]:
        """Room for one request, and the round it belongs to. Raises Closed."""
        before = self._closed - max(0.0, self._opens - self.clock())
        async with self._turn:
            while not await self._free(before):
                pass
            self.under_way += 1
        try:
            yield self.limit.round
        finally:
            self.under_way -= 1
            self._freed.set()

    async def _free(self, closed_before: float) -> bool:
        """Whether the next request may start; if not, what stands in its way has been awaited."""
        remaining = self._opens - self.clock()
        if remaining > 0:
            # Counted from its arrival, so that closings one after another add up, and so that
            # those behind it in the queue do not wait longer than it did.
            if self._closed - closed_before > self.max_wait:
                raise LimiterClosed(remaining)
            await self.pause(remaining)
            return False
        if self.under_way >= self.limit.current:
            self._freed.clear()
            await self._freed.wait()
            return False
        return True

    def record_success(self, round_: int) -> None:
        self.limit = self.limit.after_success(round_)

    def record_throttle(self, round_: int, retry_after: float | None) -> None:
        """Nothing new starts for `retry_after` seconds."""
        self.limit = self.limit.after_throttle(round_)
        now = self.clock()
        opens = now + min(retry_after or 0.0, _LONGEST)
        if opens > max(self._opens, now):
            self._closed += opens - max(self._opens, now)
            self._opens = opens

    def set_advice(self, most: int) -> None:
        """The neighbour recommends no more than this."""
        self.limit = self.limit.after_advice(most)
