"""The laptop's FHIR server can be made to wait, for each request and each entry of a bundle."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from local.processes import PROJECT
from local.services import find_free_ports, run_services

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (PROJECT / "local/node_modules").exists(),
    reason="node or local/node_modules is not installed",
)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    with run_services(find_free_ports(), tmp_path, parts=["fhir"]) as running:
        address = running.fhir_url.removesuffix("/fhir")
        headers = {"content-type": "application/fhir+json"}
        async with httpx.AsyncClient(base_url=address, headers=headers, timeout=30) as client:
            yield client


async def test_a_request_takes_its_time_and_each_entry_more_while_others_are_answered(
    server: httpx.AsyncClient,
) -> None:
    set_ = await server.post("/control/latency", json={"requestMs": 20, "entryMs": 10})
    assert set_.status_code == 200
    assert (await server.get("/fhir/Patient")).elapsed.total_seconds() >= 0.019
    reads = [{"request": {"method": "GET", "url": "Patient"}}] * 4
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": reads}
    assert (await server.post("/fhir", json=bundle)).elapsed.total_seconds() >= 0.059

    await server.post("/control/latency", json={"requestMs": 60_000})
    waiting = asyncio.create_task(server.get("/fhir/Patient"))
    assert (await server.get("/health")).status_code == 200
    assert not waiting.done()
    waiting.cancel()


async def test_a_time_below_zero_is_refused(server: httpx.AsyncClient) -> None:
    answer = await server.post("/control/latency", json={"entryMs": -1})
    assert answer.status_code == 400
