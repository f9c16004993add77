"""VERB mirror: one resource's current state in FHIR becomes its rows in Dataverse.

Level-triggered: a claim says that something changed, never what. So claims may come twice, late
or in any order, and no older state can replace a newer one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime

from integration.core.activity import ActivityContext, ActivityRecorder
from integration.core.errors import Misconfigured, Unavailable
from integration.core.log_events import log_event
from integration.core.model import Category, RowResult, WorkItem
from integration.journal.row_keys import MemoryRowKeys, RowKeys
from integration.journal.store import Journal
from integration.mapping.model import EntityMap
from integration.queues.names import MIRROR_QUEUE
from integration.queues.queue_sender import ChangeQueues, QueueSender
from integration.queues.retry import plan_retry

# Brings the rows of a claim's resource up to date. Raises Unavailable or Misconfigured.
Sink = Callable[[EntityMap, WorkItem], Awaitable[RowResult]]


@dataclass(frozen=True, slots=True)
class Mirror:
    """What mirroring needs. `maps` by resource type, and the reasons of those that are `broken`;
    `max_age` in seconds."""

    journal: Journal
    queue: QueueSender
    sink: Sink
    maps: Mapping[str, EntityMap]
    broken: Mapping[str, str]
    now: Callable[[], datetime]
    max_age: float
    activities: ActivityRecorder = field(default_factory=ActivityRecorder)
    followed: ChangeQueues | None = None  # None: every type that has a map is mirrored
    row_keys: RowKeys = field(default_factory=MemoryRowKeys)


async def mirror(it: Mirror, claim: WorkItem) -> None:
    """Bring the rows of `claim.resource` up to date. A neighbour's trouble puts the claim back."""
    async with _working(it, claim):
        await _mirror(it, claim)


async def bring(it: Mirror, claim: WorkItem) -> RowResult:
    """The same for who waits for it. Raises Unavailable or Misconfigured."""
    began = it.now()
    async with _working(it, claim):
        result = await _brought(it, claim)
        await _noted(it, result, began)
    return result


async def _brought(it: Mirror, claim: WorkItem) -> RowResult:
    """A row's key that is not the resource's id is noted: lookups of virtual rows point at it.
    Before the outcome, so that what fails is done again."""
    result = await it.sink(_entity(it, claim), claim)
    type_, _, id_ = result.resource.partition("/")
    known: Mapping[str, str] = {}
    if result.row == id_ and result.action == "created":  # in the place of one that others made?
        known = await it.row_keys.keys(type_, [id_])
    if result.row is not None and (result.row != id_ or known):
        await it.row_keys.note(type_, {id_: result.row})
    return result


async def _mirror(it: Mirror, claim: WorkItem) -> None:
    began = it.now()
    try:
        if it.followed is not None and (await it.followed()).get(_kind(claim)) != MIRROR_QUEUE:
            # Queued before its table became a virtual one.
            log_event("row.skipped", delivery=claim.delivery, resource=claim.resource)
            await it.journal.note_row(RowResult(*_of(it, claim), None, "skipped"))
            return
        result = await _brought(it, claim)
    except (Unavailable, Misconfigured) as error:
        back = plan_retry(claim, error, it.now(), it.max_age)
        if back.delay is None:
            await park(it, claim, str(error))
            return
        log_event(
            "row.requeued",
            error,
            delivery=claim.delivery,
            resource=claim.resource,
            attempt=claim.attempt,
            reason=str(error),
        )
        waiting = RowResult(*_of(it, claim), None, "requeued", None, (str(error),))
        _note(it, waiting, began, isinstance(error, Misconfigured))
        await it.queue.send(MIRROR_QUEUE, back.item, back.delay)
        return
    await _noted(it, result, began)


async def _noted(it: Mirror, result: RowResult, began: datetime) -> None:
    _note(it, result, began, result.action == "refused")
    await it.journal.note_row(result)
    log_event(
        "row.mirrored",
        delivery=result.delivery,
        resource=result.resource,
        row=result.row,
        action=result.action,
        notes=len(result.notes),
    )


async def park(it: Mirror, claim: WorkItem, reason: str) -> None:
    """Give up on a row until an operator looks at it."""
    log_event("row.parked", delivery=claim.delivery, resource=claim.resource, reason=reason)
    parked = RowResult(*_of(it, claim), None, "parked", None, (reason,))
    async with it.activities.track():
        _note(it, parked, it.now(), error=True)
        await it.journal.note_row(parked)


def _note(it: Mirror, outcome: RowResult, began: datetime, error: bool) -> None:
    """What came of it, in the activity log."""
    done = Category.WARNING if outcome.notes else Category.INFORMATION
    it.activities.record(
        Category.ERROR if error else done,
        "Dataverse",
        outcome.action,
        ActivityContext(
            outcome.delivery, outcome.resource, outcome.table or None, outcome.row, "mirror"
        ),
        notes=outcome.notes,
        seconds=(it.now() - began).total_seconds(),
    )


def _working(it: Mirror, claim: WorkItem) -> AbstractAsyncContextManager[None]:
    table = _table(it, claim) or None
    return it.activities.track(delivery=claim.delivery, resource=claim.resource, table=table)


def _of(it: Mirror, claim: WorkItem) -> tuple[str, str, str]:
    return claim.delivery, claim.resource or "", _table(it, claim)


def _table(it: Mirror, claim: WorkItem) -> str:
    entity = it.maps.get(_kind(claim))
    return entity.table if entity else ""


def _entity(it: Mirror, claim: WorkItem) -> EntityMap:
    """A map that is broken, or was taken away, stops its own table until it is mended."""
    kind = _kind(claim)
    if kind not in it.maps:
        raise Misconfigured(it.broken.get(kind, f"no map of {kind} is in use"))
    return it.maps[kind]


def _kind(claim: WorkItem) -> str:
    return (claim.resource or "").partition("/")[0]
