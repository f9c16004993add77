"""Replay or cancel many deliveries with few storage operations: see operations.deliveries for one.

Of a hundred deliveries of one day each step but the queue's takes one operation. A delivery is
changed only if its row is still as it was read: whoever is told that it is not reads it again.

The order is that of one delivery, but for concerns: they are deleted last. So a job whose worker
ended in between finds the delivery by its concern again, and sees in it what is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from integration.core.errors import Rejected
from integration.core.log_events import log_event
from integration.core.model import Delivery, Status, WorkItem
from integration.journal.concerns import drop_with
from integration.journal.store import Journal
from integration.operations.deliveries import ReplayTerms, build_requeue, judge_anew
from integration.queues.names import RELAY_QUEUE
from integration.queues.queue_sender import QueueSender

# Things that are worked on at the same time.
_MAX_CONCURRENT = 16

_Thing = TypeVar("_Thing")
_Result = TypeVar("_Result")


async def replay_many(
    journal: Journal,
    queue: QueueSender,
    deliveries: Sequence[Delivery],
    now: datetime,
    terms: ReplayTerms,
    *,
    job: str,
) -> dict[str, bool | str]:
    """Queue deliveries again that are parked, or done with refused entries. Return for each whether
    it is queued, or why it cannot be. `job`: the id of the job that does so.

    Raises Unavailable, after what the queue has taken is recorded.
    """

    async def judge(delivery: Delivery) -> dict[str, bool] | str:
        try:
            return await judge_anew(journal, delivery, terms)
        except Rejected as error:
            return str(error)

    results: dict[str, bool | str] = {}
    changes: list[tuple[Delivery, Mapping[str, Any]]] = []
    judged = await do_side_by_side(judge, deliveries)
    for delivery, judgement in zip(deliveries, judged, strict=True):
        if isinstance(judgement, str):
            results[delivery.id] = judgement
        else:
            changed = {**build_requeue(delivery, now), **judgement, "job": job}
            changes.append((delivery, drop_with(delivery, changed)))
    await journal.index_deliveries([delivery.id for delivery, _ in changes], now)
    are_set = await journal.update_deliveries(changes)
    results |= {delivery.id: is_set for (delivery, _), is_set in zip(changes, are_set, strict=True)}
    replayed = [delivery for delivery in deliveries if results[delivery.id] is True]
    await send_all(journal, queue, [delivery.id for delivery in replayed])
    await _delete_concerns(journal, replayed)
    return results


async def send_all(journal: Journal, queue: QueueSender, ids: Sequence[str]) -> None:
    """Queue deliveries that are accepted again, and record that they are queued. Raises
    Unavailable, after what the queue has taken is recorded."""
    sent: list[str] = []

    async def send(id_: str) -> None:
        await queue.send(RELAY_QUEUE, WorkItem(id_))
        sent.append(id_)

    try:
        await do_side_by_side(send, ids)
    finally:
        if sent:
            await journal.mark_queued(sent)


async def cancel_many(
    journal: Journal, deliveries: Sequence[Delivery], now: datetime, *, job: str
) -> dict[str, bool]:
    """Cancel open deliveries. Return for each whether it is cancelled. `job`: see replay_many."""
    # Housekeeping queues the answers of parked ones.
    await journal.index_deliveries([item.id for item in deliveries if item.answer_due], now)
    changes = {"status": Status.CANCELLED, "finished": now, "job": job}
    are_set = await journal.update_deliveries(
        [(delivery, drop_with(delivery, changes)) for delivery in deliveries]
    )
    cancelled = [item for item, is_set in zip(deliveries, are_set, strict=True) if is_set]
    for delivery in cancelled:
        log_event("delivery.cancelled", delivery=delivery.id)
    await _delete_concerns(journal, cancelled)
    return {item.id: is_set for item, is_set in zip(deliveries, are_set, strict=True)}


async def _delete_concerns(journal: Journal, deliveries: Sequence[Delivery]) -> None:
    await journal.delete_concerns([item.attention for item in deliveries if item.attention])


async def do_side_by_side(
    work: Callable[[_Thing], Awaitable[_Result]], things: Sequence[_Thing]
) -> list[_Result]:
    """Do some things at the same time. Raises the first error, after all have ended."""
    semaphore = asyncio.Semaphore(_MAX_CONCURRENT)

    async def run(thing: _Thing) -> _Result:
        async with semaphore:
            return await work(thing)

    ended = await asyncio.gather(*map(run, things), return_exceptions=True)
    results: list[_Result] = []
    for result in ended:
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results
