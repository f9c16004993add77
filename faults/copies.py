"""Post queue messages twice, out of order and concurrently, and deliver some to two workers at
once."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from typing import Any

from faults import kinds
from faults.deliveries import DeliveryFactory
from faults.injected import COPIED
from faults.judge import Report
from faults.route import Route, gather_limited
from faults.verdict import AcceptedDelivery
from integration.core import decimal_json
from integration.queues.names import MIRROR_QUEUE, RELAY_QUEUE

_MAX_DELAY = 3  # seconds until a copy becomes visible


class Copies:
    """Posts copies of the relay's queue messages while it processes them and afterwards."""

    def __init__(self, route: Route, report: Report, maker: DeliveryFactory) -> None:
        self.route, self.report, self.maker = route, report, maker
        self.posted = 0

    async def post_copies(self, streams: int, copies: int) -> None:
        """Post copies of every delivery's message, and of those of its lanes and patients."""
        self.posted = 0
        # A slow server, so that several copies are processed at the same time.
        await self.route.inject_fault(
            "fhir", kind="slow", delayMs=150, next=streams * 2, method="POST"
        )
        await self.route.take_injected()
        self.route.proxy.doubles = streams * copies
        streaming = [
            self._send_with_copies(stream, copies)
            for stream in kinds.take_streams(self.maker, streams)
        ]
        sent = await asyncio.gather(*streaming)
        accepted = await self.route.wait_for_outcomes([item for stream in sent for item in stream])
        await self._post_late_copies(accepted)
        self.report.record_stuck_work(await self.route.wait_until_idle())
        await self.route.clear_faults()
        self.route.proxy.doubles = 0
        where = f"{self.posted} copies of messages over {streams} streams"
        injected = await self.route.take_injected() + Counter({COPIED: self.posted})
        await self.report.judge(accepted, where, injected)

    async def _send_with_copies(self, stream: Any, copies: int) -> list[AcceptedDelivery]:
        """Send a stream and copy each delivery's message as soon as it is queued."""
        accepted: list[AcceptedDelivery] = []
        for delivery in stream:
            new = await self.route.send([delivery])
            accepted += new
            for item in new:
                await gather_limited(
                    [self._post_message(RELAY_QUEUE, _build_work_item(item)) for _ in range(copies)]
                )
        return accepted

    async def _post_late_copies(self, accepted: list[AcceptedDelivery]) -> None:
        """Copy the messages of finished deliveries, of their lanes and of their patients."""
        for item in accepted:
            await self._post_message(RELAY_QUEUE, _build_work_item(item))
            answer = await self.route.http.get(item.address)
            entries = answer.json()["entry"] if answer.status_code == 200 else []
            locations = [str(location["response"].get("location", "")) for location in entries]
            patients = {
                location.partition("/_history")[0]
                for location in locations
                if "Patient/" in location
            }
            for patient in sorted(patients):
                await self._post_message(MIRROR_QUEUE, _build_work_item(item, resource=patient))
            if item.sent.name.startswith("fanned-out"):
                await self._post_message(RELAY_QUEUE, _build_work_item(item, lane=0))
                await self._post_message(RELAY_QUEUE, _build_work_item(item, lane=1))

    async def _post_message(self, queue: str, work_item: dict[str, Any]) -> None:
        body = base64.b64encode(decimal_json.encode(work_item)).decode()
        delay = self.maker.random.randint(0, _MAX_DELAY)
        await self.route.queues.get_queue_client(queue).send_message(body, visibility_timeout=delay)
        self.posted += 1


def _build_work_item(accepted: AcceptedDelivery, **more: Any) -> dict[str, Any]:
    return {"delivery": accepted.address.rpartition("/")[2], **more}
