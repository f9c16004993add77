"""Which state of a resource something is about, and which of two states is the later one. Pure.

A FHIR server counts the versions of a resource, and states when it wrote each. Both stamps are its
own: no clock of this app, nor of Dataverse, takes part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any


class Order(Enum):
    """How one state of a resource stands to another."""

    OLDER = "older"
    SAME = "same"
    NEWER = "newer"
    UNDECIDED = "undecided"  # the stamps do not tell
    PROBABLY_OLDER = "probably older"  # by its number; the times do not tell
    PROBABLY_NEWER = "probably newer"  # by its number; its time is earlier


@dataclass(frozen=True, slots=True, kw_only=True)
class StateVersion:
    """A state of a resource. `id`: its versionId; `updated`: its lastUpdated, an instant. Either is
    None where nobody has stated it. A resource that was deleted for good, or never was there, is
    deleted and has neither."""

    id: str | None = None
    updated: str | None = None
    is_deleted: bool = False


NEVER_SEEN = StateVersion(is_deleted=True)  # the server knows nothing of the resource

# The clocks of a server's nodes differ by less: a domain refuses whoever is further off.
# https://www.rfc-editor.org/rfc/rfc4120#section-8.2: five minutes
_MAX_SKEW = timedelta(minutes=5)

_ROUNDING = timedelta(seconds=1)  # a row may have rounded its time up

# A state that may be older than another is read again, with growing delays. After 14 seconds a copy
# that lags has caught up:
# https://learn.microsoft.com/azure/azure-sql/database/read-scale-out: usually a few seconds behind
# After half an hour a smaller number is that of a counter that has begun again.
ATTEMPTS_UNTIL_BELIEVED = 3
_ATTEMPTS = {Order.UNDECIDED: ATTEMPTS_UNTIL_BELIEVED, Order.PROBABLY_OLDER: 10}


def get_version(resource: Mapping[str, Any]) -> StateVersion:
    """Return which state this is, by `meta` of the resource."""
    meta = resource.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    return StateVersion(id=_get_text(meta, "versionId"), updated=_get_text(meta, "lastUpdated"))


def compare(version: StateVersion, known: StateVersion) -> Order:
    """Return how `version` stands to what is known.

    Versions that are whole numbers grow. A smaller one that was written minutes later is newer all
    the same: the counter has begun again, after a deletion for good, an import, or on another
    server. Within minutes it may also be that two nodes of the server differ in their clocks. Of
    other versions, only the times tell. Times count in whole seconds: HTTP dates and Dataverse have
    no more.
    """
    if version.id is None or known.id is None:
        return _compare_incomplete(version, known)
    later = _compare_times(version.updated, known.updated)
    if _is_number(version.id) and _is_number(known.id):
        if int(version.id) != int(known.id):
            if int(version.id) > int(known.id):
                return Order.PROBABLY_NEWER if later is Order.OLDER else Order.NEWER
            if later is Order.NEWER:
                is_beyond_skew = _is_later_by(_MAX_SKEW, version.updated, known.updated)
                return Order.NEWER if is_beyond_skew else Order.UNDECIDED
            return Order.OLDER if later is Order.OLDER else Order.PROBABLY_OLDER
    elif version.id != known.id:
        return Order.UNDECIDED if later is Order.SAME else later
    if later is Order.NEWER:
        return later
    if _is_later_by(_ROUNDING, known.updated, version.updated):
        return Order.UNDECIDED  # a counter that has begun again can come to the same number
    if version.is_deleted == known.is_deleted:
        return Order.SAME
    return Order.NEWER if version.is_deleted else Order.OLDER  # a delete that makes no version


def _compare_incomplete(version: StateVersion, known: StateVersion) -> Order:
    """Compare states of which one has no version: most often, a resource that the server does not
    know, which says nothing about when it was deleted."""
    if version.is_deleted and known.is_deleted:
        return Order.SAME if version.id is None else Order.NEWER
    if version.is_deleted or known.is_deleted:
        return Order.UNDECIDED
    later = _compare_times(version.updated, known.updated)
    if version.id == known.id:
        return Order.SAME if later is Order.UNDECIDED else later
    return Order.NEWER if later in (Order.SAME, Order.UNDECIDED) else later


def _compare_times(updated: str | None, known: str | None) -> Order:
    """Return SAME for the same second."""
    time, known_time = _parse_second(updated), _parse_second(known)
    if time is None or known_time is None:
        return Order.UNDECIDED
    if time == known_time:
        return Order.SAME
    return Order.NEWER if time > known_time else Order.OLDER


def _is_later_by(least: timedelta, updated: str | None, known: str | None) -> bool:
    """Whether it is later by more than that."""
    time, known_time = _parse_second(updated), _parse_second(known)
    return time is not None and known_time is not None and time - known_time > least


def is_believable(order: Order, attempt: int) -> bool:
    """Whether what was read may be taken for the current state. `attempt`: how often the work item
    has failed."""
    if order in _ATTEMPTS:
        return attempt >= _ATTEMPTS[order]
    return order is not Order.OLDER


def describe(version: StateVersion) -> str:
    """Return the state in words, for a log: it holds nothing of the patient."""
    if version.id is None:
        return "no such resource" if version.is_deleted else "a version without a number"
    return f"version {version.id}{', deleted' if version.is_deleted else ''}"


def _is_number(version: str) -> bool:
    return version.isascii() and version.isdigit()


def _parse_second(instant: str | None) -> datetime | None:
    try:
        parsed = datetime.fromisoformat(instant) if instant is not None else None
        if parsed is None or parsed.tzinfo is None:
            return None
        return parsed.astimezone(UTC).replace(microsecond=0)
    except (ValueError, OverflowError):
        return None


def _get_text(meta: Mapping[str, Any], name: str) -> str | None:
    value = meta.get(name)
    return value if isinstance(value, str) and value else None
