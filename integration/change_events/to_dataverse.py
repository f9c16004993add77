"""VERB notify_dataverse: report a changed resource that Dataverse shows in a virtual table.

Dataverse cannot see such a change. Without a report, no flow and no plug-in runs. A work item says
that something changed, never what: the current state is read, and each state is reported once.
https://learn.microsoft.com/power-apps/developer/data-platform/virtual-entities/enable-virtual-table-event-support
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from integration.core.activity_recorder import (
    ActivityRecorder,
    add_activity_context,
    get_activity_context,
)
from integration.core.errors import Misconfigured, Unavailable
from integration.core.log_events import log_event
from integration.core.model import Category, WorkItem
from integration.dataverse import requests
from integration.dataverse.client import Dataverse
from integration.dataverse.error_codes import read_error_code
from integration.dataverse.virtual_table_names import build_entity_set, build_table_name
from integration.fhir.client import FhirServer
from integration.journal import write_guard
from integration.journal.write_guard import HeldLocks, Write, WriteGuard
from integration.mapping.files import MappedTable
from integration.queues.names import EXTERNAL_QUEUE
from integration.queues.queue_sender import QueueSender
from integration.queues.retry import plan_retry

# The state of a resource is its version and when it was written, or this.
_DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class VirtualTable:
    """A virtual table as Dataverse knows it."""

    table: str
    entity_set: str
    key_column: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalEvents:
    """What notifying needs. `tables` by resource type; `find_key`: returns the key of the row that
    shows `Type/id`; `max_age` in seconds."""

    queue: QueueSender
    fhir: FhirServer
    dataverse: Dataverse
    guard: WriteGuard
    tables: Mapping[str, VirtualTable]
    find_key: Callable[[str], Awaitable[str]]
    now: Callable[[], datetime]
    max_age: float
    activities: ActivityRecorder = field(default_factory=ActivityRecorder)


def list_virtual_tables(maps: Mapping[str, MappedTable], prefix: str) -> dict[str, VirtualTable]:
    """Return the virtual tables by resource type, with the names that provisioning gives. Pure."""
    return {
        name: _make_virtual_table(build_table_name(table.table, prefix))
        for name, table in maps.items()
        if "virtual" in table.routes
    }


def _make_virtual_table(table: str) -> VirtualTable:
    return VirtualTable(table, build_entity_set(table), f"{table}id")


async def notify_dataverse(events: ExternalEvents, item: WorkItem) -> None:
    """Report `item.resource` as it is now. If an upstream fails, requeue or drop the work item."""
    table = events.tables.get((item.resource or "").partition("/")[0])
    name = table.table if table else None
    async with events.activities.track(delivery=item.delivery, resource=item.resource, table=name):
        try:
            if table is None:
                raise Misconfigured("no virtual table shows resources of that type")
            action = await _notify_once(events, table, item)
            log_event(
                "external_event.sent",
                delivery=item.delivery,
                resource=item.resource,
                action=action,
            )
        except (Unavailable, Misconfigured) as error:
            await _requeue_or_drop(events, item, error)


async def drop_notification(events: ExternalEvents, item: WorkItem, reason: str) -> None:
    """Give up on reporting a change. The resource itself is in FHIR, and shown as it is."""
    log_event(
        "external_event.dropped",
        delivery=item.delivery,
        resource=item.resource,
        attempt=item.attempt,
        reason=reason,
    )
    table = events.tables.get((item.resource or "").partition("/")[0])
    name = table.table if table else None
    async with events.activities.track(delivery=item.delivery, resource=item.resource):
        about = replace(get_activity_context(), table=name, action="notify")
        events.activities.record(Category.ERROR, "Dataverse", "dropped", about, notes=(reason,))


async def _requeue_or_drop(
    events: ExternalEvents, item: WorkItem, error: Unavailable | Misconfigured
) -> None:
    retry = plan_retry(item, error, events.now(), events.max_age)
    if retry.delay is None:
        await drop_notification(events, item, str(error))
        return
    log_event(
        "external_event.requeued",
        error,
        delivery=item.delivery,
        resource=item.resource,
        attempt=item.attempt,
        reason=str(error),
    )
    await events.queue.send(EXTERNAL_QUEUE, retry.item, retry.delay)


async def _notify_once(events: ExternalEvents, table: VirtualTable, item: WorkItem) -> str:
    """Report the current state under a lock. Return the action, or that there was nothing new.

    Without the lock, two workers would report the same state.
    """
    resource = item.resource or ""
    locks = HeldLocks(item.delivery, "notify", events.guard.token())
    write = Write(f"notify {resource}", (0,), ordered=False)
    await write_guard.acquire(events.guard, locks, [write])
    (lock,) = locks.previous.values()
    try:
        version = (await events.fhir.read_current(item)).version
        # The time, too: versions begin again after a deletion for good.
        state = _DELETED if version.is_deleted else f"{version.id} {version.updated}"
        action = _choose_action(lock.source_version, state, is_create=item.is_create)
        if action is not None:
            await _send_action(events, table, resource, action, item.delivery)
    except (Unavailable, Misconfigured):
        await write_guard.release(events.guard, locks, {})
        raise
    reported = replace(write, source_version=state, ordered=True)
    locks.writes = dict.fromkeys(locks.writes, reported)
    await write_guard.release(events.guard, locks, {0: action is not None})
    return action or "nothing new"


def _choose_action(last_state: str | None, state: str, *, is_create: bool) -> str | None:
    """Return the action for `state`, where `last_state` was reported last, or none is remembered.
    `is_create`: the FHIR server said that it created the resource. None: nothing is new."""
    if state == last_state:
        return None
    if state == _DELETED:
        return "OnExternalDeleted"
    if last_state == _DELETED or (last_state is None and is_create):
        return "OnExternalCreated"
    return "OnExternalUpdated"


async def _send_action(
    events: ExternalEvents, table: VirtualTable, resource: str, action: str, delivery: str
) -> None:
    """Send the key alone. A flow reads the row by it, so no copy stays in Dataverse's jobs."""
    key = await events.find_key(resource)
    target = {"@odata.type": f"Microsoft.Dynamics.CRM.{table.table}", table.key_column: key}
    path = f"{table.entity_set}/Microsoft.Dynamics.CRM.{action}"
    with add_activity_context(action=action, row=key):
        response = await events.dataverse.send(
            requests.build_action(path, {"Target": target}), delivery
        )
    if response.status >= 400:
        raise Misconfigured(
            f"{events.dataverse.upstream.name} refused {action} of {table.table} "
            f"({response.status} {read_error_code(response)}); check that the table is provisioned "
            "with its events on"
        )
