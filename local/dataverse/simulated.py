"""An event loop whose time is simulated: it leaps to the next thing due instead of waiting for it.

So that five minutes of limits, or an hour of waiting, take as long as their computing does. For
work within one process: nothing on a socket is waited for.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class _SimulatedSelector(selectors.SelectSelector):
    """Tells the loop of no event, and how long the loop would have waited for one."""

    elapsed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(None if timeout is None else 0)
        if not events and timeout:
            self.elapsed += timeout
        return events


class SimulatedLoop(asyncio.SelectorEventLoop):
    """`asyncio.Runner(loop_factory=SimulatedLoop)`; `loop.time` is the clock that fits it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._simulated = _SimulatedSelector()
        super().__init__(self._simulated, *args, **kwargs)

    def time(self) -> float:
        return self._simulated.elapsed
