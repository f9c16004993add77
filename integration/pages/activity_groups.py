"""Put the entries of one operation together, as a parent and its calls. Pure.

An operation is one run of a verb: work on a delivery or a lane of it, on the rows of a resource, a
request for a virtual table. Each entry has its id. A run of the mirror records what it came to,
which is the parent; for other operations the parent is summed up from the calls. Operations go on
at the same time, so their entries stand mixed in the log: a group stands where its newest entry
does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from integration.core.model import RESULT_ACTIONS, Activity, Category

# How many of its actions, or resource types, a parent names.
_MAX_NAMED = 3

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
    "412": "it had been changed meanwhile, or there is one with the same key",
    "413": "the request was too large",
    "429": "there were too many requests: it is tried again",
    "503": "the service is overloaded or down: it is tried again",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The entries of one operation on a page, or one entry that has no operation. `calls`: the
    oldest first. `result`: what a run of the mirror came to; None: another operation, or one whose
    result is not on this page."""

    result: Activity | None
    calls: tuple[Activity, ...]

    @property
    def entries(self) -> tuple[Activity, ...]:
        """The calls, and the result."""
        return self.calls if self.result is None else (*self.calls, self.result)

    @property
    def operation(self) -> str | None:
        """The id that all of it has."""
        return self.entries[-1].operation

    @property
    def is_alone(self) -> bool:
        """Whether it is one entry, of which nothing says what else belongs to it."""
        return self.operation is None

    @property
    def time(self) -> datetime:
        """When the newest of it was recorded."""
        return self.entries[-1].time

    @property
    def delivery(self) -> str | None:
        """The delivery that it was for."""
        return next((entry.delivery for entry in self.entries if entry.delivery), None)

    @property
    def table(self) -> str | None:
        """The table that it was for."""
        return next((entry.table for entry in self.entries if entry.table), None)

    @property
    def resource(self) -> str | None:
        """The resource that it was for, if its entries name one alone."""
        if self.result is not None:
            return self.result.resource
        named = {entry.resource for entry in self.entries if entry.resource}
        return named.pop() if len(named) == 1 else None

    @property
    def types(self) -> str:
        """The types of the resources that its entries name."""
        named = (entry.resource for entry in self.entries if entry.resource)
        return _list(resource.partition("/")[0] for resource in named)

    @property
    def actions(self) -> str:
        """What was done: by the result, or by the calls in their order."""
        return _list(
            entry.action for entry in (self.calls if self.result is None else [self.result])
        )

    @property
    def outcome(self) -> str:
        """What it came to: by the result, or by what its calls came to."""
        if self.result is not None:
            return self.result.status
        failed = sum(call.category is Category.ERROR for call in self.calls)
        warned = sum(call.category is Category.WARNING for call in self.calls)
        number = f"{len(self.calls)} call{'' if len(self.calls) == 1 else 's'}"
        parts = [f"{failed} failed"] * bool(failed) + [f"{warned} with a warning"] * bool(warned)
        return f"{', '.join(parts) or 'none failed'} of {number}"

    @property
    def category(self) -> Category:
        """How it ended, where that is known; else the worst of its calls: of those of a run that
        succeeded, some may have failed and been tried again."""
        if self.result is not None:
            return self.result.category
        return max((entry.category for entry in self.calls), key=lambda category: _RANKS[category])

    @property
    def seconds(self) -> float:
        """How long it took: by the result, or from the first call's start to the last one's end."""
        if self.result is not None:
            return self.result.duration / 1000
        # An entry is recorded when its call has ended.
        started = min(call.time - timedelta(milliseconds=call.duration) for call in self.calls)
        return (max(call.time for call in self.calls) - started).total_seconds()


def group_entries(entries: Iterable[Activity]) -> list[Group]:
    """Return the groups of a page of entries, in the order of their newest entries: as they are on
    the page, the newest first."""
    found: dict[tuple[str, int], list[Activity]] = {}
    for number, entry in enumerate(entries):
        key = (entry.operation, 0) if entry.operation else ("", number)
        found.setdefault(key, []).append(entry)
    return [_build_group(group[::-1]) for group in found.values()]


def _build_group(entries: list[Activity]) -> Group:
    """Build a group of entries, the oldest first."""
    result = next(
        (entry for entry in entries if entry.operation and entry.action in RESULT_ACTIONS), None
    )
    return Group(result=result, calls=tuple(entry for entry in entries if entry is not result))


def _list(names: Iterable[str]) -> str:
    """Name each once, but no more than `_MAX_NAMED`."""
    named = list(dict.fromkeys(names))
    rest = len(named) - _MAX_NAMED
    return ", ".join(named[:_MAX_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def explain(entry: Activity) -> str | None:
    """Say why an entry is no success; None: it is one, or its notes say it."""
    if entry.category is Category.INFORMATION or entry.action in RESULT_ACTIONS:
        return None
    known = _REASONS.get(entry.status)
    if known is not None or not entry.status.isdigit():
        return known
    if entry.status.startswith("5"):
        return "the service failed"
    return "the service refused the request"
