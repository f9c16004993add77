"""Let housekeeping look at the deliveries of now as it would hours later.

It takes their work for lost and queues it again, though it is under way: a second chain of work
items for one delivery.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from integration.app.settings import read_settings
from integration.app.storage_clients import open_stores
from integration.core.model import WorkItem
from integration.operations.housekeeping import Ages, Housekeeping, sweep
from integration.queues.queue_sender import QueueSender
from local.services import Running

_MONTH = timedelta(days=30)
_AGES = Ages(max_age=timedelta(days=3), retention=_MONTH, activity=_MONTH, audit=_MONTH)


@dataclass(slots=True)
class _CountingSender:
    """A queue sender that counts the work items."""

    inner: QueueSender
    sent: int = 0

    async def send(self, queue: str, work_item: WorkItem, delay: float = 0) -> None:
        await self.inner.send(queue, work_item, delay)
        self.sent += 1


async def sweep_later(running: Running, later: timedelta) -> int:
    """Run housekeeping once with a clock that is ahead. Return how many work items it queued."""
    async with AsyncExitStack() as stack:
        stores = await open_stores(read_settings(running.settings()).storage, None, stack)
        sender = _CountingSender(stores.queue)
        housekeeping = Housekeeping(
            journal=stores.journal,
            guard_store=stores.guard_store,
            queue=sender,
            activity=stores.activity,
            audit=stores.audit,
            row_keys=stores.row_keys,
            jobs=stores.jobs,
            now=lambda: datetime.now(UTC) + later,
            ages=_AGES,
        )
        await sweep(housekeeping)
    return sender.sent
