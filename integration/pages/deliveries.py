"""The page Deliveries: those that match, newest first.

It costs what a page of `GET /api/deliveries` costs: one storage operation, or with `attention` one
and one for each delivery shown. What waits is found among the open ones: a page looks at 48 of
them, with one operation each, one for each 1,000 that are open, and two more.
"""

from __future__ import annotations

from integration.core.model import Status
from integration.journal.concern import ConcernGroup
from integration.operations.delivery_list import (
    Sort,
    can_begin_with_oldest,
    list_deliveries,
)
from integration.pages.filters import build_query
from integration.pages.http import Reply
from integration.pages.jobs import list_offers
from integration.pages.view import View, render

FIELDS = (
    *("sender", "status", "kind", "attention", "reason", "since", "until", "waiting"),
    *("sort", "after"),
)

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

WAITING = {"true": "waits for another attempt"}


async def show_deliveries(view: View) -> Reply:
    """Show a page of the list, and the form that filters it."""
    fields = dict(view.fields)
    # Who chooses another state in the form does not mean an order that it cannot have.
    if not can_begin_with_oldest(fields):
        fields.pop("sort", None)
    page = await list_deliveries(view.parts.journal, build_query(fields))
    filters = {name: value for name, value in fields.items() if name != "after"}
    return render(
        view,
        "deliveries.html",
        page=page,
        filters=filters,
        offers=list_offers(view, filters),
        is_first="after" not in view.fields,
        statuses=list(Status),
        kinds=KINDS,
        attention=ATTENTION,
        waiting=WAITING,
        sorts=[Sort.OLDEST],
    )
