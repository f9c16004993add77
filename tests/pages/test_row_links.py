"""Rows of Dataverse that a text names are links to their forms."""

from __future__ import annotations

from integration.journal.concern import Concern, ConcernKind, build_concern_id
from integration.pages.row_links import link_rows
from tests.conftest import Route
from tests.pages.asking import DATAVERSE, visit

KEY = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
FORM = f"{DATAVERSE}/main.aspx?etn=contact&id={KEY}&pagetype=entityrecord"


def test_a_text_without_a_row_stays_as_it_is_and_is_escaped() -> None:
    assert link_rows("a <b> (c)", DATAVERSE) == "a &lt;b&gt; (c)"


def test_each_row_is_a_link_and_the_rest_is_escaped() -> None:
    shown = link_rows(f"<taken> by contact({KEY}), account({KEY}) & more", DATAVERSE)
    assert shown.startswith('&lt;taken&gt; by <a href="')
    assert shown.count("<a ") == 2
    assert shown.endswith("</a> &amp; more")


async def test_the_line_of_a_taken_key_leads_to_the_other_row(route: Route) -> None:
    reason = f"alternate key by_mail (emailaddress1) of contact is taken by contact({KEY}): merge"
    await route.journal.put_concern(
        Concern(
            id=build_concern_id(route.clock(), "Patient/p1"),
            since=route.clock(),
            kind=ConcernKind.ROW_REFUSED,
            delivery="delivery",
            sender="north",
            reason=reason,
            resource="Patient/p1",
            table="contact",
        )
    )
    for page in ("attention", ""):
        shown = await visit(route, "reader").get(page)
        assert reason.removesuffix(": merge") in shown.text
        assert FORM in shown.links
