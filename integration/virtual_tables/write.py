"""Create, change and delete the resource in FHIR that a row of the feed shows.

A change is applied to the current resource, on the condition that nobody changes it in between. If
somebody does, a client that named a version gets a conflict; for any other client the change is
applied again to the new version, so that neither change is lost.

A change is not ordered by the lock, as a create or a delete is: the version decides, and the mark
in the resource tells deliveries which of them the change came after.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from integration.core import decimal_json
from integration.core.errors import Issue, Rejected, Unavailable
from integration.core.model import Request, Response
from integration.edits.guarded_write import (
    CONFLICT_STATUSES,
    Superseded,
    WriteAttempt,
    build_conflict_error,
    build_write_error,
    check_valid,
    get_version,
    lock_resource,
    put,
)
from integration.fhir import entry_results, units, write_mark
from integration.fhir.client import FhirServer
from integration.fhir.json_objects import get_object
from integration.fhir.resource_states import ResourceState
from integration.journal.table_keys import build_next_id, is_delivery_id
from integration.journal.write_guard import WriteGuard
from integration.mapping.model import Kind, Lookup
from integration.mapping.write_back import apply
from integration.odata.bodies import EntityChanges, build_read_only_error
from integration.odata.headers import Preconditions
from integration.odata.model import Value
from integration.virtual_tables.entity_type import MappedEntityType
from integration.virtual_tables.resource_rows import build_row
from integration.virtual_tables.row_keys import RowKeyResolver

Resource = dict[str, Any]

_T = TypeVar("_T")

# How often one request applies its change to a new version of the resource.
_MAX_ATTEMPTS = 4

_GONE_STATUSES = (404, 410)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedWriter:
    """What writing needs. `new_run_id` makes an id that sorts by time, as ids of deliveries do."""

    fhir: FhirServer
    keys: RowKeyResolver
    guard: WriteGuard
    new_run_id: Callable[[], str]
    new_key: Callable[[], UUID]
    today: Callable[[], date]


async def create(
    writer: FeedWriter, entity_type: MappedEntityType, values: Mapping[str, Value]
) -> Resource:
    """Create a resource whose id is the key of its row, and return it as it was stored.

    Raises Rejected: 409 where the client chose a key that is in use, 422.
    """
    requested_key = values.get(entity_type.entity.key)
    key = requested_key if isinstance(requested_key, UUID) else writer.new_key()
    given = {name: value for name, value in values.items() if name != entity_type.entity.key}
    changes = await _convert_changes(writer, entity_type, given)
    name = f"{entity_type.resource}/{key}"
    new = apply.create_resource(
        entity_type.entity,
        str(key),
        changes,
        entity_type.columns,
        writer.fhir.upstream.base,
        today=writer.today(),
    )
    check_valid({}, new)

    async def write_new(run_id: str) -> Resource:
        async with lock_resource(writer.guard, name, run_id) as attempt:
            if isinstance(requested_key, UUID) and await writer.fhir.read(name, run_id) is not None:
                raise Rejected(Issue("duplicate", "there is an entity with this key"), status=409)
            await _check_targets(writer, entity_type, changes, run_id)
            return await _put_new(writer, name, new, run_id, attempt)

    return await _write_in_turn(writer, write_new)


async def _put_new(
    writer: FeedWriter, name: str, new: Resource, run_id: str, attempt: WriteAttempt
) -> Resource:
    """Store a new resource. If the answer is lost, look what became of the request.

    A client that hears nothing sends the row again, under another key: then there are two.
    """
    attempt.is_sent = True
    try:
        response = await put(writer.fhir, name, new, run_id)
    except Unavailable as error:
        if not error.is_outcome_unknown:
            raise
        stored = await writer.fhir.read(name, run_id)
        if stored is not None:
            attempt.settled[0] = True
            return stored
        # Nobody else knows the key, so to send it again makes no second resource.
        response = await put(writer.fhir, name, new, run_id)
    attempt.record_response(response)
    return _parse_stored(writer, response)


async def change(
    writer: FeedWriter,
    entity_type: MappedEntityType,
    key: UUID,
    body: EntityChanges,
    condition: Preconditions,
) -> Resource:
    """Change the properties of `body`, and return the resource as it was stored.

    Raises Rejected: 400 for a column that cannot be written and shows something else, 404, 409,
    412, 422.
    """
    run_id, name = writer.new_run_id(), await _resolve_name(writer, entity_type, key)
    changes = await _convert_changes(writer, entity_type, body.values)
    fixed = {
        attribute.column: changes[attribute.column]
        for attribute in entity_type.attributes.values()
        if attribute.virtual_column.create_only and attribute.column in changes
    }
    apply_columns = partial(_apply_columns, writer, entity_type)
    async with lock_resource(writer.guard, name, run_id, is_ordered=False) as attempt:
        for number in range(_MAX_ATTEMPTS):
            current = await _read_current(writer, name, condition, run_id)
            if number == 0:  # a later version was not read by the client
                await _check_read_only(writer, entity_type, current, body.read_only, run_id)
            if apply_columns(current, fixed) is not current:
                raise _build_fixed_column_error(sorted(fixed))
            new = apply_columns(current, changes)
            if new is current:
                return current
            check_valid(current, new)
            changed = {
                column: value
                for column, value in changes.items()
                if isinstance(value, Lookup)
                and apply_columns(current, {column: value}) is not current
            }
            await _check_targets(writer, entity_type, changed, run_id)
            attempt.is_sent = True
            put_id = _choose_run_id(writer, run_id, _get_marked_delivery(current))
            response = await put(writer.fhir, name, new, put_id, get_version(current))
            if response.status in CONFLICT_STATUSES and not condition.names_version:
                continue
            if response.status in CONFLICT_STATUSES:
                raise build_conflict_error()
            attempt.record_response(response)
            return _parse_stored(writer, response)
    raise _build_busy_error()


def _apply_columns(
    writer: FeedWriter, entity_type: MappedEntityType, resource: Resource, columns: apply.Changes
) -> Resource:
    return apply.write_columns(
        entity_type.entity,
        resource,
        columns,
        entity_type.columns,
        writer.fhir.upstream.base,
        today=writer.today(),
    )


async def _check_read_only(
    writer: FeedWriter,
    entity_type: MappedEntityType,
    current: Resource,
    values: Mapping[str, Value],
    run_id: str,
) -> None:
    """Raise Rejected for a value that the row does not show. A client that sends back all that it
    has read changes nothing by it."""
    if not values:
        return
    row = await build_row(writer, entity_type.select(values), current, run_id)
    for name, value in values.items():
        if row[name] != value:
            raise build_read_only_error(name)


async def _check_targets(
    writer: FeedWriter, entity_type: MappedEntityType, changes: Mapping[str, Any], run_id: str
) -> None:
    """Raise Rejected where a lookup would refer to a resource that does not exist: the server may
    not look, and a contact need not be a patient."""
    for column, value in changes.items():
        if isinstance(value, Lookup) and await writer.fhir.read(value.resource, run_id) is None:
            type_ = value.resource.partition("/")[0]
            why = f"{column}: the FHIR server has no {type_} for this key"
            raise Rejected(Issue("not-found", why, column), status=422)


async def delete(
    writer: FeedWriter, entity_type: MappedEntityType, key: UUID, condition: Preconditions
) -> str:
    """Delete the resource of the row with this key. Return its name. Raises Rejected: 404, 409,
    412."""
    name = await _resolve_name(writer, entity_type, key)
    await _write_in_turn(writer, partial(_delete_resource, writer, name, condition))
    return name


async def _delete_resource(
    writer: FeedWriter, name: str, condition: Preconditions, run_id: str
) -> None:
    async with lock_resource(writer.guard, name, run_id, is_delete=True) as attempt:
        for _ in range(_MAX_ATTEMPTS):
            current = await _read_current(writer, name, condition, run_id)
            if not await _announce_delete(writer, name, current, run_id):
                if condition.names_version:
                    raise build_conflict_error()
                continue
            attempt.is_sent = True
            headers = {"accept": "application/fhir+json"}
            response = await writer.fhir.send(Request("DELETE", name, headers=headers), run_id)
            if response.status in (200, 202, 204, *_GONE_STATUSES):
                attempt.record_response(response)
                return
            if response.status not in CONFLICT_STATUSES:
                raise build_write_error(writer.fhir.upstream.name, response.status)
            if response.status == 409:
                raise _build_kept_error()
    raise _build_busy_error()


async def _write_in_turn(writer: FeedWriter, write: Callable[[str], Awaitable[_T]]) -> _T:
    """Write under an id that is later than that of each write that is done. One that waits for the
    lock is overtaken by another that began after it; it comes later all the same."""
    run_id = writer.new_run_id()
    for _ in range(_MAX_ATTEMPTS):
        try:
            return await write(run_id)
        except Superseded as error:
            run_id = _choose_run_id(writer, run_id, error.later)
    raise _build_busy_error()


def _choose_run_id(writer: FeedWriter, run_id: str, earlier: str) -> str:
    """Return `run_id` if it is later than `earlier`, which may be of a worker whose clock is ahead;
    else another id that is."""
    if run_id > earlier:
        return run_id
    following = build_next_id(earlier) if is_delivery_id(earlier) else None
    return max(writer.new_run_id(), following or "")


def _get_marked_delivery(resource: Resource) -> str:
    mark = write_mark.read_mark(resource)
    return mark.delivery if mark is not None else ""


async def _announce_delete(writer: FeedWriter, name: str, current: Resource, run_id: str) -> bool:
    """Announce a delete, which no server makes conditional on a version: see write_decisions.
    Return whether the resource is still as it was read."""
    version = get_version(current)
    state = ResourceState(version=version, meta=get_object(current, "meta"))
    response = await writer.fhir.send(units.build_announcements({name: state}, run_id), run_id)
    entries = entry_results.parse_response_entries(response) or [None]
    return entry_results.get_status(entries[0]) not in (*CONFLICT_STATUSES, *_GONE_STATUSES)


async def _resolve_name(writer: FeedWriter, entity_type: MappedEntityType, key: UUID) -> str:
    ids = await writer.keys.resolve_ids(entity_type.resource, [key])
    return f"{entity_type.resource}/{ids[key]}"


async def _read_current(
    writer: FeedWriter, name: str, condition: Preconditions, run_id: str
) -> Resource:
    current = await writer.fhir.read(name, run_id)
    if current is None:
        raise Rejected(Issue("not-found", "there is no entity with this key"), status=404)
    if not condition.allow(get_version(current)):
        raise build_conflict_error()
    return current


async def _convert_changes(
    writer: FeedWriter, entity_type: MappedEntityType, values: Mapping[str, Value]
) -> dict[str, Any]:
    """Convert the values of properties to values of columns, as attribute maps write them."""
    changes: dict[str, Any] = {}
    for name, value in values.items():
        attribute = entity_type.attributes[name]
        if attribute.kind is Kind.LOOKUP and isinstance(value, UUID):
            type_ = attribute.virtual_column.target or ""
            ids = await writer.keys.resolve_ids(type_, [value])
            changes[attribute.column] = Lookup(f"{type_}/{ids[value]}")
        elif attribute.kind is Kind.DATE and isinstance(value, datetime):
            if value.timetz().replace(tzinfo=None) != time.min:
                raise _build_time_of_day_error(attribute.column)
            changes[attribute.column] = value
        else:
            changes[attribute.column] = value
    return changes


def _parse_stored(writer: FeedWriter, response: Response) -> Resource:
    stored = decimal_json.decode_object(response.body)
    if stored is None or "id" not in stored:
        raise Unavailable(writer.fhir.upstream.name, "a write was answered without the resource")
    return stored


def _build_busy_error() -> Rejected:
    text = "others kept changing the resource while it was written: send the change again"
    return Rejected(Issue("conflict", text), status=409)


def _build_fixed_column_error(columns: Sequence[str]) -> Rejected:
    text = f"{', '.join(columns)}: can be set only when the row is created"
    return Rejected(Issue("business-rule", text), status=422)


def _build_time_of_day_error(column: str) -> Rejected:
    text = f"{column}: holds a day, as its midnight in UTC, and no time of day"
    return Rejected(Issue("business-rule", text, column), status=422)


def _build_kept_error() -> Rejected:
    text = "the FHIR server does not delete the resource: others may refer to it"
    return Rejected(Issue("conflict", text), status=409)
