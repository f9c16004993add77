"""Run work that would block the event loop in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Parsing this many bytes takes a few milliseconds; starting a thread takes less than one.
_LARGE = 256 * 1024


async def offload(size: int, work: Callable[[], T]) -> T:
    """Return the result of `work`, which is pure and takes time in proportion to `size` bytes."""
    return await asyncio.to_thread(work) if size > _LARGE else work()
