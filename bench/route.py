"""What every measurement of the route needs: deliveries sent, and a bare client beside it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from integration.app.settings import read_settings
from integration.core import decimal_json
from integration.core.model import DeliveryRequest, Request
from integration.fhir import bundle, units
from integration.fhir.identity import Naming
from integration.fhir.plan import plan
from local.access import fhir_headers
from local.services import Running

PLACES = 16  # FHIR_CONCURRENCY by default
HEADERS = {"content-type": "application/fhir+json"}
SENDER_HEADER = "x-sender"


@dataclass(frozen=True, slots=True)
class Measured:
    """A route that runs: the host's address and process, and the storage emulator's log."""

    http: httpx.AsyncClient
    running: Running
    host: str
    process: psutil.Process
    log: Path

    def cpu(self) -> float:
        """Seconds of processor that the host has used."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


async def carried(
    it: Measured, bodies: Sequence[bytes], *, sender: str = "", status: str = "201"
) -> float:
    """Seconds from the first byte sent to the last delivery done."""

    async def deliver(body: bytes) -> None:
        headers = {**HEADERS, SENDER_HEADER: sender}
        answer = await it.http.post(f"{it.host}/api/fhir", content=body, headers=headers)
        assert answer.status_code == 202, answer.text
        while True:
            # A host that is busy for seconds ends idle connections, perhaps this very moment.
            told = await it.http.get(
                answer.headers["content-location"], headers={"connection": "close"}
            )
            if told.status_code != 202:
                break
            await asyncio.sleep(0.2)
        assert told.status_code == 200, told.text
        assert all(e["response"]["status"] == status for e in told.json()["entry"])

    begun = time.perf_counter()
    await asyncio.gather(*(deliver(body) for body in bodies))
    return time.perf_counter() - begun


async def bare(it: Measured, bodies: Sequence[bytes]) -> float:
    """Seconds for the units of these deliveries, planned beforehand."""
    places = asyncio.Semaphore(PLACES)
    requests = [
        units.build_request(unit, unit.entries, {})
        for body in bodies
        for lane in plan(
            bundle.read(body, DeliveryRequest("POST")), Naming("bench", body[:99].hex())
        ).lanes
        for unit in lane.units
    ]
    own = fhir_headers(read_settings(it.running.settings()).fhir.scope)

    async def send(request: Request) -> None:
        headers = {**request.headers, **own}
        async with places:
            answer = await it.http.post(it.running.fhir_url, content=request.body, headers=headers)
        assert answer.status_code == 200, answer.text

    begun = time.perf_counter()
    await asyncio.gather(*(send(request) for request in requests))
    return time.perf_counter() - begun


def encoded(bundle_: object) -> bytes:
    """A bundle as it goes over the wire."""
    return decimal_json.encode(bundle_)
