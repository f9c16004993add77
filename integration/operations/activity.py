"""VERB find_activity: what upstreams were asked, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from integration.core.errors import Issue, Rejected
from integration.core.model import Category
from integration.journal.activity_log import ActivityFilter, ActivityLog, ActivityPage
from integration.operations import query_parameters

# The query parameters whose value must be that of the entry.
_EXACT_FILTERS = (
    *("operation", "upstream", "delivery", "resource", "table", "row", "action", "status"),
)
PARAMETERS = (
    "since",
    "until",
    "category",
    *_EXACT_FILTERS,
    "duration",
    "health",
    "_count",
    "after",
)


class Health(StrEnum):
    """What becomes of the calls that ask upstreams whether they answer."""

    SHOW = "show"
    HIDE = "hide"


async def find_activity(activity: ActivityLog, params: Mapping[str, str]) -> ActivityPage:
    """Return entries of the activity log, newest first, by the query parameters PARAMETERS. Raises
    Rejected."""
    category = query_parameters.parse_choice(params.get("category"), Category, "category")
    duration = query_parameters.parse_milliseconds(params.get("duration", "0"), "duration")
    health = query_parameters.parse_choice(params.get("health"), Health, "health")
    activity_filter = ActivityFilter(
        since=query_parameters.parse_datetime(params, "since"),
        until=query_parameters.parse_datetime(params, "until"),
        category=category,
        duration=duration or None,
        hides_health=health is Health.HIDE,
        **{name: params[name] for name in _EXACT_FILTERS if params.get(name)},
    )
    count = query_parameters.parse_count(params.get("_count", query_parameters.DEFAULT_COUNT))
    try:
        return await activity.list_entries(activity_filter, count, params.get("after"))
    except ValueError:
        text = "after must be as in the link to the next page"
        raise Rejected(Issue("value", text, "after")) from None
