"""Rows that were queued for the mirror and have no result: their work items wait, or are lost."""

from __future__ import annotations

import asyncio

from integration.core.model import Delivery, WorkItem
from integration.journal.store import Journal


async def list_rows_without_result(journal: Journal, delivery: Delivery) -> list[WorkItem]:
    """Return a work item for each resource that was queued with an entry of the delivery and has no
    row result. To queue one that is not lost does no harm: the mirror writes what differs."""
    results, rows = await asyncio.gather(
        journal.list_entry_results(delivery.id), journal.list_row_results(delivery.id)
    )
    mirrored = {row.resource for row in rows}
    queued = dict.fromkeys(name for result in results for name in result.queued or ())
    return [build_row_item(delivery, name) for name in queued if name not in mirrored]


def build_row_item(delivery: Delivery, resource: str, *, once: bool = False) -> WorkItem:
    """Return a work item that brings the rows of a resource up to date, for a delivery. `once`: the
    resource has one in the queue, too, which waits for its turn."""
    return WorkItem(delivery.id, resource=resource, sender=delivery.sender or None, once=once)
