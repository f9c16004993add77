"""Creating, changing and deleting in FHIR what a row of the feed shows.

A change is made to the resource as it is, on the condition that nobody has changed it since it was
read. A client that named a version hears of a conflict; for one that did not, the change is made
again to what the other has left, so that neither is lost. A change takes its turn like that of a
delivery, and so none that was accepted before can undo it later.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from integration.core import decimal_json
from integration.core.errors import Issue, Misconfigured, Rejected, Unavailable
from integration.core.model import Request, Response
from integration.fhir import validation
from integration.fhir.client import FhirServer
from integration.journal import write_guard
from integration.journal.write_guard import HeldLocks, SendState, Write, WriteGuard
from integration.mapping.model import Kind, Lookup
from integration.mapping.write_back import apply
from integration.odata.headers import IfMatch
from integration.odata.model import Value
from integration.virtual_tables.entity_type import MappedEntityType
from integration.virtual_tables.row_keys import RowKeyResolver

Resource = dict[str, Any]

# How often a change is made again to what others have left, in one request.
_TRIES = 4

_HEADERS = {
    "accept": "application/fhir+json",
    "content-type": "application/fhir+json",
    "prefer": "return=representation",
}
_GONE = (404, 410)
_CONFLICT = (409, 412)


@dataclass(frozen=True, slots=True)
class FeedWriter:
    """What writing needs. `run` makes an id that sorts by time, as those of deliveries do."""

    fhir: FhirServer
    keys: RowKeyResolver
    guard: WriteGuard
    new_run_id: Callable[[], str]
    new_key: Callable[[], UUID]


async def create(it: FeedWriter, shape: MappedEntityType, values: Mapping[str, Value]) -> Resource:
    """A new resource; its id is the key of its row. Raises Rejected."""
    run, chosen = it.new_run_id(), values.get(shape.entity.key)
    key = chosen if isinstance(chosen, UUID) else it.new_key()
    given = {name: value for name, value in values.items() if name != shape.entity.key}
    changes = await _changes(it, shape, given)
    base, name = it.fhir.upstream.base, f"{shape.resource}/{key}"
    new = apply.create_resource(shape.entity, str(key), changes, shape.columns, base)
    _check({}, new)
    async with _turn(it, name, run) as turn:
        if isinstance(chosen, UUID) and await it.fhir.read(name, run) is not None:
            raise Rejected(Issue("duplicate", "there is an entity with this key"), status=409)
        turn.sent = True
        answer = await _put(it, name, new, run)
        turn.done(answer)
    return _stored(it, answer)


async def change(
    it: FeedWriter,
    shape: MappedEntityType,
    key: UUID,
    values: Mapping[str, Value],
    condition: IfMatch | None,
) -> Resource:
    """The resource after it. Raises Rejected: 404, 412, 422."""
    run, name = it.new_run_id(), await _name(it, shape, key)
    changes = await _changes(it, shape, values)
    fixed = {
        one.column: changes[one.column]
        for one in shape.attributes.values()
        if one.virtual_column.create_only and one.column in changes
    }
    base = it.fhir.upstream.base
    async with _turn(it, name, run) as turn:
        for _ in range(_TRIES):
            found = await _read(it, name, condition, run)
            if apply.write_columns(shape.entity, found, fixed, shape.columns, base) is not found:
                raise _fixed(sorted(fixed))
            new = apply.write_columns(shape.entity, found, changes, shape.columns, base)
            if new is found:
                return found
            _check(found, new)
            turn.sent = True
            answer = await _put(it, name, new, run, _version(found))
            if answer.status in _CONFLICT and condition is None:
                continue
            if answer.status in _CONFLICT:
                raise _conflict()
            turn.done(answer)
            return _stored(it, answer)
    raise Rejected(Issue("conflict", "others were changing it all the time: try again"), status=409)


async def delete(
    it: FeedWriter, shape: MappedEntityType, key: UUID, condition: IfMatch | None
) -> None:
    """Raises Rejected: 404, 412."""
    run, name = it.new_run_id(), await _name(it, shape, key)
    async with _turn(it, name, run) as turn:
        found = await _read(it, name, condition, run)
        headers = {"accept": "application/fhir+json"}
        if condition is not None:
            headers["if-match"] = f'W/"{_version(found)}"'
        turn.sent = True
        answer = await it.fhir.send(Request("DELETE", name, headers=headers), run)
        if answer.status in _CONFLICT:
            raise _conflict()
        if answer.status not in (200, 202, 204, *_GONE):
            raise _refused(it, answer)
        turn.done(answer)


@dataclass(slots=True)
class _Turn:
    """How far a write has come. `sent`: the server may be at it, whoever has given up waiting."""

    sent: bool = False
    settled: dict[int, bool] = field(default_factory=dict)

    def done(self, answer: Response) -> None:
        self.settled[0] = answer.status < 300


@asynccontextmanager
async def _turn(it: FeedWriter, name: str, run: str) -> AsyncIterator[_Turn]:
    """Nobody else writes the resource meanwhile, and no earlier delivery afterwards."""
    taken = HeldLocks(run, "feed", it.guard.token())
    await write_guard.acquire(it.guard, taken, [Write(name, (0,))])
    turn, fate = _Turn(), SendState.NOT_SENT
    try:
        if taken.superseded:
            raise _conflict()
        yield turn
        fate = SendState.ANSWERED
    except (Unavailable, asyncio.CancelledError) as error:
        # Cancelled: the time that an answer may take is over.
        heard = isinstance(error, Unavailable) and not error.is_outcome_unknown
        if turn.sent:
            fate = SendState.ANSWERED if heard else SendState.UNANSWERED
        raise
    finally:
        await write_guard.release(it.guard, taken, turn.settled, fate)


async def _name(it: FeedWriter, shape: MappedEntityType, key: UUID) -> str:
    ids = await it.keys.resolve_ids(shape.resource, [key])
    return f"{shape.resource}/{ids[key]}"


async def _read(it: FeedWriter, name: str, condition: IfMatch | None, run: str) -> Resource:
    found = await it.fhir.read(name, run)
    if found is None:
        raise Rejected(Issue("not-found", "there is no entity with this key"), status=404)
    if condition is not None and not condition.matches(_version(found)):
        raise _conflict()
    return found


async def _put(
    it: FeedWriter, name: str, resource: Resource, run: str, version: str | None = None
) -> Response:
    condition = {"if-match": f'W/"{version}"'} if version is not None else {}
    body = decimal_json.encode(resource)
    answer = await it.fhir.send(Request("PUT", name, body, {**_HEADERS, **condition}), run)
    if answer.status >= 300 and answer.status not in _CONFLICT:
        raise _refused(it, answer)
    return answer


async def _changes(
    it: FeedWriter, shape: MappedEntityType, values: Mapping[str, Value]
) -> dict[str, Any]:
    """By column, as attribute maps write them."""
    changes: dict[str, Any] = {}
    for name, value in values.items():
        attribute = shape.attributes[name]
        if attribute.kind is Kind.LOOKUP and isinstance(value, UUID):
            type_ = attribute.virtual_column.target or ""
            ids = await it.keys.resolve_ids(type_, [value])
            changes[attribute.column] = Lookup(f"{type_}/{ids[value]}")
        else:
            changes[attribute.column] = value
    return changes


def _check(before: Resource, after: Resource) -> None:
    """Raises Rejected for what is not valid FHIR and was not so before."""
    known = {(each.text, each.expression) for each in _issues(before)} if before else set()
    new = [each for each in _issues(after) if (each.text, each.expression) not in known]
    if new:
        raise Rejected(*new, status=422)


def _issues(resource: Resource) -> list[Issue]:
    return list(validation.find_issues(resource, str(resource["resourceType"])))


def _stored(it: FeedWriter, answer: Response) -> Resource:
    stored = decimal_json.decode_object(answer.body)
    if stored is None or "id" not in stored:
        raise Unavailable(it.fhir.upstream.name, "a write was answered without the resource")
    return stored


def _version(resource: Mapping[str, Any]) -> str:
    return str(resource.get("meta", {}).get("versionId", ""))


def _fixed(columns: Sequence[str]) -> Rejected:
    text = f"{', '.join(columns)}: whose it is is said when it is created, and never changed"
    return Rejected(Issue("business-rule", text), status=422)


def _conflict() -> Rejected:
    return Rejected(
        Issue("conflict", "somebody has changed it since: read it again", "If-Match"), status=412
    )


def _refused(it: FeedWriter, answer: Response) -> Exception:
    """What the server says of it may quote the patient."""
    if answer.status in (400, 422):
        issue = Issue("processing", f"the FHIR server refused the resource ({answer.status})")
        return Rejected(issue, status=422)
    if answer.status >= 500 or answer.status in (408, 424):
        return Unavailable(it.fhir.upstream.name, f"a write was answered {answer.status}")
    return Misconfigured(f"{it.fhir.upstream.name}: a write was answered {answer.status}")
