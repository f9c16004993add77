"""Queue messages that come twice, out of their order, and side by side."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from faults import kinds
from faults.deliveries import Maker
from faults.judge import Report
from faults.route import Route, side_by_side
from faults.verdict import Told
from integration.core import decimal_json
from integration.queues.names import MIRROR_QUEUE, RELAY_QUEUE

_LATEST = 3  # seconds until a copy is seen


class Copies:
    """Posts again what the relay has queued, while it works on it and after."""

    def __init__(self, route: Route, report: Report, maker: Maker) -> None:
        self.route, self.report, self.maker = route, report, maker
        self.posted = 0

    async def shower(self, streams: int, each: int) -> None:
        """`each` copies of every claim of a delivery, and of every lane and patient of it."""
        self.posted = 0
        # A server that takes its time, so that copies are under way at once.
        await self.route.fault("fhir", kind="slow", delayMs=150, next=streams * 2, method="POST")
        streaming = [self._sent(stream, each) for stream in kinds.some(self.maker, streams)]
        sent = await asyncio.gather(*streaming)
        told = await self.route.ended([item for stream in sent for item in stream])
        await self._late(told)
        self.report.note(await self.route.idle())
        await self.route.no_faults()
        where = f"{self.posted} copies of messages over {streams} streams"
        await self.report.judge(told, where, injected=self.posted)

    async def _sent(self, stream: Any, each: int) -> list[Told]:
        """A stream, the claims of which are copied as soon as they are queued."""
        told: list[Told] = []
        for sent in stream:
            new = await self.route.send([sent])
            told += new
            for item in new:
                await side_by_side([self._post(RELAY_QUEUE, _claim(item)) for _ in range(each)])
        return told

    async def _late(self, told: list[Told]) -> None:
        """Copies of what is done: of the delivery, of its lanes, and of its patients' mirroring."""
        for item in told:
            await self._post(RELAY_QUEUE, _claim(item))
            answer = await self.route.http.get(item.address)
            entries = answer.json()["entry"] if answer.status_code == 200 else []
            where = [str(each["response"].get("location", "")) for each in entries]
            patients = {each.partition("/_history")[0] for each in where if "Patient/" in each}
            for patient in sorted(patients):
                await self._post(MIRROR_QUEUE, _claim(item, resource=patient))
            if item.sent.name.startswith("fanned-out"):
                await self._post(RELAY_QUEUE, _claim(item, lane=0))
                await self._post(RELAY_QUEUE, _claim(item, lane=1))

    async def _post(self, queue: str, claim: dict[str, Any]) -> None:
        body = base64.b64encode(decimal_json.encode(claim)).decode()
        delay = self.maker.random.randint(0, _LATEST)
        await self.route.queues.get_queue_client(queue).send_message(body, visibility_timeout=delay)
        self.posted += 1


def _claim(told: Told, **more: Any) -> dict[str, Any]:
    return {"delivery": told.address.rpartition("/")[2], **more}
