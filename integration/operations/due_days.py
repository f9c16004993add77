"""VERB queue_due_rows: have the rows mirrored again of which something begins or ceases to be in
use today."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from integration.core.model import WorkItem
from integration.journal.due_days import DueDays, DueResource
from integration.journal.store import Journal
from integration.journal.synthetic_deliveries import add_synthetic_delivery
from integration.journal.table_keys import make_delivery_id
from integration.queues.names import MIRROR_QUEUE
from integration.queues.queue_sender import QueueSender

KIND = "day"  # of the delivery under which the rows are listed

# Rows of one run. The next one goes on.
MAX_ROWS = 2000

_MAX_CONCURRENT = 16


async def queue_due_rows(
    due_days: DueDays, journal: Journal, queue: QueueSender, now: datetime
) -> int:
    """Queue the resources whose day has come. Return how many. What breaks off is done by the next
    run: a resource that is queued twice is mirrored twice, which changes nothing."""
    due = await due_days.list_due(now.astimezone(UTC).date(), MAX_ROWS)
    if not due:
        return 0
    delivery = make_delivery_id(now, 1)  # 0 is the one of an hour of events
    await add_synthetic_delivery(journal, delivery, KIND, now, now)
    semaphore = asyncio.Semaphore(_MAX_CONCURRENT)

    async def queue_row(item: DueResource) -> None:
        async with semaphore:
            await queue.send(MIRROR_QUEUE, WorkItem(delivery, resource=item.resource))
            await due_days.remove(item)

    await asyncio.gather(*map(queue_row, due))
    return len(due)
