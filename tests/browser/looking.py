"""What a test sees of a page: what is wrong with it, what it asks for, what can be reached by Tab."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from playwright.async_api import BrowserContext, ConsoleMessage, Page, Request, Response

from local.processes import PROJECT

AXE = PROJECT / "local/node_modules/axe-core/axe.min.js"

# https://github.com/dequelabs/axe-core/blob/develop/doc/API.md#axe-core-tags
_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

# Everything that Tab stops at, in the order of the document. Of radio buttons with one name it is one.
_STOPS = """() => {
  const all = 'a[href], area[href], button, input, select, textarea, summary, [tabindex]';
  const names = new Set();
  window.stops = [...document.querySelectorAll(all)].filter((element) => {
    if (element.disabled || element.type === 'hidden' || element.tabIndex < 0) return false;
    if (!element.checkVisibility({ visibilityProperty: true })) return false;
    if (element.type !== 'radio') return true;
    const group = [...document.getElementsByName(element.name)];
    const checked = group.find((radio) => radio.checked);
    if (checked ? checked !== element : names.has(element.name)) return false;
    names.add(element.name);
    return true;
  });
  return window.stops.map((element) => element.outerHTML.slice(0, 120));
}"""

# Where Tab has come to: the number of the stop, and whether its focus is seen. A place that only
# scrolls is none of the stops.
_FOCUS = """() => {
  const element = document.activeElement;
  if (!element || element === document.body) return null;
  const style = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  return {
    stop: window.stops.indexOf(element),
    outlined: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
    visible: box.right > 0 && box.bottom > 0 && box.left < innerWidth && box.top < innerHeight,
    html: element.outerHTML.slice(0, 120),
  };
}"""

# What is read on a page. A script writes times in the reader's zone, and says what scripts do.
_TEXT = """() => {
  const copy = document.body.cloneNode(true);
  for (const time of copy.querySelectorAll('time')) time.textContent = time.dateTime;
  for (const element of copy.querySelectorAll('.js, script')) element.remove();
  return copy.textContent.replace(/\\s+/g, ' ').trim();
}"""

_ADDRESSES = """() => [...document.querySelectorAll('[href], [src], [action], [hx-get], [hx-post]')]
  .flatMap((element) => ['href', 'src', 'action', 'hx-get', 'hx-post']
    .map((name) => element.getAttribute(name)).filter(Boolean))"""


@dataclass(slots=True)
class Seen:
    """What a page has done while it was open."""

    trouble: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)


async def open_page(context: BrowserContext) -> tuple[Page, Seen]:
    """Open an empty page, and note from now on what it asks for and complains of."""
    page, seen = await context.new_page(), Seen()

    def note_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            seen.trouble.append(f"{message.type}: {message.text}")

    def note_response(response: Response) -> None:
        if response.status >= 400:
            seen.trouble.append(f"{response.status}: {response.url}")

    def note_request(request: Request) -> None:
        seen.requested.append(request.url)

    page.on("console", note_console)
    page.on("pageerror", lambda error: seen.trouble.append(f"exception: {error}"))
    page.on("requestfailed", lambda request: seen.trouble.append(f"failed: {request.url}"))
    page.on("response", note_response)
    page.on("request", note_request)
    return page, seen


async def find_violations(page: Page) -> list[str]:
    """Return what axe finds wrong. The page has loaded it: see the context's init script."""
    options = {"runOnly": _TAGS, "resultTypes": ["violations"], "preload": False}
    found: dict[str, Any] = await page.evaluate("options => axe.run(document, options)", options)
    assert len(found["passes"]) + len(found["violations"]) > 5, "axe has looked at nothing"
    return [
        f"{violation['id']}: {violation['help']}: {node['html'][:160]} {node['failureSummary']}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]


async def read_text(page: Page) -> str:
    """Return everything that can be read on the page."""
    text: str = await page.evaluate(_TEXT)
    return text


async def list_addresses(page: Page) -> list[str]:
    """Return every address that the page leads to, as it stands there."""
    addresses: list[str] = await page.evaluate(_ADDRESSES)
    return addresses


async def list_links(page: Page) -> list[str]:
    """Return the whole address of each link of the page, without the place within it."""
    script = "() => [...document.querySelectorAll('a[href]')].map((a) => a.href.split('#')[0])"
    return list(dict.fromkeys(await page.evaluate(script)))


async def list_stops(page: Page) -> list[str]:
    """Return what Tab has to stop at, in this order."""
    stops: list[str] = await page.evaluate(_STOPS)
    return stops


async def press_tab(page: Page) -> dict[str, Any] | None:
    """Press Tab, and return where it has come to; None: behind the last stop."""
    await page.keyboard.press("Tab")
    focus: dict[str, Any] | None = await page.evaluate(_FOCUS)
    return focus


def find_host(url: str) -> str:
    """Return scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def decode(url: str) -> str:
    """Return an address as people read it."""
    return unquote(unquote(url.replace("+", " ")))
