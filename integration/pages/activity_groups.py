"""Put entries of the activity log together that belong together. Pure.

The log records what each call was made for, and no parent. A run of the mirror records its result
after its calls, with the delivery and the resource that they have: so of one delivery and resource,
the calls before a result are those of that run. All else of a delivery is the relay's work on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from integration.core.model import Activity, Category

MIRROR = "mirror"

_RANKS = {Category.INFORMATION: 0, Category.WARNING: 1, Category.ERROR: 2}

# What a status means, where it is no success. The FHIR server's own words are in the answer of the
# delivery, since they may quote a value.
_REASONS = {
    "unreachable": "no connection could be made",
    "not in time": "there was no answer in time",
    "broken off": "the connection broke off",
    "given up": "the wait for it was given up",
    "401": "it does not know this app's identity",
    "403": "this app's identity has no role there",
    "404": "it is not there",
    "408": "it took the service too long",
    "409": "somebody else wrote the same at that time",
    "410": "it was deleted",
    "412": "it had been changed meanwhile",
    "413": "the request was too large",
    "429": "there were too many requests: it is tried again",
    "503": "the service is overloaded or down: it is tried again",
}


@dataclass(slots=True, kw_only=True)
class Group:
    """Calls that belong together, the newest first. `result`: of the run of the mirror that made
    them; None: no run of the mirror, or one whose result is not on this page."""

    delivery: str | None
    resource: str | None
    is_mirror: bool
    result: Activity | None = None
    calls: list[Activity] = field(default_factory=list)

    @property
    def entries(self) -> Sequence[Activity]:
        """The result, and the calls."""
        return self.calls if self.result is None else [self.result, *self.calls]

    @property
    def time(self) -> datetime:
        """When the newest of it was recorded."""
        return self.entries[0].time

    @property
    def category(self) -> Category:
        """How it ended, where that is known; else the worst of its calls: of those of a run that
        succeeded, some may have failed and been tried again."""
        if self.result is not None:
            return self.result.category
        return max((entry.category for entry in self.calls), key=lambda category: _RANKS[category])


def group_entries(entries: Iterable[Activity]) -> list[Group]:
    """Return the groups of a page of entries, newest first as they are."""
    groups: list[Group] = []
    current: dict[tuple[str, str | None], Group] = {}
    for entry in entries:
        is_mirror = entry.table is not None or entry.action == MIRROR
        resource = entry.resource if is_mirror else None
        if entry.delivery is None:  # nothing but its resource says what it belongs to
            _add_to_last(groups, entry)
            continue
        key = entry.delivery, resource
        group = current.get(key)
        if group is None or entry.action == MIRROR:
            group = current[key] = Group(
                delivery=entry.delivery, resource=resource, is_mirror=is_mirror
            )
            groups.append(group)
        if entry.action == MIRROR:
            group.result = entry
        else:
            group.calls.append(entry)
    return groups


def _add_to_last(groups: list[Group], entry: Activity) -> None:
    """Add a call for no delivery to the group before it, if that is of the same resource."""
    last = groups[-1] if groups else None
    if last is None or last.delivery is not None or last.resource != entry.resource:
        last = Group(delivery=None, resource=entry.resource, is_mirror=False)
        groups.append(last)
    last.calls.append(entry)


def explain(entry: Activity) -> str | None:
    """Say why an entry is no success; None: it is one, or its notes say it."""
    if entry.category is Category.INFORMATION or entry.action == MIRROR:
        return None
    known = _REASONS.get(entry.status)
    if known is not None or not entry.status.isdigit():
        return known
    if entry.status.startswith("5"):
        return "the service failed"
    return "the service refused the request"
