"""What needs attention: one concern for each thing that is not where it should be.

It is an index of its own, so that a list of it reads nothing of what is well. Whoever finds trouble
writes the concern first and then the state that it tells of; whoever mends it changes the state
first. So a worker that ends in between leaves a concern too many, never one too few, and
housekeeping drops it. docs/decisions/0035-what-needs-attention-has-an-index.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from integration.journal.concern import Concern, ConcernKind
from integration.journal.table_keys import is_audit_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcernFilter:
    """Which concerns to list: those for which all of these hold."""

    kinds: frozenset[ConcernKind] = frozenset(ConcernKind)
    sender: str | None = None
    resource: str | None = None  # Type/id
    reason: str | None = None  # all of it
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class ConcernPage:
    """Concerns, newest first. `after`: where the next page begins; None: there is no more. A page
    may be short and have a next one: the search is cut off when it takes too long."""

    concerns: tuple[Concern, ...]
    after: str | None


class Concerns(Protocol):
    """Every method raises Unavailable when the storage does not answer."""

    async def put_concern(self, concern: Concern) -> None:
        """Add a concern, or write over the one with its id."""

    async def delete_concern(self, id_: str) -> None:
        """Delete a concern. One that is not there is no error."""

    async def delete_concerns(self, ids: Sequence[str]) -> None:
        """Delete these concerns. A hundred of one day take one operation."""

    async def list_concerns(
        self, criteria: ConcernFilter, limit: int, after: str | None
    ) -> ConcernPage:
        """Return up to `limit` concerns, newest first, from `after` on. Raises ValueError for an
        `after` that no page has returned."""


@dataclass(slots=True)
class MemoryConcerns:
    """The same contract in a dictionary, for tests."""

    concerns: dict[str, Concern] = field(default_factory=dict)

    async def put_concern(self, concern: Concern) -> None:
        self.concerns[concern.id] = concern

    async def delete_concern(self, id_: str) -> None:
        self.concerns.pop(id_, None)

    async def delete_concerns(self, ids: Sequence[str]) -> None:
        for id_ in ids:
            await self.delete_concern(id_)

    async def list_concerns(
        self, criteria: ConcernFilter, limit: int, after: str | None
    ) -> ConcernPage:
        if after is not None and not is_audit_id(after):
            raise ValueError("no page has returned this position")
        found = [
            self.concerns[id_]
            for id_ in sorted(self.concerns)
            if (after is None or id_ > after) and matches(self.concerns[id_], criteria)
        ]
        page = tuple(found[:limit])
        return ConcernPage(page, page[-1].id if len(found) > limit else None)


def matches(concern: Concern, criteria: ConcernFilter) -> bool:
    """Whether a concern meets all criteria. Pure."""
    return (
        concern.kind in criteria.kinds
        and criteria.sender in (None, concern.sender)
        and criteria.resource in (None, concern.resource)
        and criteria.reason in (None, concern.reason)
        and (criteria.since is None or concern.since >= criteria.since)
        and (criteria.until is None or concern.since <= criteria.until)
    )
