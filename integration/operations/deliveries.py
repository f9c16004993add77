"""VERBS follow, cancel, replay, replay_all, browse, look_up: what became of deliveries."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from integration.core.errors import Issue, Rejected
from integration.core.log_events import log_event
from integration.core.model import Category, Delivery, EntryResult, RowResult, Status, WorkItem
from integration.journal.activity import ActivityFilter, ActivityLog, ActivityPage
from integration.journal.keys import is_delivery_id
from integration.journal.store import Journal, Page
from integration.queues.names import MIRROR_QUEUE, RELAY_QUEUE
from integration.queues.queue_sender import QueueSender

_MAX_COUNT = 500

_CANCELLABLE = frozenset({Status.ACCEPTED, Status.PROCESSING, Status.PARKED, Status.CANCELLED})
_PARKED = frozenset({Status.PARKED})

# The query parameters that choose what is replayed.
_REPLAY_PARAMETERS = ("status", "reason", "sender", "since", "until", "_count", "after")

# The query parameters that choose entries of the activity log, by their very value.
_EXACT_FILTERS = ("upstream", "delivery", "resource", "table", "row", "action", "status")
_ACTIVITY_PARAMETERS = (
    "since",
    "until",
    "category",
    *_EXACT_FILTERS,
    "duration",
    "_count",
    "after",
)

# What became of rows that an operator may have mended the cause of.
_REPLAYABLE_ACTIONS = ("parked", "refused")


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """A delivery; once it is done, with everything that was noted about it."""

    delivery: Delivery
    results: Sequence[EntryResult] = ()
    rows: Sequence[RowResult] = ()


@dataclass(frozen=True, slots=True)
class ReplayFilter:
    """Which parked deliveries an operator means: all these must hold."""

    reason: str = ""  # a part of the reason
    sender: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: str | None = None  # the last of those that were chosen before
    count: int = 50


@dataclass(frozen=True, slots=True)
class ReplayPage:
    """Parked deliveries, the oldest first, now queued again; `after` goes on where this ended."""

    deliveries: tuple[Delivery, ...]
    after: str | None


async def get_status(journal: Journal, id_: str) -> DeliveryStatus:
    """Raises Rejected with 404 for a delivery that is not known."""
    delivery = await _get_delivery(journal, id_)
    if delivery.status is not Status.DONE:
        return DeliveryStatus(delivery)  # a sender who polls costs one storage operation
    results, rows = await asyncio.gather(
        journal.list_entry_results(id_), journal.list_row_results(id_)
    )
    return DeliveryStatus(delivery, results, rows)


async def cancel(journal: Journal, id_: str, now: datetime) -> Delivery:
    """Send nothing more of a delivery. What is written stays written."""
    delivery = await _get_delivery(journal, id_)
    if not await journal.update_delivery(
        id_, only_if=_CANCELLABLE, status=Status.CANCELLED, finished=now
    ):
        raise Rejected(Issue("conflict", "the delivery is done already"), status=409)
    log_event("delivery.cancelled", delivery=id_)
    return delivery


async def replay(journal: Journal, queue: QueueSender, id_: str, now: datetime) -> Delivery:
    """Queue what was given up on again: a parked delivery, or the parked and refused rows of one
    that is done. Its id, its ids for resources and what is settled stay as they are."""
    delivery = await _get_delivery(journal, id_)
    if delivery.status is Status.DONE:
        rows = [
            row for row in await journal.list_row_results(id_) if row.action in _REPLAYABLE_ACTIONS
        ]
        if not rows:
            raise Rejected(Issue("conflict", "nothing of this delivery waits"), status=409)
        items = [WorkItem(id_, resource=row.resource) for row in rows]
        await asyncio.gather(*(queue.send(MIRROR_QUEUE, item) for item in items))
        return delivery
    if not await _requeue(journal, queue, id_, now):
        text = f"only a parked delivery can be replayed, and this one is {delivery.status}"
        raise Rejected(Issue("conflict", text), status=409)
    return delivery


async def replay_all(
    journal: Journal,
    queue: QueueSender,
    replay_filter: ReplayFilter,
    now: datetime,
    *,
    dry_run: bool,
) -> ReplayPage:
    """Replay parked deliveries, the oldest first, as they would have been carried; `dry`: only
    find them. What breaks off can be asked for again: what is queued is not parked any more."""
    oldest: deque[Delivery] = deque(maxlen=replay_filter.count + 1)
    async for delivery in journal.scan_deliveries(
        _PARKED, replay_filter.since, replay_filter.until
    ):  # the newest first
        if _is_match(delivery, replay_filter):
            oldest.append(delivery)
    page = list(reversed(oldest))[: replay_filter.count]
    after = page[-1].id if len(oldest) > len(page) else None
    if not dry_run:
        page = [delivery for delivery in page if await _requeue(journal, queue, delivery.id, now)]
    return ReplayPage(tuple(page), after)


def parse_replay_filter(params: Mapping[str, str]) -> ReplayFilter:
    """What the query parameters of a replay choose. Raises Rejected."""
    unknown = params.keys() - {*_REPLAY_PARAMETERS, "dry-run", "code"}  # code: the function key
    if unknown:
        # Ignored, it would replay more than was meant.
        text = f"a replay is chosen by {', '.join(_REPLAY_PARAMETERS)}, and nothing else"
        raise Rejected(Issue("not-supported", text))
    if params.get("status", Status.PARKED) != Status.PARKED:
        raise Rejected(Issue("value", "only parked deliveries can be replayed", "status"))
    return ReplayFilter(
        params.get("reason", ""),
        params.get("sender"),
        _parse_datetime(params, "since"),
        _parse_datetime(params, "until"),
        _parse_after(params.get("after")),
        _parse_count(params.get("_count", "50")),
    )


async def _requeue(journal: Journal, queue: QueueSender, id_: str, now: datetime) -> bool:
    # The state first: a claim that comes early finds a delivery that may be carried. If this ends
    # in between, housekeeping queues it.
    changed = await journal.update_delivery(
        id_, only_if=_PARKED, status=Status.ACCEPTED, reason=None, replayed=now
    )
    if changed:
        await queue.send(RELAY_QUEUE, WorkItem(id_))
    return changed


def _is_match(delivery: Delivery, replay_filter: ReplayFilter) -> bool:
    return (
        replay_filter.reason in (delivery.reason or "")
        and replay_filter.sender in (None, delivery.sender)
        and (replay_filter.after is None or delivery.id > replay_filter.after)
    )


async def list_deliveries(
    journal: Journal, status: str | None, count: str, after: str | None
) -> Page:
    """Deliveries, newest first, from the query parameters `status`, `_count` and `after`."""
    if status is not None and status not in set(Status):
        text = f"status must be one of {', '.join(Status)}"
        raise Rejected(Issue("value", text, "status"))
    status_filter = Status(status) if status else None
    return await journal.list_deliveries(status_filter, _parse_count(count), _parse_after(after))


async def find_activity(activity: ActivityLog, params: Mapping[str, str]) -> ActivityPage:
    """Entries of the activity log, newest first, by query parameters. Raises Rejected."""
    unknown = params.keys() - {*_ACTIVITY_PARAMETERS, "code"}  # code: the function key
    if unknown:
        text = f"activity is chosen by {', '.join(_ACTIVITY_PARAMETERS)}, and nothing else"
        raise Rejected(Issue("not-supported", text))
    category, duration = params.get("category"), params.get("duration", "0")
    if category is not None and category not in set(Category):
        text = f"category must be one of {', '.join(Category)}"
        raise Rejected(Issue("value", text, "category"))
    if not duration.isascii() or not duration.isdigit() or len(duration) > 9:
        raise Rejected(Issue("value", "duration must be milliseconds", "duration"))
    activity_filter = ActivityFilter(
        since=_parse_datetime(params, "since"),
        until=_parse_datetime(params, "until"),
        category=Category(category) if category else None,
        duration=int(duration) or None,
        **{name: params[name] for name in _EXACT_FILTERS if params.get(name)},
    )
    try:
        return await activity.list_entries(
            activity_filter, _parse_count(params.get("_count", "50")), params.get("after")
        )
    except ValueError:
        text = "after must be as the page before has told it"
        raise Rejected(Issue("value", text, "after")) from None


def _parse_count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _MAX_COUNT:
        raise Rejected(Issue("value", f"_count must be 1 to {_MAX_COUNT}", "_count"))
    return int(text)


def _parse_after(text: str | None) -> str | None:
    if text is not None and not is_delivery_id(text):
        raise Rejected(Issue("value", "after must be the id of a delivery", "after"))
    return text


def _parse_datetime(params: Mapping[str, str], name: str) -> datetime | None:
    """A day, or a moment with its time zone: https://hl7.org/fhir/R4/datatypes.html#dateTime"""
    text = params.get(name)
    if text is None:
        return None
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        value = None
    if value is not None and len(text) == len("2026-03-02"):
        value = value.replace(tzinfo=UTC)
    if value is None or value.tzinfo is None or not 1970 < value.year < 2200:
        example = "2026-03-02 (in UTC) or 2026-03-02T07:30:00Z"
        raise Rejected(Issue("value", f"{name} must be a day or a moment: {example}", name))
    return value


async def _get_delivery(journal: Journal, id_: str) -> Delivery:
    delivery = await journal.get_delivery(id_) if is_delivery_id(id_) else None
    if delivery is None:
        raise Rejected(Issue("not-found", "no delivery has this id"), status=404)
    return delivery
