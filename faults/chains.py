"""Give one delivery a second chain of work items, in each way that there is.

A sender repeats its key while the delivery is open; the queue fails in the middle of a fan-out;
housekeeping takes for lost what is under way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import replace
from datetime import timedelta

from faults import kinds
from faults.deliveries import Delivery, DeliveryFactory, Stream
from faults.injected import KEY_REPEATED, QUEUED_AGAIN
from faults.judge import Report
from faults.route import Route
from faults.sweeping import sweep_later
from faults.verdict import AcceptedDelivery

_FAN_OUTS = 4  # in a round
_STREAMS = 10  # in a round, of deliveries with a key
_PAUSE = 0.1  # seconds
_REPEATS = 2  # of each key
_QUEUE_FAULTS = (None, "500", "503", "reset", "lost-reply", "lost-reply")
_MOST_FAULTS = 9  # in one fan-out: a client retries two in a row, but not three
_SLOW, _SLOWER = 200, 1200  # milliseconds of each request of the FHIR server: work stays open
_FAN_OUT_SECONDS = 6.0  # until its queue faults are met, or never are
_SWEEPS = (timedelta(hours=2), timedelta(hours=8))


class Chains:
    """Sends deliveries whose work is queued more than once."""

    def __init__(self, route: Route, report: Report, maker: DeliveryFactory) -> None:
        self.route, self.report, self.maker = route, report, maker

    async def run_round(self) -> None:
        """Send some deliveries, disturb their queueing and judge them."""
        counted: Counter[str] = Counter()
        await self.route.delay_fhir(_SLOWER)
        sent = [await self._send_fan_out() for _ in range(_FAN_OUTS)]
        for later in _SWEEPS:
            counted[QUEUED_AGAIN] += await sweep_later(self.route.running, later)
        await self.route.delay_fhir(_SLOW)
        streams = [self._add_keys(stream) for stream in kinds.take_streams(self.maker, _STREAMS)]
        sent += await asyncio.gather(
            *(self._send_and_repeat(stream, counted) for stream in streams)
        )
        accepted = await self.route.wait_for_outcomes([item for stream in sent for item in stream])
        self.report.record_stuck_work(await self.route.wait_until_idle())
        await self.route.delay_fhir(0)
        injected = counted + await self.route.take_injected()
        await self.report.judge(accepted, "deliveries with two chains of work items", injected)

    async def _send_fan_out(self) -> list[AcceptedDelivery]:
        """Send a delivery with several lanes, of which the queue takes some."""
        random, waiting = self.maker.random, self.route.proxy.queue_faults
        # The first work item is that of the delivery itself.
        waiting.extend([None, *random.choices(_QUEUE_FAULTS, k=random.randint(1, _MOST_FAULTS))])
        sent = await self.route.send(kinds.make_parts(self.maker))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAN_OUT_SECONDS):
                while waiting:
                    await asyncio.sleep(_PAUSE)
        waiting.clear()
        return sent

    def _add_keys(self, stream: Stream) -> list[Delivery]:
        return [
            replace(
                delivery,
                headers={**delivery.headers, "idempotency-key": self.maker.make_guid()},
                times=1,
            )
            for delivery in stream
        ]

    async def _send_and_repeat(
        self, stream: Stream, counted: Counter[str]
    ) -> list[AcceptedDelivery]:
        """Send a stream, then repeat each delivery that is still open, the first one first."""
        accepted = await self.route.send(stream)
        for _ in range(_REPEATS):
            for item in accepted:
                if not await self.route.is_open(item):
                    continue
                (again,) = await self.route.send([item.sent])
                counted[KEY_REPEATED] += 1
                if again.address != item.address:
                    self.report.record_stuck_work(f"{item.name}: its key made {again.name}, too")
        return accepted
