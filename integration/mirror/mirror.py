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
RowSink = Callable[[EntityMap, WorkItem], Awaitable[RowResult]]


@dataclass(frozen=True, slots=True)
class Mirror:
    """What mirroring needs. `maps` by resource type, and the reasons of those that are `broken`;
    `max_age` in seconds."""

    journal: Journal
    queue: QueueSender
    sink: RowSink
    maps: Mapping[str, EntityMap]
    broken_maps: Mapping[str, str]
    now: Callable[[], datetime]
    max_age: float
    activities: ActivityRecorder = field(default_factory=ActivityRecorder)
    change_queues: ChangeQueues | None = None  # None: every type that has a map is mirrored
    row_keys: RowKeys = field(default_factory=MemoryRowKeys)


async def mirror_resource(mirror: Mirror, item: WorkItem) -> None:
    """Bring the rows of `claim.resource` up to date. A neighbour's trouble puts the claim back."""
    async with _begin_activity(mirror, item):
        await _mirror_or_requeue(mirror, item)


async def mirror_or_raise(mirror: Mirror, item: WorkItem) -> RowResult:
    """The same for who waits for it. Raises Unavailable or Misconfigured."""
    began = mirror.now()
    async with _begin_activity(mirror, item):
        result = await _bring_up_to_date(mirror, item)
        await _record_result(mirror, result, began)
    return result


async def _bring_up_to_date(mirror: Mirror, item: WorkItem) -> RowResult:
    """A row's key that is not the resource's id is noted: lookups of virtual rows point at it.
    Before the outcome, so that what fails is done again."""
    result = await mirror.sink(_get_entity_map(mirror, item), item)
    type_, _, id_ = result.resource.partition("/")
    existing: Mapping[str, str] = {}
    if result.row == id_ and result.action == "created":  # in the place of one that others made?
        existing = await mirror.row_keys.find_keys(type_, [id_])
    if result.row is not None and (result.row != id_ or existing):
        await mirror.row_keys.add(type_, {id_: result.row})
    return result


async def _mirror_or_requeue(mirror: Mirror, item: WorkItem) -> None:
    began = mirror.now()
    try:
        if (
            mirror.change_queues is not None
            and (await mirror.change_queues()).get(_get_type(item)) != MIRROR_QUEUE
        ):
            # Queued before its table became a virtual one.
            log_event("row.skipped", delivery=item.delivery, resource=item.resource)
            await mirror.journal.record_row_result(
                RowResult(*_get_identity(mirror, item), None, "skipped")
            )
            return
        result = await _bring_up_to_date(mirror, item)
    except (Unavailable, Misconfigured) as error:
        retry = plan_retry(item, error, mirror.now(), mirror.max_age)
        if retry.delay is None:
            await park(mirror, item, str(error))
            return
        log_event(
            "row.requeued",
            error,
            delivery=item.delivery,
            resource=item.resource,
            attempt=item.attempt,
            reason=str(error),
        )
        requeued = RowResult(*_get_identity(mirror, item), None, "requeued", notes=(str(error),))
        _record_activity(mirror, requeued, began, isinstance(error, Misconfigured))
        await mirror.queue.send(MIRROR_QUEUE, retry.item, retry.delay)
        return
    await _record_result(mirror, result, began)


async def _record_result(mirror: Mirror, result: RowResult, began: datetime) -> None:
    _record_activity(mirror, result, began, result.action == "refused")
    await mirror.journal.record_row_result(result)
    log_event(
        "row.mirrored",
        delivery=result.delivery,
        resource=result.resource,
        row=result.row,
        action=result.action,
        notes=len(result.notes),
    )


async def park(mirror: Mirror, item: WorkItem, reason: str) -> None:
    """Give up on a row until an operator looks at it."""
    log_event("row.parked", delivery=item.delivery, resource=item.resource, reason=reason)
    parked = RowResult(*_get_identity(mirror, item), None, "parked", notes=(reason,))
    async with mirror.activities.track():
        _record_activity(mirror, parked, mirror.now(), error=True)
        await mirror.journal.record_row_result(parked)


def _record_activity(mirror: Mirror, result: RowResult, began: datetime, error: bool) -> None:
    """What came of it, in the activity log."""
    category = Category.WARNING if result.notes else Category.INFORMATION
    mirror.activities.record(
        Category.ERROR if error else category,
        "Dataverse",
        result.action,
        ActivityContext(
            delivery=result.delivery,
            resource=result.resource,
            table=result.table or None,
            row=result.row,
            action="mirror",
        ),
        notes=result.notes,
        seconds=(mirror.now() - began).total_seconds(),
    )


def _begin_activity(mirror: Mirror, item: WorkItem) -> AbstractAsyncContextManager[None]:
    table = _get_table(mirror, item) or None
    return mirror.activities.track(delivery=item.delivery, resource=item.resource, table=table)


def _get_identity(mirror: Mirror, item: WorkItem) -> tuple[str, str, str]:
    return item.delivery, item.resource or "", _get_table(mirror, item)


def _get_table(mirror: Mirror, item: WorkItem) -> str:
    entity = mirror.maps.get(_get_type(item))
    return entity.table if entity else ""


def _get_entity_map(mirror: Mirror, item: WorkItem) -> EntityMap:
    """A map that is broken, or was taken away, stops its own table until it is mended."""
    type_ = _get_type(item)
    if type_ not in mirror.maps:
        raise Misconfigured(mirror.broken_maps.get(type_, f"no map of {type_} is in use"))
    return mirror.maps[type_]


def _get_type(item: WorkItem) -> str:
    return (item.resource or "").partition("/")[0]
