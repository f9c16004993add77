"""The page Deliveries: those that match, newest first.

It costs what a page of `GET /api/deliveries` costs: one storage operation, or with `attention` one
and one for each delivery shown.
"""

from __future__ import annotations

from collections.abc import Mapping

from integration.core.model import Status
from integration.journal.concern import ConcernGroup
from integration.operations.delivery_list import Sort, list_deliveries
from integration.pages.http import Reply
from integration.pages.view import View, render

FIELDS = ("sender", "status", "kind", "attention", "reason", "since", "until", "sort", "after")

# What a delivery may be: the types of bundles, and what is no bundle.
KINDS = (
    *("transaction", "batch", "message", "document", "collection", "history", "searchset"),
    *("resource", "ndjson", "notification", "held"),
)

ATTENTION = {
    ConcernGroup.ANY: "needs attention",
    ConcernGroup.ENTRIES: "has refused entries",
    ConcernGroup.DELIVERY: "is parked, held or waits",
    ConcernGroup.ROWS: "has rows that are not written",
}

_TIMES = ("since", "until")


async def show_deliveries(view: View) -> Reply:
    """Show a page of the list, and the form that filters it."""
    page = await list_deliveries(view.parts.journal, build_query(view.fields))
    filters = {name: value for name, value in view.fields.items() if name != "after"}
    return render(
        view,
        "deliveries.html",
        page=page,
        filters=filters,
        is_first="after" not in view.fields,
        statuses=list(Status),
        kinds=KINDS,
        attention=ATTENTION,
        sorts=list(Sort),
    )


def build_query(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of the verb for the fields of the form. Pure.

    A field for a date and time has no zone, so it is labelled as UTC.
    """
    return {
        name: f"{value}Z" if name in _TIMES and len(value) > len("2026-03-02") else value
        for name, value in fields.items()
    }
