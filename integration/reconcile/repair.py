"""Mend what differs.

The mirror writes: it reads both sides again and writes with a condition, so a work item that is
under way at the same time is not overtaken. What the mirror does not do (to say whose row a row is)
is written before that, also with a condition.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from integration.core.model import RowResult, WorkItem
from integration.dataverse.error_codes import Meaning, describe_failure, read_meaning
from integration.mirror.mirror import mirror_or_raise
from integration.reconcile.differences import Difference, DifferenceKind, Repair
from integration.reconcile.run import ReconcileRun, retry_while_unavailable

# Rows repaired at the same time. The rate limiters bound the requests.
_CONCURRENT_REPAIRS = 64


async def repair_all(run: ReconcileRun, differences: Sequence[Difference]) -> list[Repair]:
    """Repair the differences, unless the run is a dry one. Raises Unavailable or Misconfigured.

    Whose row a row is comes first: the lookups of others depend on it.
    """
    slots = asyncio.Semaphore(_CONCURRENT_REPAIRS)

    async def repair(difference: Difference) -> Repair:
        if run.dry_run or not difference.is_repairable:
            return Repair(difference)
        async with slots:
            return Repair(difference, await _repair(run, difference))

    async def repair_side_by_side(some: Sequence[Difference]) -> list[Repair]:
        try:
            async with asyncio.TaskGroup() as tasks:  # none goes on after one has failed
                started = [tasks.create_task(repair(difference)) for difference in some]
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        return [task.result() for task in started]

    first = [difference for difference in differences if difference.steps]
    others = [difference for difference in differences if not difference.steps]
    return [*await repair_side_by_side(first), *await repair_side_by_side(others)]


async def _repair(run: ReconcileRun, difference: Difference) -> RowResult:
    refusal = await _take_steps(run, difference)
    if refusal is not None or difference.kind is DifferenceKind.ORPHANED:
        notes = () if refusal is None else (refusal,)
        return RowResult(
            delivery=run.id,
            resource=difference.resource,
            table=difference.resource,
            row=difference.row,
            action="deleted" if refusal is None else "refused",
            notes=notes,
        )
    result = await _mirror(run, difference.resource)
    if difference.also is not None:
        await _mirror(run, difference.also)
    return result


async def _mirror(run: ReconcileRun, resource: str) -> RowResult:
    item = WorkItem(run.id, resource=resource)
    return await retry_while_unavailable(run, lambda: mirror_or_raise(run.mirror, item))


async def _take_steps(run: ReconcileRun, difference: Difference) -> str | None:
    """Make the changes that precede the mirror. Return why one was refused.

    A row that somebody has changed or deleted meanwhile is left alone: the next run looks again.
    """
    for step in difference.steps:
        apply = partial(run.dataverse.apply_changes, [step], run.id)
        response = (await retry_while_unavailable(run, apply)).response
        lost_race = read_meaning(response) in (Meaning.GONE, Meaning.CHANGED)
        if response.status >= 400 and not lost_race:
            return f"{step.entity_set}: {describe_failure(response)}"
    return None
