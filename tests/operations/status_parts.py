"""What the status report is made from in tests, and storage that is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from integration.core.cron import parse
from integration.core.errors import Unavailable
from integration.core.model import Delivery, Status
from integration.journal.activity_log import MemoryActivityLog
from integration.journal.flow_log import MemoryFlowLog
from integration.journal.housekeeping_runs import MemoryHousekeepingRuns
from integration.journal.store import IndexEntry, MemoryJournal, Page
from integration.journal.table_keys import make_delivery_id
from integration.operations.status import StatusCheck
from integration.queues.queue_reader import MemoryQueueReader
from tests.doubles import Clock


class Broken:
    """Storage that does not answer, whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        async def fail(*_: object) -> None:
            raise Unavailable("storage", "ServiceRequestError")

        return fail


class Hanging:
    """Storage that never answers."""

    def __getattr__(self, name: str) -> Any:
        async def hang(*_: object) -> None:
            await asyncio.Event().wait()

        return hang


@dataclass
class CountingJournal(MemoryJournal):
    """Notes each read of deliveries."""

    reads: list[str] = field(default_factory=list)

    async def list_deliveries(self, status: Status | None, limit: int, after: str | None) -> Page:
        self.reads.append("page")
        return await MemoryJournal.list_deliveries(self, status, limit, after)

    async def get_delivery(self, id_: str) -> Delivery | None:
        self.reads.append("delivery")
        return await MemoryJournal.get_delivery(self, id_)

    async def scan_index(self, due: datetime | None) -> AsyncIterator[IndexEntry]:
        async for entry in MemoryJournal.scan_index(self, due):
            self.reads.append("entry")
            yield entry


def checking(clock: Clock, **changes: Any) -> StatusCheck:
    given: dict[str, Any] = {
        "journal": CountingJournal(),
        "queue_reader": MemoryQueueReader(),
        "activity": MemoryActivityLog(),
        "runs": MemoryHousekeepingRuns(),
        "flow": MemoryFlowLog(),
        "queues": ("relay", "mirror"),
        "senders": ("lab", "west"),
        "sender_problems": {},
        "schedule": parse("0 */10 * * * *"),
        "started": clock(),
        "now": clock,
        **changes,
    }
    return StatusCheck(**given)


def add(check: StatusCheck, age: float, number: int = 0, **fields: Any) -> Delivery:
    """Add a delivery that was accepted so many seconds ago."""
    moment = check.now() - timedelta(seconds=age)
    values: dict[str, Any] = {
        "id": make_delivery_id(moment, number),
        "sender": "lab",
        "key": "key",
        "digest": "digest",
        "accepted": moment,
        "status": Status.DONE,
        "kind": "batch",
        "entries": 2,
        "bytes": 2,
        **fields,
    }
    delivery = Delivery(**values)
    check.journal.deliveries[delivery.id] = delivery  # type: ignore[attr-defined]
    return delivery
