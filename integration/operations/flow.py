"""VERB report_flow: what passed the relay in the last hours, and what was not mapped.

It reads the counts that the workers store, a range of rows, and no delivery.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from integration.core.errors import Issue, Rejected
from integration.core.flow import (
    OTHER_ELEMENTS,
    FlowCounts,
    HourFlow,
    UnmappedElement,
    add_counts,
    find_hour,
    list_hours,
)
from integration.journal.flow_log import FlowReader

PARAMETERS = ("hours",)

DEFAULT_HOURS = 24
MAX_HOURS = 168

# The most elements that a report names; the others are one.
_MAX_ELEMENTS = 200


@dataclass(frozen=True, slots=True)
class HourCounts:
    """What passed in one hour, of all senders. `hour`: its beginning, in UTC."""

    hour: datetime
    counts: FlowCounts


@dataclass(frozen=True, slots=True)
class SenderFlow:
    """What passed of one sender. `name`: also NO_SENDER and OTHER_SENDERS. `last_seen`: the last of
    the hours in which it has certainly sent a request, `last_unproven`: in which one was not
    proven; None: in none."""

    name: str
    counts: FlowCounts
    last_seen: datetime | None
    last_unproven: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowReport:
    """What passed since the beginning of the first hour. `by_hour`: every hour, the oldest first.
    `by_sender`: by name. `unmapped`: how often each element was not mapped, the most frequent
    first; OTHER_ELEMENTS at the end. `is_cut`: there are more rows than are read, so the oldest
    hours may show less than passed."""

    time: datetime
    by_hour: tuple[HourCounts, ...]
    by_sender: tuple[SenderFlow, ...]
    unmapped: Mapping[UnmappedElement, int]
    is_cut: bool

    @property
    def since(self) -> datetime:
        """The beginning of the first hour."""
        return self.by_hour[0].hour


async def find_flow(log: FlowReader, params: Mapping[str, str], now: datetime) -> FlowReport:
    """Return what passed by the query parameters PARAMETERS. Raises Rejected."""
    return await report_flow(log, _parse_hours(params.get("hours")), now)


async def report_flow(log: FlowReader, hours: int, now: datetime) -> FlowReport:
    """Return what passed in so many hours, that of `now` included. Raises Unavailable."""
    shown = list_hours(now, hours)
    page = await log.list_flows(shown[0])
    # A worker whose clock is ahead may have begun the next hour.
    flows = [flow for flow in page.flows if shown[0] <= flow.hour <= shown[-1]]
    return FlowReport(
        time=now,
        by_hour=tuple(HourCounts(hour, _sum_hour(flows, hour)) for hour in shown),
        by_sender=_sum_senders(flows),
        unmapped=_sum_unmapped(flows),
        is_cut=page.is_cut,
    )


def _parse_hours(text: str | None) -> int:
    if text is None:
        return DEFAULT_HOURS
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_HOURS:
        raise Rejected(Issue("value", f"hours must be a number from 1 to {MAX_HOURS}", "hours"))
    return int(text)


def _sum_hour(flows: list[HourFlow], hour: datetime) -> FlowCounts:
    of_hour = (flow.senders.values() for flow in flows if find_hour(flow.hour) == hour)
    return add_counts(counts for senders in of_hour for counts in senders)


def _sum_senders(flows: list[HourFlow]) -> tuple[SenderFlow, ...]:
    sums: dict[str, FlowCounts] = {}
    seen: dict[str, datetime] = {}
    unproven: dict[str, datetime] = {}
    for flow in flows:
        for name, counts in flow.senders.items():
            sums[name] = sums.get(name, FlowCounts()) + counts
            if counts.is_seen:
                seen[name] = max(flow.hour, seen.get(name, flow.hour))
            if counts.unproven:
                unproven[name] = max(flow.hour, unproven.get(name, flow.hour))
    return tuple(
        SenderFlow(name, sums[name], seen.get(name), unproven.get(name)) for name in sorted(sums)
    )


def _sum_unmapped(flows: list[HourFlow]) -> dict[UnmappedElement, int]:
    sums: Counter[UnmappedElement] = Counter()
    for flow in flows:
        sums.update(flow.unmapped)
    others = sums.pop(OTHER_ELEMENTS, 0)
    ranked = sorted(sums.items(), key=lambda pair: (-pair[1], pair[0]))
    others += sum(number for _, number in ranked[_MAX_ELEMENTS:])
    return dict(ranked[:_MAX_ELEMENTS]) | ({OTHER_ELEMENTS: others} if others else {})
