"""Who waits for the row of another resource, and who is to be mirrored when it comes.

A lookup of a row that is not there stays empty. Dataverse empties it, too, when the row is deleted,
and tells nobody. So resources are recorded while they wait, and when a lookup of theirs is set.
docs/decisions/0028-lookups-are-recorded-while-they-are-set.md
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from integration.core.model import WorkItem
from integration.journal.pending_lookups import LookupState, PendingLookups
from integration.queues.names import MIRROR_QUEUE
from integration.queues.queue_sender import QueueSender

# Storage operations under way at once.
_MAX_CONCURRENT = 16


async def add_all(
    lookups: PendingLookups, targets: Iterable[str], resource: str, state: LookupState
) -> None:
    """Record that `resource` has lookups of the rows of `targets`, all as `Type/id`."""
    await _run_all(sorted(targets), lambda target: lookups.add(target, resource, state))


async def wait_again(lookups: PendingLookups, target: str) -> None:
    """Let the resources whose lookups once pointed at the row of `target` wait for it. For a row
    that is about to be created: before, since the answer to that may be lost."""

    async def move(resource: str) -> None:
        await lookups.add(target, resource, LookupState.WAITING)
        await lookups.remove(target, resource, LookupState.LINKED)

    while resources := await lookups.list_resources(target, LookupState.LINKED):
        await _run_all(resources, move)


async def queue_waiting(
    lookups: PendingLookups, queue: QueueSender, target: str, delivery: str
) -> None:
    """Queue every resource that waits for the row of `target`. `delivery`: the one that brought the
    row. It has the results, since the delivery of a resource that waited may be forgotten."""

    async def wake(resource: str) -> None:
        await queue.send(MIRROR_QUEUE, WorkItem(delivery, resource=resource))
        await lookups.remove(target, resource, LookupState.WAITING)

    while resources := await lookups.list_resources(target, LookupState.WAITING):
        await _run_all(resources, wake)


async def _run_all(names: Sequence[str], work: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    slots = asyncio.Semaphore(_MAX_CONCURRENT)

    async def run(name: str) -> None:
        async with slots:
            await work(name)

    await asyncio.gather(*(run(name) for name in names))
