"""Record every call to an upstream in the activity log, with what it was made for.

A verb states once which delivery and resource it works on, a client states its action, and
core/http records the entry when the call ends. The context travels in a context variable: as an
argument it would pass through many functions that do not use it. Tasks inherit it. A client that
sends one request for several contexts names them with `share_activity_contexts`.

Each run of a verb is an operation, with an id of its own that its entries have in common.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from integration.core.errors import IntegrationError
from integration.core.log_events import log_event
from integration.core.model import Activity, Category

# One transaction of a table takes up to 100 entities.
BATCH_SIZE = 100

# Seconds that an entry waits for others while the worker is busy, and that storing may take.
_MAX_WAIT = 5.0


def _make_operation_id() -> str:
    return secrets.token_hex(8)


def _call_later(delay: float, act: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_later(delay, act)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityContext:
    """What a call is made for. Ids and names of tables, no patient data."""

    operation: str | None = None
    delivery: str | None = None
    resource: str | None = None  # Type/id
    table: str | None = None
    row: str | None = None
    action: str | None = None


_contexts: ContextVar[tuple[ActivityContext, ...]] = ContextVar(
    "activity_contexts", default=(ActivityContext(),)
)


def get_activity_context() -> ActivityContext:
    """Return what is being worked on."""
    return _contexts.get()[0]


@contextmanager
def add_activity_context(**fields: str | None) -> Iterator[None]:
    """Set fields of ActivityContext for the calls inside."""
    token = _contexts.set(tuple(replace(context, **fields) for context in _contexts.get()))
    try:
        yield
    finally:
        _contexts.reset(token)


@contextmanager
def share_activity_contexts(contexts: Iterable[ActivityContext]) -> Iterator[None]:
    """Record each call inside once for every one of these contexts."""
    token = _contexts.set(tuple(dict.fromkeys(contexts)))
    try:
        yield
    finally:
        _contexts.reset(token)


def categorize_status(status: int, method: str = "POST") -> Category:
    """Categorize an HTTP status. Pure.

    `warning`: the call is tried again, or the upstream is already in the requested state.
    """
    if status < 400 or (method == "GET" and status in (404, 410)):
        return Category.INFORMATION
    # 404 to 412: somebody else deleted, changed or wrote it; 408, 429, 503: too much to do.
    return Category.WARNING if status in (404, 408, 409, 410, 412, 429, 503) else Category.ERROR


@dataclass(slots=True)
class ActivityRecorder:
    """Collects the entries of a worker and stores them in batches. Without `store` the log is off.

    Entries are stored when `BATCH_SIZE` are pending and `delay` seconds after the first of them, so
    that all work of that time shares one storage operation. Without a delay they are stored when no
    verb is running any more. A worker that is killed loses its pending entries.
    """

    store: Callable[[Sequence[Activity]], Awaitable[None]] | None = None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    clock: Callable[[], float] = time.monotonic
    delay: float = 0.0
    call_later: Callable[[float, Callable[[], None]], object] = _call_later
    new_id: Callable[[], str] = _make_operation_id
    pending: list[Activity] = field(default_factory=list)
    _pending_since: float = 0.0  # when the first pending entry was recorded
    _running: int = 0
    _is_failing: bool = False
    _flushes: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def track(self, **fields: str | None) -> AsyncIterator[None]:
        """Run one piece of work whose calls have these fields of ActivityContext. It is an
        operation of its own, unless it is a part of one for the same delivery and resource."""
        self._running += 1
        try:
            with add_activity_context(**fields, operation=self._choose_operation(fields)):
                yield
        finally:
            self._running -= 1
            is_late = self.clock() - self._pending_since > _MAX_WAIT
            if not self.delay and (not self._running or is_late):
                await self.flush()

    def _choose_operation(self, fields: Mapping[str, str | None]) -> str:
        outer = get_activity_context()
        inner = replace(outer, **fields)
        is_part = (inner.delivery, inner.resource) == (outer.delivery, outer.resource)
        return outer.operation if is_part and outer.operation else self.new_id()

    def record_call(self, upstream: str, method: str, status: int | str, seconds: float) -> None:
        """Record a call: the status of the response, or a word for why there is none."""
        category = categorize_status(status, method) if isinstance(status, int) else Category.ERROR
        for context in _contexts.get():
            self.record(
                category, upstream, str(status), context, action=method.lower(), seconds=seconds
            )

    def record(
        self,
        category: Category,
        upstream: str,
        status: str,
        context: ActivityContext,
        *,
        action: str = "",
        notes: tuple[str, ...] = (),
        seconds: float = 0.0,
    ) -> None:
        """Record one entry. `action` is used where the context has none."""
        if self.store is None:
            return
        if not self.pending:
            self._pending_since = self.clock()
            if self.delay:
                self.call_later(self.delay, self._start_flush)
        self.pending.append(
            self._build(
                category, upstream, status, context, action=action, notes=notes, seconds=seconds
            )
        )
        if len(self.pending) >= BATCH_SIZE:
            self._start_flush()

    async def record_now(
        self,
        category: Category,
        upstream: str,
        status: str,
        context: ActivityContext,
        *,
        notes: tuple[str, ...],
    ) -> None:
        """Record one entry that nothing else would tell, before what it tells of is done. Raises
        Unavailable where it cannot be stored: then it must not be done."""
        if self.store is not None:
            await self.store([self._build(category, upstream, status, context, notes=notes)])

    def _build(
        self,
        category: Category,
        upstream: str,
        status: str,
        context: ActivityContext,
        *,
        action: str = "",
        notes: tuple[str, ...] = (),
        seconds: float = 0.0,
    ) -> Activity:
        return Activity(
            time=self.now(),
            category=category,
            upstream=upstream,
            action=context.action or action,
            status=status,
            delivery=context.delivery,
            resource=context.resource,
            table=context.table,
            row=context.row,
            notes=notes,
            duration=round(seconds * 1000),
            operation=context.operation,
        )

    def _start_flush(self) -> None:
        flush = asyncio.create_task(self.flush())
        self._flushes.add(flush)
        flush.add_done_callback(self._flushes.discard)

    async def flush(self) -> None:
        """Store the pending entries.

        Entries that cannot be stored are dropped, since the work they describe is done. A warning
        is logged for the first of several failures.
        """
        entries, self.pending = self.pending, []
        if self.store is None or not entries:
            return
        try:
            async with asyncio.timeout(_MAX_WAIT):
                await self.store(entries)
        except Exception as error:  # a failing log must not fail the work
            if not self._is_failing:
                reason = str(error) if isinstance(error, IntegrationError) else type(error).__name__
                log_event("activity.dropped", entries=len(entries), reason=reason)
            self._is_failing = True
        else:
            self._is_failing = False
