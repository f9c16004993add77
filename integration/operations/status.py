"""VERB report_status: what an operator needs at night, in one look that costs little.

Each part has a time limit of its own, and says so if it cannot be read. However many ask, each part
is read once in five seconds by one worker. Who asks for a report that is a little older gets it,
and has the next one made meanwhile: a page that is looked at again and again waits for no storage.
No part reads more as the tables grow.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

from integration.core.cron import Schedule, find_next
from integration.core.errors import IntegrationError, Unavailable
from integration.core.model import OPEN, RESULT_ACTIONS, Activity, Category, Delivery, Status
from integration.journal.activity_log import ActivityFilter, ActivityLog, ActivityPage
from integration.journal.delivery_filter import DeliveryFilter
from integration.journal.flow_log import FlowReader
from integration.journal.housekeeping_runs import HousekeepingRun, HousekeepingRuns
from integration.journal.store import Journal, Page
from integration.journal.table_keys import parse_accepted_time
from integration.operations.flow import DEFAULT_HOURS, report_flow
from integration.operations.health import CheckedStates, UpstreamCheck, get_last_states
from integration.queues.queue_reader import QueueReader, QueueState

T = TypeVar("T")

# How long a report is answered again, and for how long while a new one is made.
_KEPT = timedelta(seconds=5)
_KEPT_MEANWHILE = timedelta(seconds=15)

# Seconds that each part may take.
_TIMEOUT = 5.0

# The newest deliveries that are looked through for the last one of each sender, in one storage
# operation. A row for each sender would cost an operation for each delivery, or one a minute in
# each worker, to know more of those alone who have not sent for longer than this reaches.
NEWEST = 500

# The most open deliveries, beside the newest, that are counted. Each costs one operation, so they
# are kept for longer the more they are: 1,000 of them for a minute. Reading ends when the half of
# the part's time is over: a number that is too low, and says so, is better than none.
MAX_OPEN = 1000
_KEPT_FOR_EACH = timedelta(seconds=0.06)
_AT_ONCE = 50

# How far back the activity log is looked through, and the most entries of each category.
ACTIVITY_PERIOD = timedelta(hours=1)
MAX_ENTRIES = 200

# How long after its time the row of a run may be missing: functionTimeout of host.json, and a host
# that has to be started.
_GRACE = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A part that could not be read, and why."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDeliveries:
    """How many deliveries are open, and how many of them parked. `counted`: when those were that
    are not among the newest. `oldest_under_way`: of those that are not parked. `more`: there are,
    or may be, more than were looked at; then `oldest` is the oldest of those."""

    counted: datetime
    open: int
    parked: int
    more: bool
    oldest: Delivery | None
    oldest_under_way: Delivery | None = None
    waiting: int = 0  # of those under way: which are tried again, or wait for an operator
    next_attempt: datetime | None = None  # the first of theirs
    waiting_reasons: Mapping[str, int] = field(default_factory=dict)  # how many wait for each


@dataclass(frozen=True, slots=True, kw_only=True)
class LastDeliveries:
    """The last delivery by sender, None for one that has none among the newest. `looked_at`: how
    many those were, `since`: when the oldest of them was accepted, `more`: there are older ones."""

    by_sender: Mapping[str, Delivery | None]
    looked_at: int
    since: datetime | None
    more: bool


@dataclass(frozen=True, slots=True)
class UpstreamTrouble:
    """What the activity log says of one upstream: how many errors and warnings, and the newest; and
    how many of them are calls, and the newest call. The others say what an operation came to."""

    errors: int
    warnings: int
    last_error: Activity | None
    last_warning: Activity | None
    calls: int = 0
    last_call: Activity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityTrouble:
    """The upstreams with errors or warnings since then. `more`: there are more than were looked
    at, so each number may be higher."""

    since: datetime
    by_upstream: Mapping[str, UpstreamTrouble]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HousekeepingState:
    """The last run; None: none is recorded. `due`: when the next one begins; None: the schedule is
    not one that this app can read."""

    last: HousekeepingRun | None
    due: datetime | None
    is_overdue: bool


@dataclass(frozen=True, slots=True)
class RefusalCount:
    """So many answers of one status. `sender`: whose address it was; None: of no listed sender.
    `last`: the beginning of the last hour with one, which is known of answers 401 alone."""

    sender: str | None
    status: int
    count: int
    last: datetime | None = None


@dataclass(frozen=True, slots=True)
class RefusedRequests:
    """The requests of senders that were answered 401, 403 or 429 since then."""

    since: datetime
    by_sender: tuple[RefusalCount, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """All parts. `upstreams`: the last answer of `check_upstreams` in this worker, which
    `started` then."""

    time: datetime
    queues: Mapping[str, QueueState | Unreadable]
    deliveries: OpenDeliveries | Unreadable
    senders: LastDeliveries | Unreadable
    activity: ActivityTrouble | Unreadable
    housekeeping: HousekeepingState | Unreadable
    upstreams: CheckedStates | None
    sender_problems: Mapping[str, str]
    started: datetime
    refusals: RefusedRequests | Unreadable

    @property
    def unreadable(self) -> tuple[Unreadable, ...]:
        """The parts in storage that could not be read."""
        return tuple(part for part in self._stored if isinstance(part, Unreadable))

    @property
    def is_storage_silent(self) -> bool:
        """Whether no part in storage could be read."""
        return len(self.unreadable) == len(self._stored)

    @property
    def _stored(self) -> tuple[object, ...]:
        parts = (self.deliveries, self.senders, self.activity, self.housekeeping, self.refusals)
        return (*self.queues.values(), *parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counted:
    """The open deliveries that were found at that time. `number`: how many had to be read."""

    time: datetime
    deliveries: tuple[Delivery, ...]
    number: int
    is_cut: bool

    def is_fresh(self, now: datetime) -> bool:
        return timedelta() <= now - self.time < self.number * _KEPT_FOR_EACH


@dataclass(slots=True, kw_only=True)
class StatusCheck:
    """What a report is made from, and what all requests to a worker share: the last report.

    `queues`: the names of the app's queues, whose poison queues are looked at, too. `senders`: the
    listed ones. `sender_problems`: by sender, what its settings lack. `schedule`: of housekeeping.
    `timeout`: seconds for each part; `newest` and `max_open`: see NEWEST and MAX_OPEN.
    """

    journal: Journal
    queue_reader: QueueReader
    activity: ActivityLog
    runs: HousekeepingRuns
    flow: FlowReader
    queues: Sequence[str]
    senders: Collection[str]
    sender_problems: Mapping[str, str]
    schedule: Schedule | None
    started: datetime
    now: Callable[[], datetime]
    upstream_check: UpstreamCheck | None = None
    timeout: float = _TIMEOUT
    newest: int = NEWEST
    max_open: int = MAX_OPEN
    _last: StatusReport | None = None
    _counted: _Counted | None = None
    _next: asyncio.Task[StatusReport] | None = None


async def report_status(check: StatusCheck) -> StatusReport:
    """Return the last report while it is fresh, or nearly so; or else a new one. Those who ask
    meanwhile wait for the same one. Raises Unavailable if storage does not answer at all."""
    last = check._last
    age = None if last is None else check.now() - last.time
    if last is None or age is None or not timedelta() <= age < _KEPT_MEANWHILE:
        # Whoever gives up does not take the report from the others.
        report = await asyncio.shield(_begin_report(check))
    else:
        report = last
        if age >= _KEPT:
            _begin_report(check)
    if report.is_storage_silent:
        raise Unavailable("storage", f"no part of the status: {report.unreadable[0].reason}")
    return report


def _begin_report(check: StatusCheck) -> asyncio.Task[StatusReport]:
    """Have a report made, unless one is being made."""
    if check._next is None or check._next.done():
        check._next = asyncio.create_task(_build_report(check))
    return check._next


async def _build_report(check: StatusCheck) -> StatusReport:
    report = await _read_parts(check)
    check._last = report
    return report


async def _read_parts(check: StatusCheck) -> StatusReport:
    now = check.now()
    measure = check.queue_reader.measure
    names = [queue for name in check.queues for queue in (name, f"{name}-poison")]
    queues, (deliveries, senders), activity, housekeeping, refusals = await asyncio.gather(
        asyncio.gather(*(_read(check, partial(measure, name)) for name in names)),
        _read_deliveries(check, now),
        _read(check, partial(_find_trouble, check.activity, now)),
        _read(check, partial(_describe_housekeeping, check, now)),
        _read(check, partial(_find_refusals, check.flow, now)),
    )
    return StatusReport(
        time=now,
        queues=dict(zip(names, queues, strict=True)),
        deliveries=deliveries,
        senders=senders,
        activity=activity,
        housekeeping=housekeeping,
        upstreams=get_last_states(check.upstream_check) if check.upstream_check else None,
        sender_problems=check.sender_problems,
        started=check.started,
        refusals=refusals,
    )


async def _read(check: StatusCheck, work: Callable[[], Awaitable[T]]) -> T | Unreadable:
    try:
        async with asyncio.timeout(check.timeout):
            return await work()
    except TimeoutError:
        return Unreadable(f"not read within {check.timeout:.0f} s")
    except IntegrationError as error:
        return Unreadable(str(error))


async def _read_deliveries(
    check: StatusCheck, now: datetime
) -> tuple[OpenDeliveries | Unreadable, LastDeliveries | Unreadable]:
    """Read the newest deliveries once, for both parts."""
    read_newest = partial(check.journal.list_deliveries, DeliveryFilter(), check.newest, None)
    newest = await _read(check, read_newest)
    if isinstance(newest, Unreadable):
        return newest, newest
    senders = _find_last_deliveries(newest, check.senders)
    return await _read(check, partial(_find_open, check, newest)), senders


def _find_last_deliveries(newest: Page, listed: Iterable[str]) -> LastDeliveries:
    by_sender: dict[str, Delivery | None] = dict.fromkeys(listed)
    for delivery in newest.deliveries:
        # Those of reconcile runs and change events have no sender.
        if delivery.sender and by_sender.get(delivery.sender) is None:
            by_sender[delivery.sender] = delivery
    last = newest.deliveries[-1] if newest.deliveries else None
    return LastDeliveries(
        by_sender=dict(sorted(by_sender.items())),
        looked_at=len(newest.deliveries),
        since=last.accepted if last else None,
        more=newest.after is not None,
    )


async def _find_open(check: StatusCheck, newest: Page) -> OpenDeliveries:
    """Count those of the index, and those among the newest that are too young to be in it.

    What was accepted after the index was filled, and is not among the newest, is not counted:
    `more` tells.
    """
    counted = check._counted
    if counted is None or not counted.is_fresh(check.now()):
        counted = check._counted = await _count_open(check, newest)
    found = {delivery.id: delivery for delivery in (*counted.deliveries, *newest.deliveries)}
    is_open = [delivery for delivery in found.values() if delivery.status in OPEN]
    under_way = [delivery for delivery in is_open if delivery.status is not Status.PARKED]
    return OpenDeliveries(
        counted=counted.time,
        open=len(is_open),
        parked=len(is_open) - len(under_way),
        more=counted.is_cut or await _has_gap(check.journal, newest),
        oldest=_find_oldest(is_open),
        oldest_under_way=_find_oldest(under_way),
        waiting=sum(delivery.waiting is not None for delivery in under_way),
        waiting_reasons=Counter(
            delivery.reason for delivery in under_way if delivery.waiting and delivery.reason
        ),
        next_attempt=min(
            (delivery.next_attempt for delivery in under_way if delivery.next_attempt), default=None
        ),
    )


def _find_oldest(deliveries: Iterable[Delivery]) -> Delivery | None:
    return min(deliveries, key=lambda delivery: delivery.id, default=None)


async def _count_open(check: StatusCheck, newest: Page) -> _Counted:
    began = check.now()
    found = {delivery.id: delivery for delivery in newest.deliveries}
    ids, is_cut = await _list_indexed(check.journal, found, check.max_open)
    number = 0
    while number < len(ids):
        if (check.now() - began).total_seconds() > check.timeout / 2:
            is_cut = True
            break
        part = ids[number : number + _AT_ONCE]
        number += len(part)
        read = await asyncio.gather(*map(check.journal.get_delivery, part))
        found |= {delivery.id: delivery for delivery in read if delivery is not None}
    is_open = tuple(delivery for delivery in found.values() if delivery.status in OPEN)
    return _Counted(time=began, deliveries=is_open, number=number, is_cut=is_cut)


async def _list_indexed(
    journal: Journal, known: Collection[str], limit: int
) -> tuple[list[str], bool]:
    """Return up to `limit` deliveries of the index that are not known, and whether there are
    more."""
    ids: dict[str, None] = {}
    async for entry in journal.scan_index(None):
        if entry.delivery in known or entry.delivery in ids:
            continue
        if len(ids) == limit:
            return list(ids), True
        ids[entry.delivery] = None
    return list(ids), False


async def _has_gap(journal: Journal, newest: Page) -> bool:
    """Whether deliveries were accepted between the index and the newest ones."""
    if newest.after is None:
        return False
    until = await journal.get_indexed_until()
    return until is None or until < parse_accepted_time(newest.after)


async def _find_trouble(log: ActivityLog, now: datetime) -> ActivityTrouble:
    since = now - ACTIVITY_PERIOD
    pages = await asyncio.gather(
        *(
            log.list_entries(ActivityFilter(since=since, category=category), MAX_ENTRIES, None)
            for category in (Category.ERROR, Category.WARNING)
        )
    )
    errors, warnings = (_select_trouble(page) for page in pages)
    upstreams = sorted({entry.upstream for entry in (*errors, *warnings)})
    return ActivityTrouble(
        since=since,
        by_upstream={name: _describe_trouble(name, errors, warnings) for name in upstreams},
        more=any(page.after is not None for page in pages),
    )


def _select_trouble(page: ActivityPage) -> list[Activity]:
    """Leave out what mirroring did not map: it is noted for each patient, and no trouble."""
    return [
        entry
        for entry in page.entries
        if entry.action != "mirror" or entry.category is Category.ERROR
    ]


def _describe_trouble(
    upstream: str, errors: Sequence[Activity], warnings: Sequence[Activity]
) -> UpstreamTrouble:
    own_errors = [entry for entry in errors if entry.upstream == upstream]
    own_warnings = [entry for entry in warnings if entry.upstream == upstream]
    calls = [item for item in (*own_errors, *own_warnings) if item.action not in RESULT_ACTIONS]
    return UpstreamTrouble(
        errors=len(own_errors),
        warnings=len(own_warnings),
        last_error=next(iter(own_errors), None),
        last_warning=next(iter(own_warnings), None),
        calls=len(calls),
        last_call=max(calls, key=lambda entry: entry.time, default=None),
    )


async def _find_refusals(flow: FlowReader, now: datetime) -> RefusedRequests:
    report = await report_flow(flow, DEFAULT_HOURS, now)
    counted = (
        RefusalCount(
            sender.name or None, status, count, sender.last_unproven if status == 401 else None
        )
        for sender in report.by_sender
        for status, count in sender.counts.by_refusal.items()
    )
    return RefusedRequests(report.since, tuple(refusal for refusal in counted if refusal.count))


async def _describe_housekeeping(check: StatusCheck, now: datetime) -> HousekeepingState:
    last = await check.runs.get_last_run()
    # The host schedules the next run when the last one has ended.
    due = _find_due(check.schedule, last.ended if last else check.started)
    is_overdue = due is not None and now > due + _GRACE
    return HousekeepingState(last=last, due=due, is_overdue=is_overdue)


def _find_due(schedule: Schedule | None, after: datetime) -> datetime | None:
    return None if schedule is None else find_next(schedule, after.astimezone(UTC))
