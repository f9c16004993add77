"""A browser, and one route with synthetic records for all tests of a module."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from local.processes import PROJECT
from local.services import find_free_ports
from tests.browser.chromium import MISSING, find_chromium, launch
from tests.browser.records import Served, fill, run_route


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if find_chromium() is None:
        pytest.skip(MISSING)
    if not (PROJECT / "local/node_modules/axe-core").is_dir():
        pytest.skip("axe-core is not installed: npm ci --prefix local")
    folder = tmp_path_factory.mktemp("browser")
    with run_route(find_free_ports(), folder) as (running, url):
        ids = asyncio.run(fill(running, url))
        yield Served(route_url=url, fhir_url=running.fhir_url, storage=running.storage, ids=ids)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(served: Served) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        started = await launch(playwright)
        yield started
        await started.close()
