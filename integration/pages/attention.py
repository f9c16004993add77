"""The page Attention: everything that is not where it should be, newest first.

It costs what a page of `GET /api/attention` costs: one storage operation.
"""

from __future__ import annotations

from integration.journal.concern import ConcernKind
from integration.operations.attention import find_concerns
from integration.operations.views import describe_concern
from integration.pages.http import Reply
from integration.pages.jobs import list_offers
from integration.pages.people import Role
from integration.pages.view import View, render

FIELDS = ("kind", "sender", "after")

KINDS = {
    ConcernKind.PARKED: "delivery parked",
    ConcernKind.HELD: "delivery held",
    ConcernKind.WAITING: "delivery waits",
    ConcernKind.ENTRIES: "entries refused",
    ConcernKind.ROW_PARKED: "row parked",
    ConcernKind.ROW_REFUSED: "row refused",
    ConcernKind.ROW_WAITING: "row waits",
    ConcernKind.ROW_INCOMPLETE: "row incomplete",
}


async def show_attention(view: View) -> Reply:
    """Show a page of the list, with what can be done about each thing."""
    page = await find_concerns(view.parts.journal, view.fields)
    filters = {name: value for name, value in view.fields.items() if name != "after"}
    # A job of the very kind that is shown: one that did more than the list shows would surprise.
    job = {"concern" if name == "kind" else name: value for name, value in filters.items()}
    offers = list_offers(view, job) if "concern" in job else []
    return render(
        view,
        "attention.html",
        concerns=[(concern, describe_concern(concern)["todo"]) for concern in page.concerns],
        after=page.after,
        filters=filters,
        job=job,
        offers=offers,
        must_choose="concern" not in job and view.person.can(Role.OPERATOR),
        is_first="after" not in view.fields,
        kinds=KINDS,
    )
