"""Work that would hold up the event loop goes to a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Parsing this many bytes takes a few milliseconds; a thread costs less than one.
_LARGE = 256 * 1024


async def offload(size: int, work: Callable[[], T]) -> T:
    """The result of `work`, which is pure and takes time in proportion to `size` bytes."""
    return await asyncio.to_thread(work) if size > _LARGE else work()
