"""What refreshes by itself, in a browser whose clock the test turns on: what people hold stays, and
what is old says so. The pages are those of a route with doubles."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
import pytest_asyncio
from playwright.async_api import Page, async_playwright
from playwright.async_api import Route as Asked

from integration.core.flow import count_refusal
from tests.browser.chromium import MISSING, find_chromium, launch
from tests.conftest import Route
from tests.pages.asking import SITE, Visitor, count_flow, visit

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
]

BEGUN = datetime(2026, 3, 1, 19, 46, tzinfo=UTC)  # by the clock of the browser
EVERY = 20_000


@dataclass(slots=True, kw_only=True)
class Screen:
    """Somebody who has Today open. `failing`: what the refreshes are answered instead; `asked`: how
    often the page was asked for."""

    page: Page
    visitor: Visitor
    failing: int | str | None = None
    asked: list[str] = field(default_factory=list)

    async def answer(self, asked: Asked) -> None:
        path = asked.request.url.removeprefix(f"{SITE}/api/pages/")
        if not path.startswith("static/"):
            self.asked.append(path)
            if isinstance(self.failing, str):
                await asked.abort(self.failing)
                return
            if self.failing == 401:
                body = "<!doctype html><h1>Sign in</h1>"
                await asked.fulfill(status=401, body=body, content_type="text/html")
                return
            if self.failing is not None:
                await asked.fulfill(status=self.failing, body="", content_type="text/html")
                return
        reply = (await self.visitor.get(path)).reply
        await asked.fulfill(status=reply.status, body=reply.body, content_type=reply.media)

    async def wait_for_refresh(self) -> None:
        """Turn the clock on until the page asks for itself, and wait for the answer."""
        event = "requestfailed" if isinstance(self.failing, str) else "requestfinished"
        async with self.page.expect_event(event, lambda asked: "static" not in asked.url):
            await self.page.clock.run_for(EVERY)

    async def read(self) -> str:
        return " ".join((await self.page.locator("body").inner_text()).split())


@pytest_asyncio.fixture
async def screen(route: Route) -> AsyncIterator[Screen]:
    if find_chromium() is None:
        pytest.skip(MISSING)
    flow = count_flow(route)
    async with async_playwright() as playwright:
        browser = await launch(playwright)
        page = await browser.new_page(locale="en-GB", timezone_id="UTC")
        page.set_default_timeout(30_000)
        await page.clock.install(time=BEGUN)
        visitor = visit(route, "reader")
        for _ in range(25):  # a sender that is not let in: Today leads to it by a link
            flow.count("ward", count_refusal(401))
        shown = Screen(page=page, visitor=visitor)
        await page.route("**/*", lambda asked: shown.answer(asked))
        await page.goto(f"{SITE}/api/pages/")
        yield shown
        await browser.close()


async def test_who_is_signed_out_is_shown_the_sign_in(screen: Screen) -> None:
    screen.failing = 401
    await screen.wait_for_refresh()
    await screen.page.get_by_role("heading", name="Sign in").wait_for()


@pytest.mark.parametrize("failure", [503, "connectionrefused"])
async def test_what_is_old_says_so_until_it_is_refreshed(
    screen: Screen, failure: int | str
) -> None:
    notice = screen.page.locator("#live #not-refreshed")
    screen.failing = failure
    await screen.wait_for_refresh()
    await notice.wait_for()
    assert (await notice.inner_text()).startswith("Not refreshed since 19:46:")
    assert "1 thing needs you" in await screen.read()
    await screen.wait_for_refresh()
    assert await notice.count() == 1
    screen.failing = None
    await screen.wait_for_refresh()
    await notice.wait_for(state="detached")
    assert "1 thing needs you" in await screen.read()


async def test_a_link_with_the_focus_stops_no_refresh_and_keeps_it(screen: Screen) -> None:
    link = screen.page.locator("#live a", has_text="A sender is not let in")
    await link.focus()
    await screen.page.evaluate("document.getElementById('live').dataset.first = 'yes'")
    await screen.wait_for_refresh()
    await screen.page.locator("#live:not([data-first])").wait_for()
    focused = await screen.page.evaluate("document.activeElement.textContent")
    assert focused == "A sender is not let in"


async def test_what_is_folded_out_stays_so(screen: Screen) -> None:
    await screen.page.locator("#live summary").click()
    await screen.page.evaluate("document.getElementById('live').dataset.first = 'yes'")
    await screen.wait_for_refresh()
    await screen.page.locator("#live:not([data-first])").wait_for()
    assert await screen.page.locator("#live details[open]").count() == 1


@pytest.mark.parametrize("tag", ["input", "select", "textarea"])
async def test_what_is_being_typed_into_is_not_replaced(screen: Screen, tag: str) -> None:
    await screen.page.evaluate(
        "tag => { const field = document.createElement(tag);"
        " document.getElementById('live').append(field); field.focus(); }",
        tag,
    )
    asked = len(screen.asked)
    await screen.page.clock.run_for(3 * EVERY)
    assert await screen.page.locator(f"#live {tag}").count() == 1
    await screen.page.evaluate("document.activeElement.blur()")
    await screen.wait_for_refresh()
    assert len(screen.asked) == asked + 1
