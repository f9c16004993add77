"""VERB read_story: all that is recorded of one delivery, and the calls that were made for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from integration.core.errors import Unavailable
from integration.core.model import Activity, Delivery, EntryResult, RowResult
from integration.journal.activity_log import ActivityFilter, ActivityLog, ActivityPage
from integration.journal.store import Journal
from integration.operations.deliveries import get_record

# The newest calls that a story tells. The activity log lists all.
MAX_CALLS = 200

# Seconds that the activity log has to be searched: the rest of the story does not wait for it.
_PATIENCE = 5.0

# The log is searched from a little before the delivery was accepted, since the clocks of workers
# differ, until so long after its end, when its rows are mirrored.
_BEFORE = timedelta(minutes=5)
AFTER_END = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryStory:
    """A delivery. `first`: the id of the first one with the same key, if that is another; `calls`:
    to upstreams, the oldest first; `has_more_calls`: some are left out; `problem`: why no calls
    could be found."""

    delivery: Delivery
    results: Sequence[EntryResult]
    rows: Sequence[RowResult]
    first: str | None
    calls: Sequence[Activity] = ()
    has_more_calls: bool = False
    problem: str | None = None


async def read_story(journal: Journal, activity: ActivityLog, id_: str) -> DeliveryStory:
    """Return the story of a delivery. Raises Rejected with 404 for an unknown one, and
    Unavailable."""
    status = await get_record(journal, id_)
    delivery = status.delivery
    first, (page, problem) = await asyncio.gather(
        _find_first(journal, delivery), _find_calls(activity, delivery)
    )
    return DeliveryStory(
        delivery=delivery,
        results=status.results,
        rows=status.rows,
        first=first,
        calls=page.entries[::-1],
        has_more_calls=page.after is not None,
        problem=problem,
    )


async def _find_first(journal: Journal, delivery: Delivery) -> str | None:
    """Return the delivery that this one repeats."""
    if not delivery.repeat:
        return None
    first = await journal.find_delivery_by_key(delivery.sender, delivery.key)
    return None if first == delivery.id else first


async def _find_calls(activity: ActivityLog, delivery: Delivery) -> tuple[ActivityPage, str | None]:
    """Return the newest calls that were made for a delivery, or why they cannot be found."""
    until = delivery.finished + AFTER_END if delivery.finished is not None else None
    criteria = ActivityFilter(since=delivery.accepted - _BEFORE, until=until, delivery=delivery.id)
    try:
        async with asyncio.timeout(_PATIENCE):
            return await activity.list_entries(criteria, MAX_CALLS, None), None
    except TimeoutError:
        return ActivityPage((), None), f"it was not searched within {_PATIENCE:g} s"
    except Unavailable as error:
        return ActivityPage((), None), str(error)
