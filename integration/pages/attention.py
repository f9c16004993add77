"""The page Attention: everything that is not where it should be, newest first.

Equal reasons are one line, which leads to the list of what has this reason. A page costs one
storage operation, however many there are: it groups up to 1,000.
"""

from __future__ import annotations

from integration.journal.concern import ConcernKind
from integration.operations.attention import list_page, parse_criteria
from integration.operations.views import describe_concern
from integration.pages.concern_groups import ConcernGroupLine, group_concerns
from integration.pages.http import Reply
from integration.pages.jobs import list_offers
from integration.pages.people import Role
from integration.pages.recovery import describe_recovery, names_upstream
from integration.pages.today import check_upstreams_of
from integration.pages.view import View, render

FIELDS = ("kind", "sender", "same_reason", "after")

# What one page of groups looks at: a table returns so many rows in one operation. Of a list that
# shows each thing by itself a page has fewer.
MAX_GROUPED = 1000
PAGE = 50

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


WAITING = frozenset({ConcernKind.WAITING, ConcernKind.ROW_WAITING})

# What is done again once the upstream works that its reason names.
RECOVERABLE = WAITING | {ConcernKind.PARKED, ConcernKind.ROW_PARKED}


async def show_attention(view: View) -> Reply:
    """Show a page of the list, with what can be done about each thing."""
    is_grouped = "same_reason" not in view.fields
    criteria = parse_criteria(view.fields)
    limit = MAX_GROUPED if is_grouped else PAGE
    page = await list_page(view.parts.journal, criteria, limit, view.fields.get("after"))
    groups = group_concerns(page.concerns)
    if not is_grouped:
        groups = [ConcernGroupLine((concern,)) for concern in page.concerns]
    may_recover = {group.newest.reason for group in groups if group.newest.kind in RECOVERABLE}
    upstreams = await check_upstreams_of(view) if names_upstream(may_recover) else None
    filters = {name: value for name, value in view.fields.items() if name != "after"}
    # A job of the very kind that is shown: one that did more than the list shows would surprise.
    job = {"concern" if name == "kind" else name: value for name, value in filters.items()}
    offers = list_offers(view, job) if "concern" in job else []
    return render(
        view,
        "attention.html",
        groups=[(group, describe_concern(group.newest)["todo"]) for group in groups],
        recoveries={reason: describe_recovery(reason, upstreams) for reason in may_recover},
        recoverable=RECOVERABLE,
        waits=WAITING,
        may_start=view.person.can(Role.OPERATOR),
        number=len(page.concerns),
        is_grouped=is_grouped,
        after=page.after,
        filters=filters,
        all_reasons={name: filters[name] for name in filters if name != "same_reason"},
        job=job,
        offers=offers,
        must_choose="concern" not in job and view.person.can(Role.OPERATOR),
        is_first="after" not in view.fields,
        kinds=KINDS,
    )
