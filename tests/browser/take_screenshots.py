"""`make screenshots`: the pictures of the README, of synthetic records."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from playwright.async_api import async_playwright

from local.host.settings import CannotStart
from local.processes import PROJECT
from local.services import read_ports
from tests.browser.chromium import MISSING, find_chromium, launch
from tests.browser.records import fill, run_route

FOLDER = PROJECT / "docs/images"

PICTURES = {
    "pages-today.png": ("?refresh=off", "light"),
    "pages-delivery.png": ("deliveries/{refused}", "light"),
}


def main() -> int:
    if find_chromium() is None:
        sys.stderr.write(f"no screenshots: {MISSING}\n")
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            run_route(read_ports(), Path(folder)) as (running, url),
        ):
            ids = asyncio.run(fill(running, url))
            asyncio.run(_take(url, ids))
    except CannotStart as error:
        sys.stderr.write(f"cannot start: {error}\n")
        return 1
    return 0


async def _take(url: str, ids: Mapping[str, str]) -> None:
    async with async_playwright() as playwright:
        browser = await launch(playwright)
        for name, (address, theme) in PICTURES.items():
            page = await browser.new_page(
                viewport={"width": 1200, "height": 800},
                color_scheme="dark" if theme == "dark" else "light",
                reduced_motion="reduce",
                locale="en-GB",
                timezone_id="UTC",
            )
            await page.goto(f"{url}/api/pages/{address.format(**ids)}", wait_until="networkidle")
            await page.screenshot(path=FOLDER / name)
            sys.stdout.write(f"docs/images/{name}\n")
            await page.close()
        await browser.close()


if __name__ == "__main__":
    sys.exit(main())
