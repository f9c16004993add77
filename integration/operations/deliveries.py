"""VERBS get_status, get_record, cancel, replay, replay_all: what becomes of deliveries."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from integration.core.errors import Issue, Rejected
from integration.core.log_events import log_event
from integration.core.model import (
    TO_BE_PLANNED,
    UNDER_WAY,
    Delivery,
    DeliveryRequest,
    EntryResult,
    RowResult,
    Status,
    WorkItem,
    count_results,
)
from integration.journal.concern import ConcernGroup
from integration.journal.concerns import change_with_concern
from integration.journal.corrections import find_last_correction
from integration.journal.delivery_filter import DeliveryFilter, is_waiting
from integration.journal.lane_bits import list_open_lanes
from integration.journal.store import Journal
from integration.journal.table_keys import is_delivery_id
from integration.operations import query_parameters
from integration.operations.delivery_list import ListQuery, list_with_concerns
from integration.operations.lost_rows import build_row_item, list_rows_without_result
from integration.queues.names import MIRROR_QUEUE, RELAY_QUEUE
from integration.queues.queue_sender import QueueSender

_CANCELLABLE = frozenset({Status.ACCEPTED, Status.PROCESSING, Status.PARKED, Status.CANCELLED})
_PARKED = frozenset({Status.PARKED})
_REPLAYABLE = frozenset({Status.PARKED, Status.ACCEPTED})  # accepted: where a replay broke off


# Seconds between two looks at a delivery whose sender waits. Each costs one storage operation.
_FIRST_PAUSE = 0.1
_LAST_PAUSE = 2.0

# The query parameters that choose what is replayed.
REPLAY_PARAMETERS = (
    *("status", "attention", "reason", "sender", "since", "until"),
    *("_count", "after"),
)

# What of deliveries that are done can be replayed.
_REPLAYABLE_GROUPS = (ConcernGroup.ENTRIES, ConcernGroup.ROWS)


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """The status report of a delivery. It has results only at its end, and rows once it is done."""

    delivery: Delivery
    results: Sequence[EntryResult] = ()
    rows: Sequence[RowResult] = ()


# Returns the request of a delivery as it is judged now: with its sender's rights and policy.
Judge = Callable[[Delivery, DeliveryRequest], DeliveryRequest]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayTerms:
    """On what terms deliveries are replayed. `judge`: None: as they were accepted. `retention`: for
    so long after a delivery was accepted the locks are kept that tell of later deletes and first
    writes; refused entries of an older one are not sent again."""

    judge: Judge | None = None
    retention: timedelta = timedelta.max


DEFAULT_TERMS = ReplayTerms()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayFilter:
    """Which parked deliveries to replay: those for which all of this holds. `group`: instead those
    that are done and have refused entries, or those with rows that need attention."""

    group: ConcernGroup | None = None
    reason: str = ""  # a part of the reason
    sender: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: str | None = None  # as the page before has returned it
    count: int = 50
    terms: ReplayTerms = DEFAULT_TERMS


@dataclass(frozen=True, slots=True)
class ReplayPage:
    """Replayed deliveries, the oldest first. `after`: continues the list, None at its end."""

    deliveries: tuple[Delivery, ...]
    after: str | None


async def get_status(journal: Journal, id_: str, sender: str | None = None) -> DeliveryStatus:
    """Return the status report of a delivery. Raises Rejected with 404 for an unknown one.

    `sender`: who asks, and sees its own deliveries only; None: an operator, who sees all.
    """
    delivery = await _get_delivery(journal, id_, sender)
    if delivery.status is Status.CANCELLED:
        written = await journal.list_entry_results(id_)
        return DeliveryStatus(replace(delivery, **count_results(written)), written)
    if delivery.status is not Status.DONE:
        return DeliveryStatus(delivery)  # a sender who polls costs one storage operation
    results, rows = await asyncio.gather(
        journal.list_entry_results(id_), journal.list_row_results(id_)
    )
    return DeliveryStatus(delivery, results, rows)


async def get_record(journal: Journal, id_: str) -> DeliveryStatus:
    """Return a delivery with all that is recorded of it by now, whatever its state. Raises Rejected
    with 404 for an unknown one."""
    delivery = await _get_delivery(journal, id_)
    results, rows = await asyncio.gather(
        journal.list_entry_results(id_), journal.list_row_results(id_)
    )
    return DeliveryStatus(delivery, results, rows)


async def wait_for_end(
    journal: Journal, id_: str, seconds: float, sleep: Callable[[float], Awaitable[None]]
) -> DeliveryStatus:
    """Return the status report of a delivery at its end, or after so many seconds."""
    waited, pause = 0.0, _FIRST_PAUSE
    status = await get_status(journal, id_)
    while status.delivery.status in UNDER_WAY and waited < seconds:
        await sleep(pause)
        waited, pause = waited + pause, min(pause * 1.5, _LAST_PAUSE)
        status = await get_status(journal, id_)
    return status


async def cancel(journal: Journal, id_: str, now: datetime, sender: str | None = None) -> Delivery:
    """Send nothing more of a delivery. What is written stays written. `sender`: see get_status.

    Raises Rejected: with 404 for an unknown delivery, with 409 for one that is done.
    """
    delivery = await _get_delivery(journal, id_, sender)
    last = await find_last_correction(journal, delivery)
    # Of a delivery whose last correction was cancelled, nothing goes on: it can be cancelled, too.
    if last is not delivery and last.status is not Status.CANCELLED:
        text = f"the delivery was corrected, and goes on as {last.id}: cancel that one"
        raise Rejected(Issue("conflict", text), status=409)
    if delivery.answer_due:
        await journal.index_delivery(id_, now)  # housekeeping queues the answer of a parked one
    if not await change_with_concern(
        journal,
        delivery,
        None,
        only_if=_CANCELLABLE,
        unless_corrected=last is delivery,
        status=Status.CANCELLED,
        finished=now,
    ):
        text = "the delivery is done or was corrected, and can no longer be cancelled"
        raise Rejected(Issue("conflict", text), status=409)
    log_event("delivery.cancelled", delivery=id_)
    return delivery


async def replay(
    journal: Journal,
    queue: QueueSender,
    id_: str,
    now: datetime,
    terms: ReplayTerms = DEFAULT_TERMS,
) -> Delivery:
    """Queue a parked delivery again, or of one that is done the refused entries, and the rows that
    are parked or refused or have no result. One that waits is tried at once, besides its own turn.

    The delivery's id, the ids of its resources and what is written stay as they are. Raises
    Rejected: with 404 for an unknown delivery, with 409 when there is nothing to replay.
    """
    delivery = await _get_delivery(journal, id_)
    if delivery.status is Status.DONE:
        is_queued = await _replay_rows(journal, queue, delivery)
        # Last: afterwards it is not done, and a replay that is repeated queues it.
        is_queued |= await resend_refused(journal, queue, delivery, now, terms)
        if not is_queued:
            raise Rejected(Issue("conflict", _describe_nothing(delivery)), status=409)
    elif is_waiting(delivery):
        await hasten(queue, delivery)
    elif not await requeue(journal, queue, delivery, now, terms):
        text = (
            "only a delivery that is parked or waits can be replayed, and this one is "
            f"{delivery.status}"
        )
        raise Rejected(Issue("conflict", text), status=409)
    return delivery


async def hasten(queue: QueueSender, delivery: Delivery) -> None:
    """Have a delivery that waits tried at once. Its own work items stay in the queue, and find
    nothing left to do if this goes well; if not, they are the only ones that are tried again.

    Raises Unavailable when the queue does not accept a work item.
    """
    items = [WorkItem(delivery.id, once=True)]
    if delivery.status is Status.PROCESSING:
        lanes = list_open_lanes(delivery)
        items = [WorkItem(delivery.id, lane=lane, plan=delivery.plan, once=True) for lane in lanes]
    for item in items:
        await queue.send(RELAY_QUEUE, item)


async def replay_all(
    journal: Journal,
    queue: QueueSender,
    replay_filter: ReplayFilter,
    now: datetime,
    *,
    dry_run: bool,
) -> ReplayPage:
    """Replay parked deliveries, the oldest first. `dry_run`: only find them.

    A request that breaks off can be repeated: what is queued is not parked any more.
    """
    if replay_filter.group is not None:
        return await _replay_group(
            journal, queue, replay_filter, now, group=replay_filter.group, dry_run=dry_run
        )
    since, until = replay_filter.since, replay_filter.until
    oldest: deque[Delivery] = deque(maxlen=replay_filter.count + 1)
    # The newest first.
    async for delivery in journal.scan_deliveries(_REPLAYABLE, since, until):
        if delivery.status is Status.ACCEPTED and not delivery.unqueued:
            continue
        if _is_match(delivery, replay_filter):
            oldest.append(delivery)
    page = list(reversed(oldest))[: replay_filter.count]
    after = page[-1].id if len(oldest) > len(page) else None
    if not dry_run:
        page = [
            item for item in page if await requeue(journal, queue, item, now, replay_filter.terms)
        ]
    return ReplayPage(tuple(page), after)


async def _replay_group(
    journal: Journal,
    queue: QueueSender,
    replay_filter: ReplayFilter,
    now: datetime,
    *,
    group: ConcernGroup,
    dry_run: bool,
) -> ReplayPage:
    """Replay what needs attention, a page of the list at a time; of a page the oldest first."""
    criteria = DeliveryFilter(
        sender=replay_filter.sender,
        reason=replay_filter.reason,
        since=replay_filter.since,
        until=replay_filter.until,
    )
    query = ListQuery(
        criteria=criteria, group=group, count=replay_filter.count, after=replay_filter.after
    )
    found = await list_with_concerns(journal, query, group)
    terms = replay_filter.terms

    async def is_queued(delivery: Delivery) -> bool:
        if group is ConcernGroup.ROWS:
            return await _replay_rows(journal, queue, delivery)
        return await resend_refused(journal, queue, delivery, now, terms)

    page = sorted(found.deliveries, key=lambda delivery: delivery.id)
    if not dry_run:
        page = [delivery for delivery in page if await is_queued(delivery)]
    return ReplayPage(tuple(page), found.after)


def parse_replay_filter(
    params: Mapping[str, str], terms: ReplayTerms = DEFAULT_TERMS
) -> ReplayFilter:
    """Parse the query parameters of a replay. Raises Rejected."""
    if params.get("status", Status.PARKED) != Status.PARKED:
        text = "only parked deliveries can be replayed, or what attention= names"
        raise Rejected(Issue("value", text, "status"))
    group = query_parameters.parse_choice(params.get("attention"), ConcernGroup, "attention")
    if group not in (None, *_REPLAYABLE_GROUPS) or (group and "status" in params):
        text = "attention must be entries or rows, without status"
        raise Rejected(Issue("value", text, "attention"))
    after = params.get("after")
    return ReplayFilter(
        group=group,
        terms=terms,
        reason=params.get("reason", ""),
        sender=params.get("sender"),
        since=query_parameters.parse_datetime(params, "since"),
        until=query_parameters.parse_datetime(params, "until"),
        after=query_parameters.parse_after(after) if group is None else after,
        count=query_parameters.parse_count(params.get("_count", query_parameters.DEFAULT_COUNT)),
    )


def _describe_nothing(delivery: Delivery) -> str:
    if delivery.corrected_by is not None:
        return f"the delivery was corrected by {delivery.corrected_by}: replay that one"
    if delivery.refused:
        return (
            "the delivery was accepted so long ago (RETENTION_DAYS) that its refused entries could "
            "overwrite what came later: have its sender send them again"
        )
    return (
        "this delivery has no refused entries, no parked or refused rows to replay, and none "
        "without a result"
    )


async def resend_refused(
    journal: Journal, queue: QueueSender, delivery: Delivery, now: datetime, terms: ReplayTerms
) -> bool:
    """Queue a delivery that is done again, for its refused entries. Return False if it has none, or
    may not be sent any more, or another one has taken its place."""
    if not may_resend_refused(delivery, now, terms):
        return False
    return await requeue(journal, queue, delivery, now, terms)


async def _replay_rows(journal: Journal, queue: QueueSender, delivery: Delivery) -> bool:
    """Queue the rows that are not as they should be. Return whether there are any."""
    rows = await journal.list_row_results(delivery.id)
    items = [build_row_item(delivery, row.resource) for row in rows if row.is_replayable]
    items += await list_rows_without_result(journal, delivery)
    await asyncio.gather(*(queue.send(MIRROR_QUEUE, item) for item in items))
    return bool(items)


def may_resend_refused(delivery: Delivery, now: datetime, terms: ReplayTerms) -> bool:
    """Whether the refused entries of a delivery that is done may be sent again: not if another one
    has taken its place. Pure."""
    if delivery.corrected_by is not None:
        return False
    return bool(delivery.refused) and now - delivery.accepted < terms.retention


def build_requeue(delivery: Delivery, now: datetime) -> dict[str, Any]:
    """Return what changes when a delivery is queued again. Pure.

    It is planned anew, with the limits of now: they may be what was mended. Its refused entries
    are sent in a new round, whose results replace theirs.
    """
    return {
        "status": Status.ACCEPTED,
        "reason": None,
        "parked": None,
        "finished": None,
        "replayed": now,
        "unqueued": True,
        "planner": TO_BE_PLANNED,
        "round": delivery.round + 1 if delivery.refused else delivery.round,
    }


async def requeue(
    journal: Journal, queue: QueueSender, delivery: Delivery, now: datetime, terms: ReplayTerms
) -> bool:
    """Queue a parked delivery again, or one that is done and has refused entries, or one whose
    replay broke off. Return whether it was one of these: see build_requeue."""
    # The status first, since a worker that gets the work item early must find it accepted. If this
    # ends in between, `unqueued` tells housekeeping, and the next replay.
    id_ = delivery.id
    if delivery.unqueued and delivery.status is Status.ACCEPTED:
        is_due = True
    else:
        changes = await judge_anew(journal, delivery, terms)
        await journal.index_delivery(id_, now)  # for housekeeping, which looks at it soon
        is_due = await change_with_concern(
            journal,
            delivery,
            None,
            only_if=_PARKED | {Status.DONE} if delivery.refused else _PARKED,
            unless_corrected=True,
            **build_requeue(delivery, now),
            **changes,
        )
    if is_due:
        await queue.send(RELAY_QUEUE, WorkItem(id_))
        await journal.update_delivery(id_, unqueued=False)
    return is_due


async def judge_anew(journal: Journal, delivery: Delivery, terms: ReplayTerms) -> dict[str, bool]:
    """Keep with a delivery how its sender is judged now, if entries of it were refused or it was
    held when it came. Return what changes with that: an answer that is a file is written again.

    Before the delivery is queued: from then on it is planned alike, however often.
    """
    if not delivery.refused and delivery.kind != "held":
        return {}
    try:
        request = await journal.get_request(delivery.id)
    except KeyError:
        text = "its bytes are deleted, so nothing of it can be sent again"
        raise Rejected(Issue("conflict", text), status=409) from None
    judged = request if terms.judge is None else terms.judge(delivery, request)
    if judged != request:
        await journal.save_request(delivery.id, judged)
    return {"answer_due": True} if request.answer_to is not None else {}


def _is_match(delivery: Delivery, replay_filter: ReplayFilter) -> bool:
    return (
        replay_filter.reason in (delivery.reason or "")
        and replay_filter.sender in (None, delivery.sender)
        and (replay_filter.after is None or delivery.id > replay_filter.after)
    )


async def _get_delivery(journal: Journal, id_: str, sender: str | None = None) -> Delivery:
    delivery = await journal.get_delivery(id_) if is_delivery_id(id_) else None
    if delivery is None or sender not in (None, delivery.sender):
        raise Rejected(Issue("not-found", "no delivery has this id"), status=404)
    return delivery
