"""An event loop with simulated time: instead of waiting, it moves its clock to the next timer.

Hours of waiting then take only the time of their computing. It serves work within one process: it
never waits for a socket.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class _SimulatedSelector(selectors.SelectSelector):
    """Never waits: adds up the time that the loop would have waited."""

    elapsed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(None if timeout is None else 0)
        if not events and timeout:
            self.elapsed += timeout
        return events


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Use as `asyncio.Runner(loop_factory=SimulatedLoop)`; `loop.time` is its clock."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._simulated = _SimulatedSelector()
        super().__init__(self._simulated, *args, **kwargs)

    def time(self) -> float:
        return self._simulated.elapsed
