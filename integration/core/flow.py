"""What passed the relay, counted: by sender and hour, and what was not mapped. Pure.

Names of senders, resource types, element paths and codes, and no patient data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta

# Whose counts these are, where it is no sender: what had none, or came to an address of no listed
# sender; and all senders above the bound. The name of a sender does not begin with a space.
NO_SENDER = ""
OTHER_SENDERS = " others"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowCounts:
    """How many of each. An entry counts when its delivery ends, a row each time it has a result."""

    accepted: int = 0  # deliveries, repeats of one left out
    written: int = 0  # entries
    skipped: int = 0
    superseded: int = 0
    refused: int = 0
    rows_created: int = 0
    rows_updated: int = 0
    rows_deactivated: int = 0
    rows_deleted: int = 0
    rows_refused: int = 0
    rows_parked: int = 0
    unproven: int = 0  # requests that were answered 401
    forbidden: int = 0  # 403
    throttled: int = 0  # 429

    def __add__(self, other: FlowCounts) -> FlowCounts:
        return FlowCounts(**{name: getattr(self, name) + getattr(other, name) for name in NAMES})

    @property
    def is_seen(self) -> bool:
        """Whether the sender has certainly sent a request: who was not proven is not known."""
        return bool(self.accepted or self.forbidden or self.throttled)

    @property
    def by_refusal(self) -> dict[int, int]:
        """How many requests were refused, by the status of the answer."""
        return {status: getattr(self, name) for status, name in _BY_STATUS.items()}

    def list_counted(self) -> dict[str, int]:
        """Return the counts that are not 0, by name."""
        return {name: count for name in NAMES if (count := getattr(self, name))}


NAMES = tuple(column.name for column in fields(FlowCounts))

_BY_STATUS = {401: "unproven", 403: "forbidden", 429: "throttled"}
_ROWS = "created updated deactivated deleted refused parked".split()


def count_refusal(status: int) -> FlowCounts:
    """Return the count of a request that was answered with this status, if it is counted."""
    name = _BY_STATUS.get(status)
    return FlowCounts(**{name: 1} if name else {})


def count_row(action: str) -> FlowCounts:
    """Return the count of a row result, if its action is counted."""
    return FlowCounts(**{f"rows_{action}": 1} if action in _ROWS else {})


@dataclass(frozen=True, slots=True, order=True)
class UnmappedElement:
    """What a row could not take: the resource type, the path of the element, or "" where the note
    names none, and the note without it. `type` "": all above the bound."""

    type: str
    path: str
    note: str


OTHER_ELEMENTS = UnmappedElement("", "", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class HourFlow:
    """What one worker has counted in one hour. A later one of the same hour and worker replaces
    it. `senders`: by name, NO_SENDER and OTHER_SENDERS included."""

    hour: datetime
    worker: str
    senders: Mapping[str, FlowCounts] = field(default_factory=dict)
    unmapped: Mapping[UnmappedElement, int] = field(default_factory=dict)


def find_hour(moment: datetime) -> datetime:
    """Return the hour of a time, in UTC."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def list_hours(last: datetime, number: int) -> list[datetime]:
    """Return so many hours up to that of `last`, the oldest first."""
    hour = find_hour(last)
    return [hour - timedelta(hours=ago) for ago in reversed(range(number))]


def add_counts(many: Iterable[FlowCounts]) -> FlowCounts:
    """Return the sum."""
    return sum(many, FlowCounts())
