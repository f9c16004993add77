"""Observe a process's memory and the storage emulator's requests from outside."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

# Queues are polled whether or not anything is delivered, so polls are not counted.
_POLL = re.compile(r'"GET [^"]*/messages\?[^"]*numofmessages')
_REQUEST = re.compile(r'"(GET|PUT|POST|DELETE|MERGE|PATCH|HEAD) ')


# What the Functions host does with a message after a function has ended, or while it runs.
_HOST = re.compile(r'"(DELETE|PUT) [^"]*/messages/')


def count_storage_operations(log: Path) -> int:
    """Return the number of requests to the emulator so far, without queue polls."""
    return len(_list_operations(log))


def count_host_operations(log: Path) -> int:
    """Return how many of these the host made, and not the app: it deletes each message, or says
    that it is still at work. It does so in Azure, too."""
    return sum(1 for line in _list_operations(log) if _HOST.search(line))


def _list_operations(log: Path) -> list[str]:
    lines = log.read_text("utf-8", "replace").splitlines()
    return [line for line in lines if _REQUEST.search(line) and not _POLL.search(line)]


@dataclass(slots=True)
class Peak:
    """Bytes of resident memory at rest and at the highest point."""

    rest: int
    highest: int

    @property
    def grown(self) -> int:
        return self.highest - self.rest


@asynccontextmanager
async def watch_peak_memory(process: psutil.Process) -> AsyncIterator[Peak]:
    """Sample the process's memory every 5 ms while the block runs."""
    rest = process.memory_info().rss
    peak = Peak(rest, rest)

    async def watch() -> None:
        while True:
            peak.highest = max(peak.highest, process.memory_info().rss)
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch())
    try:
        yield peak
    finally:
        watching.cancel()
