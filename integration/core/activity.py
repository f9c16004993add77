"""What is being done and for whom, so that every call to a neighbour is told: the activity log.

A verb says once for which delivery and resource it works, a client what it asks, and the transport,
where every exchange ends, makes the entry. What they say travels in a context variable: as an
argument it would pass through layers and sinks that have no use for it. It follows tasks by itself;
who sends one request for several of them says so (`together`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from integration.core.errors import IntegrationError
from integration.core.log_events import log_event
from integration.core.model import Activity, Category

# As many entries as one transaction of a table takes.
BATCH_SIZE = 100

# Seconds that an entry waits for others while this worker has work, and that keeping may take.
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class ActivityContext:
    """What a call is for. Ids and names of tables, no patient data."""

    delivery: str | None = None
    resource: str | None = None  # Type/id
    table: str | None = None
    row: str | None = None
    action: str | None = None


_abouts: ContextVar[tuple[ActivityContext, ...]] = ContextVar(
    "abouts", default=(ActivityContext(),)
)


def get_activity_context() -> ActivityContext:
    """What is being done."""
    return _abouts.get()[0]


@contextmanager
def add_activity_context(**what: str | None) -> Iterator[None]:
    """Say more of what is done inside: see About."""
    token = _abouts.set(tuple(replace(each, **what) for each in _abouts.get()))
    try:
        yield
    finally:
        _abouts.reset(token)


@contextmanager
def share_activity_contexts(abouts: Iterable[ActivityContext]) -> Iterator[None]:
    """What is sent inside is sent for all of these, and is an entry of each."""
    token = _abouts.set(tuple(dict.fromkeys(abouts)))
    try:
        yield
    finally:
        _abouts.reset(token)


def categorize_status(status: int, method: str = "POST") -> Category:
    """What to think of an HTTP status; `warning`: it is tried again, or is so by now. Pure."""
    if status < 400 or (method == "GET" and status in (404, 410)):
        return Category.INFORMATION
    # Deleted, changed or written meanwhile, and asked too much.
    return Category.WARNING if status in (404, 408, 409, 410, 412, 429, 503) else Category.ERROR


@dataclass(slots=True)
class ActivityRecorder:
    """The entries of a worker that are not kept yet. Without `keep` the log is off.

    They are kept when `FULL` have come together, and when no verb is under way any more: many
    verbs at once share one storage operation. What a worker that is killed had not kept is lost.
    """

    store: Callable[[Sequence[Activity]], Awaitable[None]] | None = None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    clock: Callable[[], float] = time.monotonic
    pending: list[Activity] = field(default_factory=list)
    _since: float = 0.0  # when the first of those that wait came
    _under_way: int = 0
    _in_trouble: bool = False
    _keeping: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def track(self, **what: str | None) -> AsyncIterator[None]:
        """One piece of work, and what it is about."""
        self._under_way += 1
        try:
            with add_activity_context(**what):
                yield
        finally:
            self._under_way -= 1
            if not self._under_way or self.clock() - self._since > _PATIENCE:
                await self.flush()

    def record_call(self, upstream: str, method: str, status: int | str, seconds: float) -> None:
        """An exchange with a neighbour: the status of its answer, or why there is none."""
        heard = categorize_status(status, method) if isinstance(status, int) else Category.ERROR
        for each in _abouts.get():
            self.record(heard, upstream, str(status), each, method.lower(), seconds=seconds)

    def record(
        self,
        category: Category,
        upstream: str,
        status: str,
        about: ActivityContext,
        action: str = "",
        notes: tuple[str, ...] = (),
        seconds: float = 0.0,
    ) -> None:
        """One entry; `action` is for what does not say its own."""
        if self.store is None:
            return
        if not self.pending:
            self._since = self.clock()
        self.pending.append(
            Activity(
                time=self.now(),
                category=category,
                upstream=upstream,
                action=about.action or action,
                status=status,
                delivery=about.delivery,
                resource=about.resource,
                table=about.table,
                row=about.row,
                notes=notes,
                duration=round(seconds * 1000),
            )
        )
        if len(self.pending) >= BATCH_SIZE:
            keeping = asyncio.create_task(self.flush())
            self._keeping.add(keeping)
            keeping.add_done_callback(self._keeping.discard)

    async def flush(self) -> None:
        """Keep what waits. What the log cannot take costs no work: it is dropped, which is told
        once."""
        entries, self.pending = self.pending, []
        if self.store is None or not entries:
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                await self.store(entries)
        except Exception as error:  # the work is done, whatever becomes of its log
            if not self._in_trouble:
                reason = str(error) if isinstance(error, IntegrationError) else type(error).__name__
                log_event("activity.dropped", entries=len(entries), reason=reason)
            self._in_trouble = True
        else:
            self._in_trouble = False
