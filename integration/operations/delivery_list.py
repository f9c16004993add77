"""VERB list_deliveries: the deliveries, by what is asked of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from integration.core.errors import Issue, Rejected
from integration.core.model import OPEN, Delivery, Status
from integration.journal.attention import ConcernFilter
from integration.journal.concern import KINDS_OF_GROUPS, Concern, ConcernGroup
from integration.journal.delivery_filter import DeliveryFilter, matches
from integration.journal.store import Journal, Page
from integration.operations import query_parameters
from integration.operations.attention import list_page

# The query parameters that choose what is listed.
LIST_PARAMETERS = (
    *("status", "sender", "kind", "reason", "since", "until", "waiting"),
    *("attention", "resource", "sort", "_count", "after"),
)

# The most concerns that one page looks at to find deliveries.
_MAX_CONCERNS = 5000
_CONCERNS = 500

# Deliveries that are read at the same time.
_MAX_CONCURRENT = 16


class Sort(StrEnum):
    """By which end of the time of acceptance a list begins."""

    NEWEST = "newest"
    OLDEST = "oldest"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """What a list of deliveries is to show. `group`: only those of which something of this group
    needs attention; `after`: as the page before has returned it."""

    criteria: DeliveryFilter
    group: ConcernGroup | None
    resource: str | None = None
    sort: Sort = Sort.NEWEST
    count: int
    after: str | None


async def list_deliveries(journal: Journal, params: Mapping[str, str]) -> Page:
    """Return deliveries by the query parameters LIST_PARAMETERS. Raises Rejected.

    A page looks at 5,000 of them at most, and may be short and have a next one.
    """
    wanted = _parse(params)
    if wanted.group is not None:
        return await list_with_concerns(journal, wanted, wanted.group)
    if wanted.sort is Sort.OLDEST:
        return await _list_oldest(journal, wanted)
    after = query_parameters.parse_after(wanted.after)
    return await journal.list_deliveries(wanted.criteria, wanted.count, after)


def can_begin_with_oldest(params: Mapping[str, str]) -> bool:
    """Whether a list by these query parameters can begin with the oldest deliveries."""
    return not params.get("attention") and params.get("status") in OPEN


def parse_criteria(params: Mapping[str, str]) -> DeliveryFilter:
    """Parse the query parameters that say of which deliveries. Raises Rejected."""
    return DeliveryFilter(
        status=query_parameters.parse_choice(params.get("status"), Status, "status"),
        sender=params.get("sender"),
        kind=params.get("kind"),
        reason=params.get("reason", ""),
        since=query_parameters.parse_datetime(params, "since"),
        until=query_parameters.parse_datetime(params, "until"),
        waiting=query_parameters.parse_flag(params.get("waiting"), "waiting"),
    )


def _parse(params: Mapping[str, str]) -> ListQuery:
    criteria = parse_criteria(params)
    group = query_parameters.parse_choice(params.get("attention"), ConcernGroup, "attention")
    sort = query_parameters.parse_choice(params.get("sort"), Sort, "sort") or Sort.NEWEST
    resource = params.get("resource")
    if resource is not None and group not in (ConcernGroup.ROWS, ConcernGroup.ANY):
        text = (
            "deliveries are not listed by resource, but for rows that need attention: add "
            "attention=rows. GET /api/activity?resource= names the deliveries of each call about it"
        )
        raise Rejected(Issue("not-supported", text, "resource"))
    if sort is Sort.OLDEST and not can_begin_with_oldest(params):
        text = (
            "sort=oldest needs status=accepted, processing or parked, without attention: other "
            "deliveries are kept with the newest first. until= leaves out newer ones"
        )
        raise Rejected(Issue("not-supported", text, "sort"))
    return ListQuery(
        criteria=criteria,
        group=group,
        resource=resource,
        sort=sort,
        count=query_parameters.parse_count(params.get("_count", query_parameters.DEFAULT_COUNT)),
        after=params.get("after"),
    )


async def _list_oldest(journal: Journal, wanted: ListQuery) -> Page:
    """List open deliveries, which are in an index: all that are open are read."""
    after = query_parameters.parse_after(wanted.after)
    criteria = wanted.criteria
    statuses = frozenset({criteria.status} if criteria.status else OPEN)
    found = [
        delivery
        async for delivery in journal.scan_deliveries(statuses, criteria.since, criteria.until)
        if matches(delivery, criteria) and (after is None or delivery.id > after)
    ]
    page = found[::-1][: wanted.count]
    return Page(tuple(page), page[-1].id if len(found) > len(page) else None)


async def list_with_concerns(journal: Journal, wanted: ListQuery, group: ConcernGroup) -> Page:
    """List the deliveries of which something needs attention, by when that began, the newest first.

    One with several such things is on a page once, and may be on a later one again.
    """
    concern_filter = ConcernFilter(
        kinds=KINDS_OF_GROUPS[group], sender=wanted.criteria.sender, resource=wanted.resource
    )
    found: dict[str, Delivery] = {}
    after, looked = wanted.after, 0
    while looked < _MAX_CONCERNS:
        page = await list_page(journal, concern_filter, _CONCERNS, after)
        looked += len(page.concerns) or _CONCERNS
        for start in range(0, len(page.concerns), _MAX_CONCURRENT):
            part = page.concerns[start : start + _MAX_CONCURRENT]
            for concern, delivery in zip(part, await read_deliveries(journal, part), strict=True):
                if delivery is not None and is_wanted(delivery, concern, wanted.criteria):
                    if delivery.id not in found and len(found) == wanted.count:
                        return Page(tuple(found.values()), after)
                    found.setdefault(delivery.id, delivery)
                after = concern.id
        after = page.after
        if after is None:
            break
    return Page(tuple(found.values()), after)


async def read_deliveries(
    journal: Journal, concerns: Sequence[Concern]
) -> Sequence[Delivery | None]:
    """Return the delivery of each concern. Each is read once."""
    ids = list(dict.fromkeys(concern.delivery for concern in concerns))
    read = await asyncio.gather(*(journal.get_delivery(id_) for id_ in ids))
    by_id = dict(zip(ids, read, strict=True))
    return [by_id[concern.delivery] for concern in concerns]


def is_wanted(delivery: Delivery, concern: Concern, criteria: DeliveryFilter) -> bool:
    """Whether a delivery is to be listed for this concern: the reason may stand in either."""
    is_named = criteria.reason in concern.reason
    return matches(delivery, replace(criteria, reason="") if is_named else criteria)
