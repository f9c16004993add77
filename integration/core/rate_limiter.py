"""Limit the concurrent requests of a worker to one upstream.

The limit is halved when the upstream throttles and grows by one when it does not: additive
increase, multiplicative decrease, as in TCP (https://www.rfc-editor.org/rfc/rfc5681).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field, replace

# Seconds after which an upstream is tried again, even if it asked for a longer pause.
_MAX_CLOSING = 15 * 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyLimit:
    """How many requests may run at the same time, and how that changes. Pure."""

    maximum: int  # set by the operator
    ceiling: int  # recommended by the upstream, within the maximum
    current: int
    round: int = 0  # counts the decreases; a request belongs to the round in which it started
    successes: int = 0  # of this round, since the last change

    def after_success(self, round_: int) -> ConcurrencyLimit:
        """Allow one more after as many successes as requests are allowed."""
        if round_ != self.round:
            return self
        if self.successes + 1 < self.current:
            return replace(self, successes=self.successes + 1)
        return replace(self, current=min(self.current + 1, self.ceiling), successes=0)

    def after_throttle(self, round_: int) -> ConcurrencyLimit:
        """Allow half as many. Requests from before the last decrease are ignored."""
        if round_ != self.round:
            return self
        return replace(self, current=max(self.current // 2, 1), round=self.round + 1, successes=0)

    def after_advice(self, recommended: int) -> ConcurrencyLimit:
        """Allow no more than the upstream recommends; grow slowly into a higher recommendation."""
        ceiling = max(1, min(recommended, self.maximum))
        return replace(self, ceiling=ceiling, current=min(self.current, ceiling))


def build_full_limit(maximum: int) -> ConcurrencyLimit:
    """Build the limit with which a worker starts."""
    return ConcurrencyLimit(maximum=maximum, ceiling=maximum, current=maximum)


class LimiterClosed(Exception):
    """The upstream asked for a pause that is longer than a request waits."""

    def __init__(self, remaining: float) -> None:
        super().__init__(f"closed for {remaining:.0f} s")
        self.remaining = remaining


@dataclass(slots=True)
class Limiter:
    """Shared by all requests of a worker to one upstream. First come, first served.

    `clock` and `pause` are in seconds; `max_wait` is how long one request waits while closed.
    """

    limit: ConcurrencyLimit
    max_wait: float
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep
    _: KW_ONLY
    under_way: int = 0
    _opens_at: float = float("-inf")
    _closed_seconds: float = 0.0  # of all pauses together, to the end of the last one
    _queue: asyncio.Lock = field(default_factory=asyncio.Lock)  # held by the next to start
    _slot_freed: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def acquire_slot(self) -> AsyncIterator[int]:
        """Wait until one request may start, and yield its round. Raises LimiterClosed."""
        closed_before = self._closed_seconds - max(0.0, self._opens_at - self.clock())
        async with self._queue:
            while not await self._wait_for_slot(closed_before):
                pass
            self.under_way += 1
        try:
            yield self.limit.round
        finally:
            self.under_way -= 1
            self._slot_freed.set()

    async def _wait_for_slot(self, closed_before: float) -> bool:
        """Return whether the next request may start. If not, wait for what prevents it."""
        remaining = self._opens_at - self.clock()
        if remaining > 0:
            # Counted from the arrival of the request, so that successive pauses add up, and so
            # that the requests behind it in the queue do not wait longer than it did.
            if self._closed_seconds - closed_before > self.max_wait:
                raise LimiterClosed(remaining)
            await self.pause(remaining)
            return False
        if self.under_way >= self.limit.current:
            self._slot_freed.clear()
            await self._slot_freed.wait()
            return False
        return True

    def record_success(self, round_: int) -> None:
        """Take a response without throttling into account."""
        self.limit = self.limit.after_success(round_)

    def record_throttle(self, round_: int, retry_after: float | None) -> None:
        """Start no request for `retry_after` seconds, and fewer after that."""
        self.limit = self.limit.after_throttle(round_)
        now = self.clock()
        opens_at = now + min(retry_after or 0.0, _MAX_CLOSING)
        if opens_at > max(self._opens_at, now):
            self._closed_seconds += opens_at - max(self._opens_at, now)
            self._opens_at = opens_at

    def set_advice(self, recommended: int) -> None:
        """Take the concurrency that the upstream recommends into account."""
        self.limit = self.limit.after_advice(recommended)
