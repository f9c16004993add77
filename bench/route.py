"""Send deliveries to the relay, and the same units to the FHIR server by a bare client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from azure.storage.queue.aio import QueueServiceClient

from integration.app.settings import read_settings
from integration.core import decimal_json
from integration.core.model import DeliveryRequest, Request
from integration.fhir import bundle, units
from integration.fhir.plan import plan
from integration.fhir.resource_ids import Naming
from integration.fhir.units import Stamp
from local.access import build_fhir_headers
from local.services import Running

CONCURRENCY = 16  # FHIR_CONCURRENCY by default
HEADERS = {"content-type": "application/fhir+json"}
SENDER_HEADER = "x-sender"
_PATIENCE = 900.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRoute:
    """The running services: the host's address and process, and the storage emulator's log."""

    http: httpx.AsyncClient
    running: Running
    host: str
    process: psutil.Process
    log: Path

    def read_cpu_seconds(self) -> float:
        """Return the processor seconds that the host has used so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


async def wait_until_idle(route: MeasuredRoute) -> None:
    """Wait until no queue has a message: work that is left would be measured with what comes."""
    async with (
        QueueServiceClient.from_connection_string(route.running.storage) as queues,
        asyncio.timeout(_PATIENCE),
    ):
        names = [queue.name async for queue in queues.list_queues()]
        while True:
            found = [await queues.get_queue_client(name).get_queue_properties() for name in names]
            if not any(queue.approximate_message_count for queue in found):
                return
            await asyncio.sleep(1)


async def deliver_all(
    route: MeasuredRoute, bodies: Sequence[bytes], *, sender: str = "", status: str = "201"
) -> float:
    """Return the seconds from the first byte sent until the last delivery is done.

    The deliveries are polled one after the other, each until it is done. To poll all of them at
    once would measure the polls: a sender waits as long as `Retry-After` says.
    """
    headers = {**HEADERS, SENDER_HEADER: sender}

    async def post(body: bytes) -> str:
        answer = await route.http.post(f"{route.host}/api/fhir", content=body, headers=headers)
        assert answer.status_code == 202, answer.text
        return str(answer.headers["content-location"])

    begun = time.perf_counter()
    for address in await asyncio.gather(*(post(body) for body in bodies)):
        polled = await wait_until_done(route, address, sender)
        assert all(entry["response"]["status"] == status for entry in polled["entry"])
    return time.perf_counter() - begun


async def wait_until_done(route: MeasuredRoute, address: str, sender: str = "") -> dict[str, Any]:
    """Poll a delivery of this sender, who alone may see it, until it is done. Return its response
    bundle."""
    # A busy host may close an idle connection just as it is used again.
    headers = {"connection": "close", SENDER_HEADER: sender}
    while True:
        polled = await route.http.get(address, headers=headers)
        if polled.status_code != 202:
            assert polled.status_code == 200, polled.text
            bundle: dict[str, Any] = polled.json()
            return bundle
        await asyncio.sleep(0.2)


async def post_units(route: MeasuredRoute, bodies: Sequence[bytes]) -> float:
    """Return the seconds to post the units of these deliveries; they are planned beforehand."""
    places = asyncio.Semaphore(CONCURRENCY)
    requests = [
        units.build_request(unit, unit.entries, {}, Stamp(delivery="bench"))
        for body in bodies
        for lane in plan(
            bundle.read(body, DeliveryRequest("POST")), Naming("bench", body[:99].hex())
        ).lanes
        for unit in lane.units
    ]
    authorization = build_fhir_headers(read_settings(route.running.settings()).fhir.scope)

    async def send(request: Request) -> None:
        headers = {**request.headers, **authorization}
        async with places:
            answer = await route.http.post(
                route.running.fhir_url, content=request.body, headers=headers
            )
        assert answer.status_code == 200, answer.text

    begun = time.perf_counter()
    await asyncio.gather(*(send(request) for request in requests))
    return time.perf_counter() - begun


def encode(bundle_: object) -> bytes:
    """Return the bundle as JSON."""
    return decimal_json.encode(bundle_)
