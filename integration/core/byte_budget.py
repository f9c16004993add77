"""Bound the bytes of deliveries that a worker parses or plans at the same time.

A delivery takes several times its size while it is parsed and planned, so that a few large ones
at once could end the process, and with it every other invocation in it.

Whoever works on a delivery takes a share of its size first, and gives it back at the end, however
that comes about. Those who wait are served in the order in which they came: a large one is not
overtaken by small ones for ever. A share that is larger than the budget counts as the whole
budget, so that it can be taken when nothing else runs. Nobody holds a share and waits for another.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from integration.core.errors import Overloaded

# docs/operations.md says how it follows from the memory of an instance.
DEFAULT_BUDGET = 150_000_000

# Shares up to this size are not counted: all that a worker may hold of them at once is a few
# megabytes, and small deliveries shall not wait for large ones.
UNCOUNTED = 64 * 1024

# Seconds. Parsing and planning as many bytes as the budget has takes less than half a minute.
_RETRY_AFTER = 10.0


@dataclass(slots=True)
class ByteBudget:
    """Shared by all invocations of one side (intake or relay) in a worker."""

    total: int = DEFAULT_BUDGET
    taken: int = field(default=0, init=False)
    _waiting: deque[tuple[int, asyncio.Future[None]]] = field(default_factory=deque, init=False)

    @contextmanager
    def take_now(self, size: int) -> Iterator[None]:
        """Hold a share for the block. Raises Overloaded if it is not free at once."""
        share = self._count(size)
        if share and not self._is_free(share):
            raise Overloaded(_RETRY_AFTER)
        self.taken += share
        try:
            yield
        finally:
            self._give_back(share)

    @asynccontextmanager
    async def take(self, size: int, max_wait: float | None = None) -> AsyncIterator[None]:
        """Wait for a share, at most `max_wait` seconds, and hold it for the block.

        Raises Overloaded.
        """
        share = self._count(size)
        try:
            async with asyncio.timeout(max_wait):
                await self._wait(share)
        except TimeoutError:
            raise Overloaded(_RETRY_AFTER) from None
        try:
            yield
        finally:
            self._give_back(share)

    async def _wait(self, share: int) -> None:
        if not share or self._is_free(share):
            self.taken += share
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((share, turn))
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # its turn came, and was cancelled at once
                self._give_back(share)
            else:
                self._waiting.remove((share, turn))
                self._serve()
            raise

    def _count(self, size: int) -> int:
        return 0 if size <= UNCOUNTED else min(size, self.total)

    def _is_free(self, share: int) -> bool:
        return not self._waiting and self.taken + share <= self.total

    def _give_back(self, share: int) -> None:
        self.taken -= share
        self._serve()

    def _serve(self) -> None:
        """Give the first of those who wait their shares, as long as these are free."""
        while self._waiting and self.taken + self._waiting[0][0] <= self.total:
            share, turn = self._waiting[0]
            if turn.cancelled():  # its task has not run since; it leaves the queue by itself
                return
            self._waiting.popleft()
            self.taken += share
            turn.set_result(None)
