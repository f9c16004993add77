"""What a job works on: found in the journal by pages, and counted before it begins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from integration.core.model import Delivery, Status
from integration.journal.attention import ConcernFilter
from integration.journal.concern import KINDS_OF_GROUPS, Concern, ConcernGroup, ConcernKind
from integration.journal.delivery_filter import matches
from integration.journal.jobs import JobFilter
from integration.journal.store import Journal
from integration.journal.table_keys import is_between, parse_activity_time
from integration.operations.attention import list_page
from integration.operations.delivery_list import read_deliveries
from integration.operations.stale_concerns import is_current

# Concerns that one question lists: a table returns 1,000 rows at most.
PAGE = 1000

# Deliveries that are read at the same time.
_MAX_CONCURRENT = 16

_PARKED = frozenset({ConcernKind.PARKED, ConcernKind.HELD})

# What waits for the row of another resource cannot be hastened.
_ROWS = frozenset({ConcernKind.ROW_REFUSED, ConcernKind.ROW_PARKED, ConcernKind.ROW_WAITING})

# The end of a reason of which a concern has the beginning alone: see journal.bounds.bound_text.
_CUT = "…"


@dataclass(frozen=True, slots=True)
class MatchCount:
    """How many things match. `is_complete`: False where the time was over: there are more."""

    number: int
    is_complete: bool


def choose_concerns(job_filter: JobFilter) -> frozenset[ConcernKind] | None:
    """Return the kinds of concerns that name what a job works on. None: none do, so it works
    through the open deliveries. Pure."""
    if job_filter.concern is not None:
        return frozenset({job_filter.concern})
    if job_filter.group is ConcernGroup.ROWS:
        return _ROWS
    if job_filter.group is not None:
        return KINDS_OF_GROUPS[job_filter.group]
    return _PARKED if job_filter.criteria.status is Status.PARKED else None


def may_match(concern: Concern, job_filter: JobFilter) -> bool:
    """Whether a concern may be one that a job works on, as far as it tells by itself. Pure."""
    criteria = job_filter.criteria
    is_named = criteria.reason in concern.reason or concern.reason.endswith(_CUT)
    return is_named and is_between(concern.delivery, criteria.since, criteria.until)


def is_target(concern: Concern, delivery: Delivery | None, job_filter: JobFilter) -> bool:
    """Whether a job works on this concern, whose delivery was read. Pure."""
    if delivery is None:
        return False
    criteria = replace(job_filter.criteria, status=None)
    if criteria.reason in concern.reason:
        criteria = replace(criteria, reason="")
    is_row = job_filter.group is ConcernGroup.ROWS
    return matches(delivery, criteria) and (is_row or is_current(concern, delivery))


async def list_concern_page(
    journal: Journal, job_filter: JobFilter, until: datetime, after: str | None
) -> tuple[list[Concern], str | None]:
    """Return the next concerns that may match and are not newer than `until`, and where the next
    page begins."""
    page = await list_page(journal, _build_criteria(job_filter, until), PAGE, after)
    return [concern for concern in page.concerns if may_match(concern, job_filter)], page.after


async def list_segment(
    journal: Journal, job_filter: JobFilter, until: datetime, start: str, end: str | None
) -> list[Concern]:
    """Return the concerns behind the key `start` and before the key `end`, the oldest first."""
    criteria = _build_criteria(job_filter, until)
    if end is not None:
        criteria = replace(criteria, since=parse_activity_time(end))
    found: list[Concern] = []
    after: str | None = start or None
    while True:
        page = await list_page(journal, criteria, PAGE, after)
        for concern in page.concerns:
            if end is not None and concern.id >= end:
                return found[::-1]
            if may_match(concern, job_filter):
                found.append(concern)
        after = page.after
        if after is None:
            return found[::-1]


def _build_criteria(job_filter: JobFilter, until: datetime) -> ConcernFilter:
    kinds = choose_concerns(job_filter) or frozenset()
    return ConcernFilter(
        kinds=kinds,
        sender=job_filter.criteria.sender,
        until=until,
        reason=job_filter.same_reason,
    )


async def list_open_ids(
    journal: Journal, job_filter: JobFilter, until: datetime, after: str | None
) -> list[str]:
    """Return the open deliveries behind `after` that were accepted up to `until`, the oldest
    first, by what their ids tell alone."""
    criteria = job_filter.criteria
    latest = until if criteria.until is None else min(until, criteria.until)
    ids = await journal.list_open(criteria.since, latest)
    return [id_ for id_ in ids if after is None or id_ > after]


async def count_matching(
    journal: Journal, job_filter: JobFilter, now: Callable[[], datetime], seconds: float = 3.0
) -> MatchCount:
    """Return how many things a job with this filter would work on now. It looks for so many
    seconds, and costs one storage operation for 1,000 of them; or one more for each where only the
    delivery tells whether it matches: `kind`, and `status` accepted or processing.

    What was mended and not dropped yet counts, too. Raises Unavailable.
    """
    begun = now()
    number = 0
    async for counted in _count_parts(journal, job_filter, begun):
        number += counted
        if (now() - begun).total_seconds() >= seconds:
            return MatchCount(number, False)
    return MatchCount(number, True)


async def _count_parts(
    journal: Journal, job_filter: JobFilter, until: datetime
) -> AsyncIterator[int]:
    """Count by parts. After each the time may be over."""
    if choose_concerns(job_filter) is None:
        ids = await list_open_ids(journal, job_filter, until, None)
        for start in range(0, len(ids), _MAX_CONCURRENT):
            part = ids[start : start + _MAX_CONCURRENT]
            read = await asyncio.gather(*(journal.get_delivery(id_) for id_ in part))
            yield sum(item is not None and matches(item, job_filter.criteria) for item in read)
        return
    after: str | None = None
    while True:
        concerns, after = await list_concern_page(journal, job_filter, until, after)
        if job_filter.criteria.kind is None:
            yield len(concerns)
        else:
            for start in range(0, len(concerns), _MAX_CONCURRENT):
                yield await _count_targets(
                    journal, job_filter, concerns[start : start + _MAX_CONCURRENT]
                )
        if after is None:
            return


async def _count_targets(
    journal: Journal, job_filter: JobFilter, concerns: Sequence[Concern]
) -> int:
    read = await read_deliveries(journal, concerns)
    pairs = zip(concerns, read, strict=True)
    return sum(is_target(concern, delivery, job_filter) for concern, delivery in pairs)
