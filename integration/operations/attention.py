"""VERB find_concerns: what is not where it should be, and what can be done about it."""

from __future__ import annotations

from collections.abc import Mapping

from integration.core.errors import Issue, Rejected, Unavailable
from integration.journal.attention import ConcernFilter, ConcernPage, Concerns
from integration.journal.concern import ConcernKind
from integration.operations import query_parameters
from integration.operations.status import Unreadable

PARAMETERS = ("sender", "kind", "same_reason", "_count", "after")


async def find_concerns(concerns: Concerns, params: Mapping[str, str]) -> ConcernPage:
    """Return what needs attention, newest first, by the query parameters PARAMETERS. Raises
    Rejected."""
    count = query_parameters.parse_count(params.get("_count", query_parameters.DEFAULT_COUNT))
    return await list_page(concerns, parse_criteria(params), count, params.get("after"))


def parse_criteria(params: Mapping[str, str]) -> ConcernFilter:
    """Parse the query parameters that say what is listed. Raises Rejected."""
    kind = query_parameters.parse_choice(params.get("kind"), ConcernKind, "kind")
    return ConcernFilter(
        kinds=frozenset(ConcernKind) if kind is None else frozenset({kind}),
        sender=params.get("sender"),
        reason=params.get("same_reason"),
    )


async def read_newest(concerns: Concerns, limit: int) -> ConcernPage | Unreadable:
    """Return the newest things that need attention, or why they cannot be read."""
    try:
        return await concerns.list_concerns(ConcernFilter(), limit, None)
    except Unavailable as error:
        return Unreadable(str(error))


async def list_page(
    concerns: Concerns, criteria: ConcernFilter, count: int, after: str | None
) -> ConcernPage:
    """Return a page of concerns. Raises Rejected for an `after` that no page has returned."""
    try:
        return await concerns.list_concerns(criteria, count, after)
    except ValueError:
        text = "after must be as in the link to the next page"
        raise Rejected(Issue("value", text, "after")) from None
