"""The page Activity: what upstreams were asked, what came of it, and what failed.

A page of it costs what one of GET /api/activity costs: one look at the log, of at most ten storage
operations where a filter finds little.
"""

from __future__ import annotations

from integration.core.model import Category
from integration.operations.activity import PARAMETERS, Health, find_activity
from integration.pages.activity_groups import explain, group_entries
from integration.pages.http import Reply
from integration.pages.people import Role
from integration.pages.view import View, render

FIELDS = PARAMETERS

# The filters that stand in the second part of the form, which is open if one of them is used.
_RARE = ("operation", "table", "row", "action", "status", "duration")

# They come every few seconds while somebody looks at Today, and crowd out the others.
HEALTH = {Health.SHOW: "shown"}


async def show_activity(view: View) -> Reply:
    """Show entries of the activity log, newest first, the calls of an operation below it."""
    # Whoever names an action or an operation has chosen already.
    hides_health = not {"health", "action", "operation"} & view.fields.keys()
    asked = {**view.fields, "health": Health.HIDE} if hides_health else view.fields
    page = await find_activity(view.parts.activity, asked)
    filters = {name: value for name, value in view.fields.items() if name != "after"}
    return render(
        view,
        "activity.html",
        groups=group_entries(page.entries),
        number=len(page.entries),
        explain=explain,
        categories=list(Category),
        filters=filters,
        health=HEALTH,
        has_rare=any(name in filters for name in _RARE),
        after=page.after,
        is_first="after" not in view.fields,
        shows_patients=view.person.can(Role.PHI),
    )
