"""Count what a worker lets pass, and store its counts by the hour, at most once a minute.

What is stored is all that this worker has counted in an hour, in the place of what it stored of
that hour before. So a repeated write changes nothing, no two workers write the same row, and a
minute costs one storage operation, however much passes.
docs/decisions/0038-flow-is-counted-by-hour.md
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from typing import TypeVar

from integration.core.errors import IntegrationError
from integration.core.flow import (
    NO_SENDER,
    OTHER_ELEMENTS,
    OTHER_SENDERS,
    FlowCounts,
    HourFlow,
    UnmappedElement,
    find_hour,
)
from integration.core.log_events import log_event

Key = TypeVar("Key", bound=Hashable)

# Names of senders may come with requests, and notes with resources: in each hour the first of them
# are kept, and what comes after them is one.
MAX_SENDERS = 200
MAX_ELEMENTS = 200
MAX_NAME = 200  # characters

# Seconds between two writes, and until the first one, which others of that time share.
INTERVAL = 60.0
_FIRST_DELAY = 5.0

# Seconds that storing may take.
_MAX_WAIT = 5.0

# Hours that are kept while storage does not take them.
_MAX_HOURS = 24


def _call_later(delay: float, act: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_later(delay, act)


@dataclass(slots=True)
class _Hour:
    """The counts of an hour. `is_stored`: storage has all of them."""

    senders: dict[str, FlowCounts] = field(default_factory=dict)
    unmapped: dict[UnmappedElement, int] = field(default_factory=dict)
    is_stored: bool = False


@dataclass(slots=True, kw_only=True)
class FlowRecorder:
    """The counts of one worker. Without `store` nothing is counted.

    `worker`: a token that no other worker has. A worker that is killed loses what it has counted
    since its last write.
    """

    store: Callable[[Sequence[HourFlow]], Awaitable[None]] | None = None
    worker: str = ""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    clock: Callable[[], float] = time.monotonic
    call_later: Callable[[float, Callable[[], None]], object] = _call_later
    _hours: dict[datetime, _Hour] = field(default_factory=dict)
    _written: float = -inf  # when the last write began
    _is_due: bool = False  # a write will begin by itself
    _is_failing: bool = False
    _writes: set[asyncio.Task[None]] = field(default_factory=set)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def count(self, sender: str | None, counts: FlowCounts) -> None:
        """Add to the counts of a sender; None: of no listed one."""
        if self.store is None or counts == FlowCounts():
            return
        senders = self._begin_change().senders
        name = (sender or NO_SENDER)[:MAX_NAME]
        name = _choose_key(senders, name, OTHER_SENDERS, MAX_SENDERS)
        senders[name] = senders.get(name, FlowCounts()) + counts

    def count_unmapped(self, elements: Iterable[UnmappedElement]) -> None:
        """Count elements that a row could not take, each once."""
        found = tuple(elements)
        if self.store is None or not found:
            return
        unmapped = self._begin_change().unmapped
        for element in found:
            known = _choose_key(unmapped, _cut(element), OTHER_ELEMENTS, MAX_ELEMENTS)
            unmapped[known] = unmapped.get(known, 0) + 1

    def list_hours(self) -> list[HourFlow]:
        """Return what is counted of each hour that is not over, or not stored yet."""
        return [self._describe(hour) for hour in sorted(self._hours)]

    async def flush(self) -> None:
        """Store what is not stored. What storage does not take is kept for the next write, and a
        warning is logged for the first of several failures."""
        async with self._lock:
            await self._flush()

    def _begin_change(self) -> _Hour:
        """Return the counts of this hour, and have them stored later."""
        # Never an earlier hour: it may be forgotten here, and what counts it anew would replace it.
        hour = max([find_hour(self.now()), *self._hours])
        if hour not in self._hours:
            self._hours[hour] = _Hour()
            self._forget_hours()
        found = self._hours[hour]
        found.is_stored = False
        self._plan_write()
        return found

    def _plan_write(self) -> None:
        if not self._is_due:
            self._is_due = True
            delay = max(_FIRST_DELAY, self._written + INTERVAL - self.clock())
            self.call_later(delay, self._start_write)

    def _start_write(self) -> None:
        self._is_due = False
        write = asyncio.create_task(self._write_all())
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    async def _write_all(self) -> None:
        await self.flush()
        if any(not hour.is_stored for hour in self._hours.values()):
            self._plan_write()

    async def _flush(self) -> None:
        pending = [hour for hour in sorted(self._hours) if not self._hours[hour].is_stored]
        if self.store is None or not pending:
            return
        self._written = self.clock()
        flows = [self._describe(hour) for hour in pending]
        for hour in pending:  # what is counted from here on is not part of this write
            self._hours[hour].is_stored = True
        try:
            async with asyncio.timeout(_MAX_WAIT):
                await self.store(flows)
        except Exception as error:  # counts that cannot be stored must not fail the work
            for hour in pending:
                if hour in self._hours:
                    self._hours[hour].is_stored = False
            if not self._is_failing:
                reason = str(error) if isinstance(error, IntegrationError) else type(error).__name__
                log_event("flow.not_stored", hours=len(flows), reason=reason)
            self._is_failing = True
        else:
            self._is_failing = False
            self._forget_hours()

    def _forget_hours(self) -> None:
        """Forget the hours that are over and stored, and the oldest of too many."""
        *over, _ = sorted(self._hours)
        for hour in over:
            if self._hours[hour].is_stored or len(self._hours) > _MAX_HOURS:
                del self._hours[hour]

    def _describe(self, hour: datetime) -> HourFlow:
        counts = self._hours[hour]
        return HourFlow(
            hour=hour,
            worker=self.worker,
            senders=dict(counts.senders),
            unmapped=dict(counts.unmapped),
        )


def _choose_key(
    known: dict[Key, FlowCounts] | dict[Key, int], key: Key, rest: Key, limit: int
) -> Key:
    """Return the key, or that of the rest when there are enough others."""
    return key if key in known or len(known) < limit else rest


def _cut(element: UnmappedElement) -> UnmappedElement:
    return UnmappedElement(
        element.type[:MAX_NAME], element.path[:MAX_NAME], element.note[:MAX_NAME]
    )
