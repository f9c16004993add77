"""Rows that were queued for the mirror and have no result: their work items wait, or are lost."""

from __future__ import annotations

import asyncio

from integration.core.model import WorkItem
from integration.journal.store import Journal


async def list_rows_without_result(journal: Journal, delivery: str) -> list[WorkItem]:
    """Return a work item for each resource that was queued with an entry of the delivery and has no
    row result. To queue one that is not lost does no harm: the mirror writes what differs."""
    results, rows = await asyncio.gather(
        journal.list_entry_results(delivery), journal.list_row_results(delivery)
    )
    mirrored = {row.resource for row in rows}
    queued = dict.fromkeys(name for result in results for name in result.queued or ())
    return [WorkItem(delivery, resource=name) for name in queued if name not in mirrored]
