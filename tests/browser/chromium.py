"""The Chromium of this machine. Browsers that Playwright would download are not used."""

from __future__ import annotations

import os
import shutil

from playwright.async_api import Browser, Playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")

MISSING = "there is no Chromium: install chromium, or set CHROMIUM to the path of one"


def find_chromium() -> str | None:
    """Return the path of the browser: what CHROMIUM names, or what is on the PATH."""
    names = (os.environ["CHROMIUM"],) if os.environ.get("CHROMIUM") else _NAMES
    return next(filter(None, map(shutil.which, names)), None)


async def launch(playwright: Playwright) -> Browser:
    """Start it without a window, and without a graphics card, which would be emulated at length.
    Root has no sandbox, and sees pages of this app alone."""
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    args = ["--disable-gpu", *(["--no-sandbox"] if is_root else [])]
    return await playwright.chromium.launch(executable_path=find_chromium(), args=args)
