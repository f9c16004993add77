"""VERB mirror: make the rows of one resource show its current state in FHIR.

The mirror is level-triggered: a work item says that a resource changed, never how. Work items may
come twice, late or in any order, and still no older state replaces a newer one.

A work item goes from here to a row sink. The sink reads the resource from FHIR, asks Dataverse for
its rows (`row_lookup`), plans what to change (`row_diff`) and writes that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from integration.core.activity_recorder import ActivityRecorder, get_activity_context
from integration.core.errors import Misconfigured, Unavailable
from integration.core.flow import count_row
from integration.core.flow_recorder import FlowRecorder
from integration.core.log_events import log_event
from integration.core.model import Category, RowResult, WorkItem
from integration.core.state_version import ATTEMPTS_UNTIL_BELIEVED
from integration.journal.concern import ConcernKind
from integration.journal.row_concerns import choose_row_kind, drop_row_concern, raise_row_concern
from integration.journal.row_keys import MemoryRowKeys, RecordedRow, RowKeys
from integration.journal.store import Journal
from integration.mapping.model import EntityMap
from integration.mapping.notes import name_unmapped
from integration.mirror.row_sink import RowSink
from integration.queues.names import EXTERNAL_QUEUE, MIRROR_QUEUE
from integration.queues.queue_sender import ChangeQueues, QueueSender
from integration.queues.retry import hasten_unseen, plan_retry

# The versionId of a resource that was never written before, at HAPI and at Azure's FHIR service:
# after a delete they count on. https://hl7.org/fhir/R4/http.html#versioning
_FIRST_VERSION = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """What mirroring needs.

    `maps`: the entity maps in use, by resource type. `broken_maps`: why the others cannot be used,
    by resource type. `max_age`: seconds after which a failing work item is parked.
    `configuration`: the version that has the maps.
    """

    journal: Journal
    queue: QueueSender
    sink: RowSink
    maps: Mapping[str, EntityMap]
    broken_maps: Mapping[str, str]
    now: Callable[[], datetime]
    max_age: float
    activities: ActivityRecorder = field(default_factory=ActivityRecorder)
    change_queues: ChangeQueues | None = None  # None: every type that has a map is mirrored
    current_queues: ChangeQueues | None = None  # the same, as they are now: without a cache
    # The types whose changes Dataverse is told of as external events, and whether it is also of
    # those that their rows do not show: FHIR is what is shown there. None: it is told of nothing.
    get_reported: Callable[[], Awaitable[Mapping[str, bool]]] | None = None
    row_keys: RowKeys = field(default_factory=MemoryRowKeys)
    flow: FlowRecorder = field(default_factory=FlowRecorder)
    configuration: int = 0


async def mirror_resource(mirror: Mirror, item: WorkItem) -> None:
    """Bring the rows of `item.resource` up to date and record the result.

    When a service is unavailable or an operator must act, requeue the item; park it once it is
    older than `max_age`.
    """
    async with _begin_activity(mirror, item):
        began = mirror.now()
        try:
            queue = await _find_queue(mirror, item)
            if queue == MIRROR_QUEUE:
                result, recorded = await _write_rows(mirror, item)
            else:  # it was queued before its table became a virtual one
                await _skip(mirror, item, queue)
                return
        except (Unavailable, Misconfigured) as error:
            await _requeue_or_park(mirror, item, error, began)
            return
        await _record_result(mirror, result, recorded, began)
        _count_row(mirror, item, result)
        await _report_change(mirror, item, result)


async def mirror_or_raise(mirror: Mirror, item: WorkItem) -> RowResult:
    """Bring the rows up to date for a caller that waits for the result. It has looked at both sides
    itself: what the versions do not decide, it has decided.

    Raises Unavailable or Misconfigured instead of requeueing the item.
    """
    item = replace(item, attempt=max(item.attempt, ATTEMPTS_UNTIL_BELIEVED))
    async with _begin_activity(mirror, item):
        began = mirror.now()
        result, recorded = await _write_rows(mirror, item)
        await _record_result(mirror, result, recorded, began)
        _count_row(mirror, item, result)
    return result


async def _report_change(mirror: Mirror, item: WorkItem, result: RowResult) -> None:
    """Have flows of a virtual table told of a change, now that it shows it. To be told twice does
    no harm: each state is reported once."""
    if mirror.get_reported is None:
        return
    shows_fhir = (await mirror.get_reported()).get(_get_type(item))
    if shows_fhir is not None and (shows_fhir or result.action != "refused"):
        await _send_on(mirror, item, EXTERNAL_QUEUE)


async def _send_on(mirror: Mirror, item: WorkItem, queue: str) -> None:
    await mirror.queue.send(queue, replace(item, attempt=0, since=None, once=False))


async def park(mirror: Mirror, item: WorkItem, reason: str) -> None:
    """Give up on the rows of `item.resource` until an operator looks at them."""
    log_event("row.parked", delivery=item.delivery, resource=item.resource, reason=reason)
    result = _build_result(mirror, item, "parked", reason)
    async with mirror.activities.track():
        _record_activity(mirror, result, mirror.now(), error=True)
        await _raise_concern(mirror, result, ConcernKind.ROW_PARKED)
        await mirror.journal.record_row_result(result)
        mirror.flow.count(item.sender, count_row(result.action))


async def _find_queue(mirror: Mirror, item: WorkItem) -> str | None:
    """Return the queue for changes of its type. Before work is dropped, nothing but the store is
    asked: who queued the item may have heard of a changed route earlier than this worker."""
    if mirror.change_queues is None:
        return MIRROR_QUEUE
    queue = (await mirror.change_queues()).get(_get_type(item))
    if queue != MIRROR_QUEUE and mirror.current_queues is not None:
        queue = (await mirror.current_queues()).get(_get_type(item))
    return queue


async def _write_rows(mirror: Mirror, item: WorkItem) -> tuple[RowResult, RecordedRow]:
    """Return the result, and what is recorded of the row."""
    entity = _get_entity_map(mirror, item)
    result = replace(
        await mirror.sink.bring_up_to_date(entity, item),
        configuration=mirror.configuration,
        map_digest=entity.digest,
    )
    # Before the result is recorded: if this fails, the work item comes again and repeats it.
    if _is_first_row(item, result):
        return result, RecordedRow()  # so nothing of it needed attention either
    return result, await _record_row_key(mirror, result)


def _is_first_row(item: WorkItem, result: RowResult) -> bool:
    """Whether the resource and its row have just been created, and the row's key is the id. No
    other key can have been recorded: nobody has mirrored the resource before. A server that does
    not number versions from 1 never says so, and then it is looked up."""
    is_new = item.is_create and item.attempt == 0 and result.version == _FIRST_VERSION
    return is_new and result.action == "created" and result.resource.endswith(f"/{result.row}")


async def _record_row_key(mirror: Mirror, result: RowResult) -> RecordedRow:
    """Record the key of the row that shows a resource, and the resource of the key, unless both
    follow from the id: lookups of virtual tables point at the row, whoever has created it. Return
    what is recorded of the row."""
    type_, _, id_ = result.resource.partition("/")
    if result.row is None:
        return await mirror.row_keys.read(type_, id_)
    key = result.row
    recorded, ids = await asyncio.gather(
        mirror.row_keys.read(type_, id_), mirror.row_keys.find_ids(type_, [key])
    )
    if (recorded.key or id_) != key or ids.get(key, key) != id_:
        await mirror.row_keys.add(type_, {id_: key})
        if recorded.concern is not None:
            return await mirror.row_keys.read(type_, id_)  # it has changed by this
    return recorded


async def _skip(mirror: Mirror, item: WorkItem, queue: str | None) -> None:
    """Leave out an item whose type is not mirrored. It still goes where changes of that type do."""
    log_event("row.skipped", delivery=item.delivery, resource=item.resource)
    if queue is not None:
        await _send_on(mirror, item, queue)
    result = _build_result(mirror, item, "skipped")
    await mirror.journal.record_row_result(result)
    await _drop_concern(mirror, result, await mirror.row_keys.read(*_split_name(result.resource)))


async def _raise_concern(mirror: Mirror, result: RowResult, kind: ConcernKind) -> None:
    await raise_row_concern(mirror.journal, mirror.row_keys, result, kind, mirror.now())


async def _drop_concern(mirror: Mirror, result: RowResult, recorded: RecordedRow) -> None:
    await drop_row_concern(mirror.journal, mirror.row_keys, result.resource, recorded)


async def _requeue_or_park(
    mirror: Mirror, item: WorkItem, error: Unavailable | Misconfigured, began: datetime
) -> None:
    if item.once:
        result = _build_result(mirror, item, "requeued", str(error))
        _record_activity(mirror, result, began, error=isinstance(error, Misconfigured))
        log_event(
            "row.tried",
            error,
            delivery=item.delivery,
            resource=item.resource,
            reason=str(error),
        )
        return
    retry = plan_retry(item, error, mirror.now(), mirror.max_age)
    if retry.delay is None:
        await park(mirror, item, str(error))
        return
    result = _build_result(mirror, item, "requeued", str(error))
    reason, delay = str(error), retry.delay
    try:
        if isinstance(error, Misconfigured):
            await raise_row_concern(
                mirror.journal,
                mirror.row_keys,
                result,
                ConcernKind.ROW_WAITING,
                mirror.now(),
                attempts=retry.item.attempt,
                next_attempt=mirror.now() + timedelta(seconds=delay),
            )
    except (Unavailable, Misconfigured) as failure:  # it may be the storage that it waits for
        reason = f"{reason}; not recorded: {failure}"
        if isinstance(error, Misconfigured):
            delay = hasten_unseen(delay)
    log_event(
        "row.requeued",
        error,
        delivery=item.delivery,
        resource=item.resource,
        attempt=item.attempt,
        reason=reason,
    )
    _record_activity(mirror, result, began, error=isinstance(error, Misconfigured))
    await mirror.queue.send(MIRROR_QUEUE, retry.item, delay)


async def _record_result(
    mirror: Mirror, result: RowResult, recorded: RecordedRow, began: datetime
) -> None:
    """Record the result. What needs attention is a concern before, and what does not is none
    afterwards: wherever this ends, no concern is missing."""
    _record_activity(mirror, result, began, error=result.action == "refused")
    kind = choose_row_kind(result)
    if kind is not None:
        await _raise_concern(mirror, result, kind)
    await mirror.journal.record_row_result(result)
    if kind is None:
        await _drop_concern(mirror, result, recorded)
    log_event(
        "row.mirrored",
        delivery=result.delivery,
        resource=result.resource,
        row=result.row,
        action=result.action,
        notes=len(result.notes),
    )


def _count_row(mirror: Mirror, item: WorkItem, result: RowResult) -> None:
    type_ = _get_type(item)
    mirror.flow.count(item.sender, count_row(result.action))
    mirror.flow.count_unmapped(name_unmapped(type_, note) for note in result.notes)


def _record_activity(mirror: Mirror, result: RowResult, began: datetime, *, error: bool) -> None:
    category = Category.WARNING if result.notes else Category.INFORMATION
    mirror.activities.record(
        Category.ERROR if error else category,
        "Dataverse",
        result.action,
        replace(
            get_activity_context(),
            delivery=result.delivery,
            resource=result.resource,
            table=result.table or None,
            row=result.row,
            action="mirror",
        ),
        notes=(*result.notes, *result.remarks),
        seconds=(mirror.now() - began).total_seconds(),
    )


def _begin_activity(mirror: Mirror, item: WorkItem) -> AbstractAsyncContextManager[None]:
    table = _get_table(mirror, item) or None
    return mirror.activities.track(delivery=item.delivery, resource=item.resource, table=table)


def _build_result(mirror: Mirror, item: WorkItem, action: str, *notes: str) -> RowResult:
    """Return the result of an item that did not get as far as a row."""
    return RowResult(
        delivery=item.delivery,
        resource=item.resource or "",
        table=_get_table(mirror, item),
        row=None,
        action=action,
        notes=notes,
    )


def _get_table(mirror: Mirror, item: WorkItem) -> str:
    entity = mirror.maps.get(_get_type(item))
    return entity.table if entity else ""


def _get_entity_map(mirror: Mirror, item: WorkItem) -> EntityMap:
    """Raises Misconfigured for a map that is broken or not in use: it stops its own table only."""
    type_ = _get_type(item)
    if type_ not in mirror.maps:
        raise Misconfigured(mirror.broken_maps.get(type_, f"no map of {type_} is in use"))
    return mirror.maps[type_]


def _split_name(resource: str) -> tuple[str, str]:
    type_, _, id_ = resource.partition("/")
    return type_, id_


def _get_type(item: WorkItem) -> str:
    return (item.resource or "").partition("/")[0]
