"""Every page, tried as people use it: seen in light and dark, wide and narrow, by keyboard, without
scripts. A page is covered by being in PAGES; its example is in examples.py.

Each page is opened once, and every test judges what was seen of it then."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext

from integration.pages.answer import PAGES
from integration.pages.people import Role
from local.processes import PROJECT
from tests.browser.examples import DOWNLOADS, EXAMPLES
from tests.browser.looking import (
    AXE,
    decode,
    find_host,
    find_violations,
    list_stops,
    open_page,
    press_tab,
)
from tests.browser.records import KNOWN_NAMES, Served
from tests.browser.visits import Mode, Visit, visit

pytestmark = [
    pytest.mark.browser,
    pytest.mark.live,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]

SCREENSHOTS = PROJECT / ".local/screenshots"

WIDE, NARROW = 1280, 320
MODES = (Mode(theme="light", width=WIDE), Mode(theme="dark", width=NARROW))
OTHER_MODES = (Mode(theme="dark", width=WIDE), Mode(theme="light", width=NARROW))

BAD = """<!doctype html><title>x</title><style>:focus { outline: none }</style>
<p style="width: 900px; color: #ccc; background: #fff">Grey on white</p><img src="data:,">
<a href="/">A link</a> <input name="what">"""

SHOWN = [
    pytest.param(Role.PHI if Role.PHI in page.roles else page.role, example, id=example or "today")
    for page in PAGES
    if page.method == "GET"
    for example in EXAMPLES.get(page.path, ())
]
every_page = pytest.mark.parametrize(("role", "example"), SHOWN)

Visiting = Callable[[str], Awaitable[Visit]]


def find_url(served: Served, example: str) -> str:
    return f"{served.route_url}/api/pages/{example.format(**served.ids)}"


def name_picture(example: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", example.lower()).strip("-") or "today"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    opened = await browser.new_context()
    opened.set_default_timeout(30_000)
    await opened.add_init_script(path=AXE)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def visited(
    served: Served, browser: Browser, context: BrowserContext
) -> AsyncIterator[Visiting]:
    """Visit a page, or say what was seen when it was visited."""
    without_scripts = await browser.new_context(java_script_enabled=False)
    visits: dict[str, Visit] = {}

    async def visit_once(example: str) -> Visit:
        if example not in visits:
            picture = SCREENSHOTS / name_picture(example)
            url = find_url(served, example)
            visits[example] = await visit(context, without_scripts, url, MODES, picture)
        return visits[example]

    yield visit_once
    await without_scripts.close()


async def test_every_page_has_an_example() -> None:
    paths = {page.path for page in PAGES if page.method == "GET"}
    assert paths - EXAMPLES.keys() - {*DOWNLOADS} == set()


async def test_what_is_wrong_with_a_page_is_found(context: BrowserContext) -> None:
    """So that what follows cannot pass by looking at nothing."""
    page, seen = await open_page(context)
    await page.set_viewport_size({"width": NARROW, "height": 800})
    await page.set_content(BAD)
    found = "\n".join(await find_violations(page))
    for rule in ("color-contrast", "image-alt", "label"):
        assert rule in found
    assert await page.evaluate("document.documentElement.scrollWidth") > NARROW
    assert len(await list_stops(page)) == 2
    focus = await press_tab(page)
    assert focus is not None
    assert not focus["outlined"]
    await page.evaluate("console.error('trouble')")
    assert "error: trouble" in seen.trouble
    await page.close()


@every_page
async def test_a_page_can_be_read_by_everybody(visited: Visiting, role: Role, example: str) -> None:
    seen = await visited(example)
    for mode in MODES:
        look = seen.looks[mode.name]
        assert look.violations == [], mode.name
        assert look.width <= mode.width, f"{mode.name} scrolls sideways"


@every_page
async def test_a_page_asks_nobody_else_and_complains_of_nothing(
    served: Served, visited: Visiting, role: Role, example: str
) -> None:
    seen = await visited(example)
    assert seen.status == 200
    assert seen.trouble == ()
    addresses = [*seen.addresses, *seen.requested]
    hosts = {find_host(address) for address in addresses if "://" in address}
    dataverse = {find_host(address) for address in seen.addresses if "/main.aspx" in address}
    assert hosts - dataverse == {served.route_url}
    assert {find_host(address) for address in seen.requested} == {served.route_url}
    html = "" if role is Role.PHI else seen.html
    for name in KNOWN_NAMES:
        assert name not in html, "a patient is named"
        assert [one for one in map(decode, addresses) if name in one] == []


@every_page
async def test_without_scripts_a_page_says_the_same(
    visited: Visiting, role: Role, example: str
) -> None:
    seen = await visited(example)
    assert seen.text_without_scripts == seen.text
    assert len(seen.text) > 50


@every_page
async def test_by_keyboard_everything_is_reached_in_order_and_seen(
    visited: Visiting, role: Role, example: str
) -> None:
    seen = await visited(example)
    assert 'class="skip"' in seen.stops[0]
    assert [*seen.reached] == [*range(len(seen.stops))]
    assert seen.unseen == []
    assert seen.skipped_to == "content"


async def test_every_link_leads_to_a_page(
    served: Served, visited: Visiting, context: BrowserContext
) -> None:
    """Of links that differ in their query alone one is followed. What a page has offered may be over
    by then: then the page offers it no more."""
    links: dict[str, str] = {}
    for param in SHOWN:
        for link in (await visited(str(param.values[1]))).links:
            if link.startswith(f"{served.route_url}/api/pages/"):
                links.setdefault(link.partition("?")[0], link)
    assert len(links) > len(PAGES) / 2
    broken = []
    for link in links.values():
        reply = await context.request.get(link, timeout=60_000)
        if reply.status == 409:
            page = await context.request.get(link.partition("?")[0].rpartition("/")[0])
            assert page.status == 200
            assert urlsplit(link).path not in await page.text()
        elif reply.status != 200:
            broken.append(f"{reply.status} {link}")
    assert broken == []


@pytest.mark.nightly
@every_page
async def test_a_page_can_be_read_in_the_other_modes(
    served: Served, browser: Browser, role: Role, example: str
) -> None:
    context = await browser.new_context()
    await context.add_init_script(path=AXE)
    without_scripts = await browser.new_context(java_script_enabled=False)
    picture = SCREENSHOTS / name_picture(example)
    seen = await visit(context, without_scripts, find_url(served, example), OTHER_MODES, picture)
    for mode in OTHER_MODES:
        look = seen.looks[mode.name]
        assert look.violations == [], mode.name
        assert look.width <= mode.width, f"{mode.name} scrolls sideways"
    await context.close()
    await without_scripts.close()
