"""Every page, tried as people use it: seen in light and dark, wide and narrow, by keyboard, without
scripts. A page is covered by being in PAGES; its example is in examples.py."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, Route

from integration.pages.answer import PAGES
from integration.pages.people import Role
from local.processes import PROJECT
from tests.browser.examples import EXAMPLES, NOT_BUILT
from tests.browser.looking import (
    AXE,
    decode,
    find_host,
    find_violations,
    list_addresses,
    list_stops,
    open_page,
    press_tab,
    read_text,
)
from tests.browser.records import KNOWN_NAMES, Served

pytestmark = [
    pytest.mark.browser,
    pytest.mark.live,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]

SCREENSHOTS = PROJECT / ".local/screenshots"

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 320, "height": 800}

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


def find_url(served: Served, example: str) -> str:
    return f"{served.route_url}/api/pages/{example.format(**served.ids)}"


@asynccontextmanager
async def opened(browser: Browser, **options: Any) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context(**{"viewport": WIDE, **options})
    context.set_default_timeout(15_000)
    try:
        yield context
    finally:
        await context.close()


async def test_every_page_has_an_example() -> None:
    assert {page.path for page in PAGES if page.method == "GET"} - EXAMPLES.keys() == set()


async def test_what_is_wrong_with_a_page_is_found(browser: Browser) -> None:
    """So that what follows cannot pass by looking at nothing."""
    async with opened(browser, viewport=NARROW) as context:
        await context.add_init_script(path=AXE)
        page, seen = await open_page(context)
        await page.set_content(BAD)
        found = "\n".join(await find_violations(page))
        assert {rule for rule in ("color-contrast", "image-alt", "label") if rule in found} == {
            *("color-contrast", "image-alt", "label")
        }
        assert await page.evaluate("document.documentElement.scrollWidth") > NARROW["width"]
        assert len(await list_stops(page)) == 2
        focus = await press_tab(page)
        assert focus is not None
        assert not focus["outlined"]
        await page.evaluate("console.error('trouble')")
        assert "error: trouble" in seen.trouble


@every_page
async def test_a_page_can_be_read_in_light_and_dark_wide_and_narrow(
    served: Served, browser: Browser, role: Role, example: str
) -> None:
    name = re.sub(r"[^a-z0-9]+", "-", example).strip("-") or "today"
    async with opened(browser) as context:
        await context.add_init_script(path=AXE)
        page, _ = await open_page(context)
        await page.goto(find_url(served, example))
        for theme in ("light", "dark"):
            for size, looks in ((WIDE, theme), (NARROW, f"{theme}-narrow")):
                await page.emulate_media(color_scheme=theme, reduced_motion="reduce")
                await page.set_viewport_size(size)
                assert await find_violations(page) == [], looks
                wide = "document.documentElement.scrollWidth"
                assert await page.evaluate(wide) <= size["width"], f"{looks} scrolls sideways"
                await page.screenshot(path=SCREENSHOTS / f"{name}-{looks}.png", full_page=True)


@every_page
async def test_a_page_asks_nobody_else_and_complains_of_nothing(
    served: Served, browser: Browser, role: Role, example: str
) -> None:
    url = find_url(served, example)
    async with opened(browser) as context:
        page, seen = await open_page(context)
        reply = await page.goto(url, wait_until="networkidle")
        assert reply is not None
        assert reply.status == 200
        assert seen.trouble == []
        addresses = [*await list_addresses(page), *seen.requested]
        hosts = {find_host(address) for address in addresses if "://" in address}
        assert hosts == {served.route_url}
        html = "" if role is Role.PHI else await page.content()
        for name in KNOWN_NAMES:
            assert name not in html, "a patient is named"
            assert [one for one in map(decode, addresses) if name in one] == []


@every_page
async def test_without_scripts_a_page_says_the_same(
    served: Served, browser: Browser, role: Role, example: str
) -> None:
    url = find_url(served, example)
    async with opened(browser) as context:
        page, _ = await open_page(context)
        reply = await page.goto(url, wait_until="networkidle")
        assert reply is not None
        body = await reply.body()
        with_scripts = await read_text(page)

    async def answer_the_same(route: Route) -> None:
        await route.fulfill(body=body, content_type="text/html; charset=utf-8")

    async with opened(browser, java_script_enabled=False) as context:
        page, _ = await open_page(context)
        # What a page says changes by the second, so that it is the same reply that is read twice.
        await page.route(url, answer_the_same)
        await page.goto(url)
        assert await read_text(page) == with_scripts
        assert len(with_scripts) > 50


@every_page
async def test_by_keyboard_everything_is_reached_in_order_and_seen(
    served: Served, browser: Browser, role: Role, example: str
) -> None:
    async with opened(browser) as context:
        page, _ = await open_page(context)
        await page.goto(find_url(served, example))
        stops, reached = await list_stops(page), [-1]
        assert 'class="skip"' in stops[0]
        for _ in range(10 * len(stops) + 10):
            focus = await press_tab(page)
            if focus is None:
                break
            assert focus["outlined"], focus["html"]
            assert focus["visible"], focus["html"]
            # Parts of a date are stops of one field; what only scrolls is none.
            if focus["stop"] not in (-1, reached[-1]):
                reached.append(focus["stop"])
        assert reached[1:] == [*range(len(stops))], [stops[number] for number in reached[1:]]
        await page.locator(".skip").focus()
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "content"


@every_page
async def test_every_link_leads_to_a_page(
    served: Served, browser: Browser, role: Role, example: str
) -> None:
    async with opened(browser) as context:
        page, _ = await open_page(context)
        await page.goto(find_url(served, example))
        links: list[str] = await page.evaluate(
            "() => [...new Set([...document.querySelectorAll('a[href]')].map((a) => a.href))]"
        )
        broken = []
        for link in links[:60]:
            path = link.partition("/api/pages/")[2].partition("#")[0]
            reply = await context.request.get(link.partition("#")[0])
            if reply.status != 200 and not is_not_built(path, reply.status):
                broken.append(f"{reply.status} {link}")
        assert broken == []


def is_not_built(address: str, status: int) -> bool:
    """Whether a link leads to a page that is still to be built: it is not found."""
    path = address.partition("?")[0]
    return status == 404 and any(
        re.fullmatch(re.sub(r"\{[a-z]+\}", "[^/]+", pattern), path)
        for pattern in NOT_BUILT - {page.path for page in PAGES}
    )


async def list_forms(page: Page, method: str) -> list[str]:
    """Return the actions of the forms of a page."""
    script = "m => [...document.forms].filter((f) => f.method === m).map((f) => f.action)"
    actions: list[str] = await page.evaluate(script, method)
    return actions


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
async def test_filters_are_sent_by_keyboard(
    served: Served, browser: Browser, scripts: bool
) -> None:
    tried = []
    async with opened(browser, java_script_enabled=scripts) as context:
        page, _ = await open_page(context)
        for param in SHOWN:
            url = find_url(served, str(param.values[1]))
            await page.goto(url)
            if not await list_forms(page, "get"):
                continue
            button = page.locator("form[method=get] button, form:not([method]) button").first
            await button.focus()
            async with page.expect_navigation() as navigation:
                await page.keyboard.press("Enter")
            reply = await navigation.value
            assert reply is not None
            assert reply.status == 200, url
            tried.append(url)
    if not tried:
        pytest.skip("no page has a filter yet")


async def test_a_replay_is_sent_by_keyboard_without_scripts(
    served: Served, browser: Browser
) -> None:
    address = "deliveries/{parked}"
    if "deliveries/{id}" not in {page.path for page in PAGES}:
        pytest.skip("there is no page of a delivery yet")
    async with opened(browser, java_script_enabled=False) as context:
        page, _ = await open_page(context)
        await page.goto(find_url(served, address))
        replays = [action for action in await list_forms(page, "post") if "replay" in action]
        if not replays:
            pytest.skip("no page replays a delivery yet")
        await page.locator("form[method=post][action*=replay] button").first.focus()
        async with page.expect_navigation() as navigation:
            await page.keyboard.press("Enter")
        reply = await navigation.value
        assert reply is not None
        assert reply.status == 200
        assert reply.request.redirected_from is not None
