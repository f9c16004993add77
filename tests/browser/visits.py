"""One visit of a page, by somebody who looks at it in every way: what the tests judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from playwright.async_api import BrowserContext, Page, Route

from tests.browser.looking import (
    find_violations,
    list_addresses,
    list_links,
    list_stops,
    open_page,
    press_tab,
    read_text,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """A theme and a width."""

    theme: Literal["light", "dark"]
    width: int
    height: int = 900

    @property
    def name(self) -> str:
        return f"{self.theme}-{self.width}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is wrong with a page in one mode. `width`: of what it takes."""

    violations: Sequence[str]
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What was seen of a page. `looks`: by the name of the mode; `stops`: what Tab has to come to;
    `reached`: the numbers of those that it came to; `unseen`: those whose focus is not seen;
    `skipped_to`: where the link came to that skips the menu."""

    status: int
    html: str
    text: str
    text_without_scripts: str
    trouble: Sequence[str]
    requested: Sequence[str]
    addresses: Sequence[str]
    links: Sequence[str]
    looks: dict[str, Look]
    stops: Sequence[str]
    reached: Sequence[int]
    unseen: Sequence[str]
    skipped_to: str


async def visit(
    context: BrowserContext,
    without_scripts: BrowserContext,
    url: str,
    modes: Sequence[Mode],
    picture: Path,
) -> Visit:
    """Open a page once, look at it in each mode, and go through it by Tab. What the server has
    answered is shown once more to a browser without scripts: another answer would tell of another
    moment."""
    page, seen = await open_page(context)
    await page.set_viewport_size({"width": modes[0].width, "height": modes[0].height})
    reply = await page.goto(url)
    assert reply is not None
    body = await reply.body()
    text, addresses = await read_text(page), await list_addresses(page)
    html, links = await page.content(), await list_links(page)
    looks = {mode.name: await _look(page, mode, picture) for mode in modes}
    await page.set_viewport_size({"width": modes[0].width, "height": modes[0].height})
    stops, reached, unseen = await _go_by_tab(page)
    await page.locator(".skip").focus()
    await page.keyboard.press("Enter")
    found = Visit(
        status=reply.status,
        html=html,
        text=text,
        text_without_scripts=await _read_without_scripts(without_scripts, url, body),
        trouble=tuple(seen.trouble),
        requested=tuple(seen.requested),
        addresses=addresses,
        links=links,
        looks=looks,
        stops=stops,
        reached=reached,
        unseen=unseen,
        skipped_to=await page.evaluate("document.activeElement.id"),
    )
    await page.close()
    return found


async def _look(page: Page, mode: Mode, picture: Path) -> Look:
    await page.emulate_media(color_scheme=mode.theme, reduced_motion="reduce")
    await page.set_viewport_size({"width": mode.width, "height": mode.height})
    path = picture.with_name(f"{picture.name}-{mode.name}.png")
    await page.screenshot(path=path, full_page=True)
    width: int = await page.evaluate("document.documentElement.scrollWidth")
    return Look(violations=await find_violations(page), width=width)


async def _go_by_tab(page: Page) -> tuple[list[str], list[int], list[str]]:
    stops = await list_stops(page)
    reached, unseen = [-1], []
    for _ in range(10 * len(stops) + 10):
        focus = await press_tab(page)
        if focus is None:
            break
        if not (focus["outlined"] and focus["visible"]):
            unseen.append(focus["html"])
        # Parts of a date are stops of one field; what only scrolls is none.
        if focus["stop"] not in (-1, reached[-1]):
            reached.append(focus["stop"])
    return stops, reached[1:], unseen


async def _read_without_scripts(context: BrowserContext, url: str, body: bytes) -> str:
    async def answer_the_same(route: Route) -> None:
        await route.fulfill(body=body, content_type="text/html; charset=utf-8")

    page, _ = await open_page(context)
    await page.route(url, answer_the_same)
    await page.goto(url)
    text = await read_text(page)
    await page.close()
    return text
