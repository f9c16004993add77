"""How values are written on a page."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from integration.pages.people import Person, Role
from integration.pages.view import (
    MENU,
    STATIC,
    View,
    build_asset_link,
    choose_plural,
    format_age,
    format_count,
    format_time,
    render,
)
from tests.conftest import Route
from tests.pages.asking import LAPTOP, TOKEN, Shown, build_request, make_parts


def build_view(route: Route, name: str = "ada", *roles: Role, path: str = "") -> View:
    person = Person(name=name, roles=frozenset(roles or (Role.READER,)))
    return View(parts=make_parts(route), request=build_request(path), person=person, token=TOKEN)


def test_a_time_is_in_utc_and_readable_by_machines() -> None:
    moment = datetime(2026, 11, 29, 13, 5, 9, tzinfo=timezone(timedelta(hours=1)))
    assert format_time(moment) == Markup(
        '<time datetime="2026-11-29T12:05:09Z" title="2026-11-29 12:05:09 UTC">'
        "2026-11-29 12:05 UTC</time>"
    )
    assert format_time(None) == "-"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (59.9, "59 s"), (60, "1 min"), (7199, "1 h"), (86_400 * 40, "40 d")],
)
def test_an_age_is_in_its_largest_unit(seconds: float, text: str) -> None:
    assert format_age(timedelta(seconds=seconds)) == text


def test_numbers_have_their_thousands_apart_and_nouns_their_number() -> None:
    assert format_count(1_234_567) == "1\u202f234\u202f567"
    assert choose_plural(1, "delivery", "deliveries") == "1\u00a0delivery"
    assert choose_plural(2, "delivery", "deliveries") == "2\u00a0deliveries"
    assert choose_plural(0, "reason") == "0\u00a0reasons"


def test_the_address_of_a_file_changes_with_its_content() -> None:
    addresses = {build_asset_link(path.name) for path in STATIC.iterdir()}
    assert len({address.partition("?v=")[2] for address in addresses}) == len(addresses)


async def test_whatever_is_shown_is_escaped(route: Route) -> None:
    html = '<script>alert("1")</script>'
    reply = render(build_view(route, html), "problem.html", status=400, code=400, text=html)
    assert b"<script>" not in reply.body
    assert Shown(reply).text.count(html) == 2


async def test_a_value_that_is_missing_is_an_error_and_no_gap(route: Route) -> None:
    with pytest.raises(UndefinedError):
        render(build_view(route), "problem.html", status=400, code=400)


@pytest.mark.parametrize("role", Role)
async def test_the_menu_has_what_the_person_may_see(route: Route, role: Role) -> None:
    reply = render(build_view(route, "ada", role), "problem.html", code=404, text="")
    shown = {text for _, text, _ in MENU if f">{text}</a></li>" in reply.body.decode()}
    person = build_view(route, "ada", role).person
    assert shown == {text for _, text, needed in MENU if person.can(needed)}


async def test_the_menu_says_which_page_this_is(route: Route) -> None:
    reply = render(build_view(route, path="deliveries/1"), "problem.html", code=404, text="")
    assert b'href="/api/pages/deliveries" aria-current="page"' in reply.body


async def test_who_is_signed_in_can_sign_out_and_who_is_at_a_laptop_need_not(route: Route) -> None:
    signed_in = build_view(route)
    at_laptop = View(
        parts=make_parts(route, sign_in=LAPTOP),
        request=build_request(),
        person=signed_in.person,
        token=TOKEN,
    )
    pages = [render(view, "problem.html", code=404, text="") for view in (signed_in, at_laptop)]
    assert [b"/.auth/logout" in page.body for page in pages] == [True, False]


async def test_now_is_the_clock_s(route: Route) -> None:
    assert build_view(route).parts.now() == route.clock()
