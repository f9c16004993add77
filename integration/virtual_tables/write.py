"""Create, change and delete the resource in FHIR that a row of the feed shows.

A change is applied to the current resource, on the condition that nobody changes it in between. If
somebody does, a client that named a version gets a conflict; for any other client the change is
applied again to the new version, so that neither change is lost. A change takes a write lock as a
delivery does, so that no delivery that was accepted earlier can undo it later.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from uuid import UUID

from integration.core import decimal_json
from integration.core.errors import Issue, Misconfigured, Rejected, Unavailable
from integration.core.model import Request, Response
from integration.fhir import entry_results, units, validation, write_mark
from integration.fhir.client import FhirServer
from integration.fhir.json_objects import get_object
from integration.fhir.resource_states import ResourceState
from integration.fhir.write_mark import Mark
from integration.journal import write_guard
from integration.journal.write_guard import HeldLocks, SendState, Write, WriteGuard
from integration.mapping.model import Kind, Lookup
from integration.mapping.write_back import apply
from integration.odata.headers import IfMatch
from integration.odata.model import Value
from integration.virtual_tables.entity_type import MappedEntityType
from integration.virtual_tables.row_keys import RowKeyResolver

Resource = dict[str, Any]

# How often one request applies its change to a new version of the resource.
_MAX_ATTEMPTS = 4

_HEADERS = {
    "accept": "application/fhir+json",
    "content-type": "application/fhir+json",
    "prefer": "return=representation",
}
_GONE_STATUSES = (404, 410)
_CONFLICT_STATUSES = (409, 412)


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
    run_id, requested_key = writer.new_run_id(), values.get(entity_type.entity.key)
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
    _check_valid({}, new)
    async with _lock_resource(writer, name, run_id) as attempt:
        if isinstance(requested_key, UUID) and await writer.fhir.read(name, run_id) is not None:
            raise Rejected(Issue("duplicate", "there is an entity with this key"), status=409)
        return await _put_new(writer, name, new, run_id, attempt)


async def _put_new(
    writer: FeedWriter, name: str, new: Resource, run_id: str, attempt: _WriteAttempt
) -> Resource:
    """Store a new resource. If the answer is lost, look what became of the request.

    A client that hears nothing sends the row again, under another key: then there are two.
    """
    attempt.is_sent = True
    try:
        response = await _put(writer, name, new, run_id)
    except Unavailable as error:
        if not error.is_outcome_unknown:
            raise
        stored = await writer.fhir.read(name, run_id)
        if stored is not None:
            attempt.settled[0] = True
            return stored
        # Nobody else knows the key, so to send it again makes no second resource.
        response = await _put(writer, name, new, run_id)
    attempt.record_response(response)
    return _parse_stored(writer, response)


async def change(
    writer: FeedWriter,
    entity_type: MappedEntityType,
    key: UUID,
    values: Mapping[str, Value],
    condition: IfMatch | None,
) -> Resource:
    """Change the properties in `values`, and return the resource as it was stored.

    Raises Rejected: 404, 409, 412, 422.
    """
    run_id, name = writer.new_run_id(), await _resolve_name(writer, entity_type, key)
    changes = await _convert_changes(writer, entity_type, values)
    fixed = {
        attribute.column: changes[attribute.column]
        for attribute in entity_type.attributes.values()
        if attribute.virtual_column.create_only and attribute.column in changes
    }

    def write_values(resource: Resource, columns: Mapping[str, Any]) -> Resource:
        return apply.write_columns(
            entity_type.entity,
            resource,
            columns,
            entity_type.columns,
            writer.fhir.upstream.base,
            today=writer.today(),
        )

    async with _lock_resource(writer, name, run_id) as attempt:
        for _ in range(_MAX_ATTEMPTS):
            current = await _read_current(writer, name, condition, run_id)
            if write_values(current, fixed) is not current:
                raise _build_fixed_column_error(sorted(fixed))
            new = write_values(current, changes)
            if new is current:
                return current
            _check_valid(current, new)
            attempt.is_sent = True
            response = await _put(writer, name, new, run_id, _get_version(current))
            if response.status in _CONFLICT_STATUSES and condition is None:
                continue
            if response.status in _CONFLICT_STATUSES:
                raise _build_conflict_error()
            attempt.record_response(response)
            return _parse_stored(writer, response)
    raise _build_busy_error()


async def delete(
    writer: FeedWriter, entity_type: MappedEntityType, key: UUID, condition: IfMatch | None
) -> str:
    """Delete the resource of the row with this key. Return its name. Raises Rejected: 404, 412."""
    run_id, name = writer.new_run_id(), await _resolve_name(writer, entity_type, key)
    async with _lock_resource(writer, name, run_id, is_delete=True) as attempt:
        for _ in range(_MAX_ATTEMPTS):
            current = await _read_current(writer, name, condition, run_id)
            if await _announce_delete(writer, name, current, run_id):
                break
            if condition is not None:
                raise _build_conflict_error()
        else:
            raise _build_busy_error()
        attempt.is_sent = True
        headers = {"accept": "application/fhir+json"}
        response = await writer.fhir.send(Request("DELETE", name, headers=headers), run_id)
        if response.status in _CONFLICT_STATUSES:
            raise _build_conflict_error()
        if response.status not in (200, 202, 204, *_GONE_STATUSES):
            raise _build_write_error(writer, response)
        attempt.record_response(response)
    return name


async def _announce_delete(writer: FeedWriter, name: str, current: Resource, run_id: str) -> bool:
    """Announce a delete, which no server makes conditional on a version: see write_decisions.
    Return whether the resource is still as it was read."""
    version = _get_version(current)
    state = ResourceState(version=version, meta=get_object(current, "meta"))
    response = await writer.fhir.send(units.build_announcements({name: state}, run_id), run_id)
    entries = entry_results.parse_response_entries(response) or [None]
    return entry_results.get_status(entries[0]) not in (*_CONFLICT_STATUSES, *_GONE_STATUSES)


@dataclass(slots=True)
class _WriteAttempt:
    """How far a write has come. `is_sent`: the server may be working on it."""

    is_sent: bool = False
    settled: dict[int, bool] = field(default_factory=dict)

    def record_response(self, response: Response) -> None:
        self.settled[0] = response.status < 300


@asynccontextmanager
async def _lock_resource(
    writer: FeedWriter, name: str, run_id: str, *, is_delete: bool = False
) -> AsyncIterator[_WriteAttempt]:
    """Hold the write lock of the resource `name`.

    Nobody else writes it meanwhile, and no earlier delivery afterwards.
    """
    locks = HeldLocks(run_id, "feed", writer.guard.token())
    write = Write(name, (0,))
    await write_guard.claim(writer.guard, locks, [write])
    await write_guard.acquire(writer.guard, locks, [write], are_deletes=is_delete)
    attempt, state = _WriteAttempt(), SendState.NOT_SENT
    try:
        if locks.superseded:
            raise _build_conflict_error()
        yield attempt
        state = SendState.ANSWERED
    except (Unavailable, asyncio.CancelledError) as error:
        # Cancelled: the response has taken longer than it may.
        is_outcome_known = isinstance(error, Unavailable) and not error.is_outcome_unknown
        if attempt.is_sent:
            state = SendState.ANSWERED if is_outcome_known else SendState.UNANSWERED
        raise
    finally:
        await write_guard.release(writer.guard, locks, attempt.settled, state)


async def _resolve_name(writer: FeedWriter, entity_type: MappedEntityType, key: UUID) -> str:
    ids = await writer.keys.resolve_ids(entity_type.resource, [key])
    return f"{entity_type.resource}/{ids[key]}"


async def _read_current(
    writer: FeedWriter, name: str, condition: IfMatch | None, run_id: str
) -> Resource:
    current = await writer.fhir.read(name, run_id)
    if current is None:
        raise Rejected(Issue("not-found", "there is no entity with this key"), status=404)
    if condition is not None and not condition.matches(_get_version(current)):
        raise _build_conflict_error()
    return current


async def _put(
    writer: FeedWriter, name: str, resource: Resource, run_id: str, version: str | None = None
) -> Response:
    condition = {"if-match": f'W/"{version}"'} if version is not None else {}
    # A delivery that was accepted earlier must not undo what is written here.
    body = decimal_json.encode(write_mark.add_mark(resource, Mark(delivery=run_id, position=0)))
    response = await writer.fhir.send(Request("PUT", name, body, {**_HEADERS, **condition}), run_id)
    if response.status >= 300 and response.status not in _CONFLICT_STATUSES:
        raise _build_write_error(writer, response)
    return response


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
        else:
            changes[attribute.column] = value
    return changes


def _check_valid(before: Resource, after: Resource) -> None:
    """Raise Rejected for what is not valid FHIR in `after` and was valid in `before`."""
    earlier = _list_issues(before) if before else []
    known = {(issue.text, issue.expression) for issue in earlier}
    added = [issue for issue in _list_issues(after) if (issue.text, issue.expression) not in known]
    if added:
        raise Rejected(*added, status=422)


def _list_issues(resource: Resource) -> list[Issue]:
    return list(validation.find_issues(resource, str(resource["resourceType"])))


def _parse_stored(writer: FeedWriter, response: Response) -> Resource:
    stored = decimal_json.decode_object(response.body)
    if stored is None or "id" not in stored:
        raise Unavailable(writer.fhir.upstream.name, "a write was answered without the resource")
    return stored


def _get_version(resource: Mapping[str, Any]) -> str:
    return str(resource.get("meta", {}).get("versionId", ""))


def _build_busy_error() -> Rejected:
    text = "others kept changing the resource while it was written: send the change again"
    return Rejected(Issue("conflict", text), status=409)


def _build_fixed_column_error(columns: Sequence[str]) -> Rejected:
    text = f"{', '.join(columns)}: can be set only when the row is created"
    return Rejected(Issue("business-rule", text), status=422)


def _build_conflict_error() -> Rejected:
    text = "somebody has changed the resource since it was read: read it again"
    return Rejected(Issue("conflict", text, "If-Match"), status=412)


def _build_write_error(writer: FeedWriter, response: Response) -> Exception:
    """Build the error for a response, without the server's text, which may quote the patient."""
    if response.status in (400, 422):
        issue = Issue("processing", f"the FHIR server refused the resource ({response.status})")
        return Rejected(issue, status=422)
    if response.status >= 500 or response.status in (408, 424):
        return Unavailable(
            writer.fhir.upstream.name,
            f"a write was answered {response.status}",
            # A gateway answers so while the server is still at work.
            is_outcome_unknown=response.status in (408, 502, 504),
        )
    return Misconfigured(f"{writer.fhir.upstream.name}: a write was answered {response.status}")
