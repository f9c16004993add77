"""Rows through the Web API: what Dataverse has is read, what differs is written, at once.

One request reads the row, its children and what its lookups point at; one change set writes what
differs, so that a row never shows a version without the children of that version.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from integration.core.errors import Misconfigured, Unavailable, Unmappable
from integration.core.model import Response, RowResult, WorkItem
from integration.dataverse.client import Dataverse, error_code
from integration.dataverse.requests import Change
from integration.fhir.client import FhirServer
from integration.journal.waits import Waits
from integration.mapping import engine
from integration.mapping.model import EntityMap, MappedRows
from integration.mapping.schema_mismatches import find_schema_mismatches
from integration.mirror import row_diff, row_lookup
from integration.mirror.row_diff import Found, Planned, Tables, Target
from integration.mirror.row_lookup import Subject
from integration.queues.names import MIRROR_QUEUE
from integration.queues.queue_sender import QueueSender

# Lost races against other writers of one row, before the claim goes back to the queue.
_RACES = 5

# DuplicateRecordEntityKey: an alternate key of the table has the value already.
# https://learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes
_KEY_TAKEN = "0x80060892"

# https://learn.microsoft.com/power-apps/developer/data-platform/reference/entities/contact
_INACTIVE = {"statecode": 1, "statuscode": 2}


@dataclass(frozen=True, slots=True)
class WebApi:
    """What writing rows needs. `known`: the maps of all types, those too that are not mirrored,
    since lookups may point at their rows. `on_delete`: deactivate, delete or leave."""

    fhir: FhirServer
    dataverse: Dataverse
    waits: Waits
    queue: QueueSender
    known: Mapping[str, EntityMap]
    on_delete: str = "deactivate"

    @property
    def targets(self) -> dict[str, Target]:
        """Where the rows of each type are."""
        return {kind: Target(each.table, each.entity_set) for kind, each in self.known.items()}


class _KeyTakenError(Exception):
    """Another row has the FHIR id: one that was made just now, or of another resource type."""


# One try; None when either side has moved on meanwhile.
_Step = Callable[[WebApi, Subject], Awaitable[RowResult | None]]


async def bring(it: WebApi, entity: EntityMap, claim: WorkItem) -> RowResult:
    """The rows of `claim.resource` as FHIR has it now. Raises Unavailable or Misconfigured."""
    return await _tried(it, Subject(entity, claim, await _tables(it, entity)), _once)


async def gone(it: WebApi, entity: EntityMap, claim: WorkItem) -> RowResult:
    """The row of a resource that FHIR no longer has, as `on_delete` says, though others have
    written it. Raises as `bring` does."""
    return await _tried(it, await _of_others(it, entity, claim), _gone)


async def shown(it: WebApi, entity: EntityMap, claim: WorkItem) -> Mapping[str, Any] | None:
    """The row of a resource, which others have written. Raises as `bring` does, and Unmappable."""
    subject = await _of_others(it, entity, claim)
    return await row_lookup.row_of(it.dataverse, subject)


async def _of_others(it: WebApi, entity: EntityMap, claim: WorkItem) -> Subject:
    """Of the map, only what finds the rows has to fit the tables."""
    kind = tuple(each for each in entity.attributes if each.column == entity.kind_column)
    children = entity.expands if it.on_delete == "delete" else ()
    expands = tuple(replace(each, attributes=()) for each in children)
    bare = replace(entity, attributes=kind, expands=expands)
    tables = {name: await it.dataverse.columns(name) for name in bare.tables}
    lacking = {*bare.columns, "statecode"} - tables[bare.table].keys()
    if lacking:
        raise Misconfigured(f"{bare.table} has no column {', '.join(sorted(lacking))}")
    return Subject(bare, claim, tables)


async def _tried(it: WebApi, subject: Subject, step: _Step) -> RowResult:
    """Again while others win the races for the row."""
    entity, taken = subject.entity, False
    for _ in range(_RACES):
        try:
            result = await step(it, subject)
        except Unmappable as problem:
            return subject.outcome("refused", None, None, str(problem))
        except _KeyTakenError:
            taken = True
            continue
        if result is not None:
            return result
    if taken:
        why = f"a key of {entity.table} lets one row have this FHIR id, and another has it"
        return subject.outcome("refused", None, None, why)
    raise Unavailable(it.dataverse.upstream.name, "the row keeps changing")


async def _tables(it: WebApi, entity: EntityMap) -> Tables:
    tables = {name: await it.dataverse.columns(name) for name in entity.tables}
    wrong = find_schema_mismatches(entity, tables)
    if wrong:
        raise Misconfigured("; ".join(wrong))
    return tables


async def _once(it: WebApi, subject: Subject) -> RowResult | None:
    """From both sides as they are now; None when either has moved on meanwhile."""
    entity = subject.entity
    resource = await it.fhir.read(subject.resource, subject.claim.delivery)
    if resource is None:
        return await _gone(it, subject)
    base = it.fhir.upstream.base
    mapped = engine.map_resource(entity, resource, subject.tables, base)
    found = await row_lookup.found(it.dataverse, it.known, subject, mapped)
    if found.row is not None and _is_older(entity, resource, found.row):
        return _unchanged(subject, found.row)
    plan = row_diff.planned(entity, subject.key, mapped, found, it.targets, subject.tables)
    if plan.missing and await _arrived(it, subject, plan.missing):
        return None
    result = await _written(it, subject, found, plan, mapped)
    return replace(result, notes=(*mapped.notes, *plan.notes, *result.notes)) if result else None


def _is_older(entity: EntityMap, resource: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    shown = row.get(entity.version_column)
    same = shown is not None and shown == resource.get("meta", {}).get("versionId")
    return not same and not engine.is_newer(entity, resource, row)


# -- writing --------------------------------------------------------------------------------------


async def _arrived(it: WebApi, subject: Subject, missing: Iterable[str]) -> bool:
    """Note that this resource waits for others, so that it is mirrored again when they come.
    Whether one has come before that was noted."""
    links = sorted(missing)
    for link in links:
        await it.waits.add(link, subject.claim)
    return await row_lookup.any_there(it.dataverse, it.known, subject, links)


async def _written(
    it: WebApi, subject: Subject, found: Found, plan: Planned, mapped: MappedRows
) -> RowResult | None:
    entity = subject.entity
    if not plan.changes:
        # Whoever made the row may have died before it told those who wait.
        await wake(it, subject.resource)
        return _unchanged(subject, found.row or {})
    notes: tuple[str, ...] = ()
    response = await it.dataverse.change(plan.changes, subject.claim.delivery)
    if response.status >= 400 and response.status not in (404, 412) and len(plan.changes) > 1:
        response, notes = await _one_by_one(it, subject, plan)
    if response.status == 412 and error_code(response) == _KEY_TAKEN:
        raise _KeyTakenError
    if response.status in (404, 412):
        return None
    if response.status >= 400:
        return subject.outcome("refused", None, None, _refusal(response))
    version = mapped.values.get(entity.version_column)
    if found.row is not None:
        await wake(it, subject.resource)
        return subject.outcome("updated", found.row[entity.key], version, *notes)
    # A delete in between has found no row to deactivate.
    if await it.fhir.read(subject.resource, subject.claim.delivery) is None:
        return None
    await wake(it, subject.resource)
    return subject.outcome("created", subject.key, version, *notes)


async def _one_by_one(
    it: WebApi, subject: Subject, plan: Planned
) -> tuple[Response, tuple[str, ...]]:
    """One refused child must not cost the row: the answer to the row's own change, and notes."""
    answer: Response | None = None
    notes: list[str] = []
    for number, change in enumerate(plan.changes):
        response = await it.dataverse.change([change], subject.claim.delivery)
        if number == plan.row:
            answer = response
            if response.status >= 400:
                break
        elif response.status >= 400:
            notes.append(f"{change.entity_set}: {_refusal(response)}")
    if answer is None:
        raise Unavailable(it.dataverse.upstream.name, "the row was not written")
    return answer, tuple(dict.fromkeys(notes))


async def wake(it: WebApi, resource: str) -> None:
    """Who waits for the row of Type/id is mirrored again."""
    for claim in await it.waits.of(resource):
        await it.queue.send(MIRROR_QUEUE, claim)
        await it.waits.remove(resource, claim)


def _unchanged(subject: Subject, row: Mapping[str, Any]) -> RowResult:
    entity = subject.entity
    return subject.outcome("unchanged", row.get(entity.key), row.get(entity.version_column))


def _refusal(response: Response) -> str:
    return f"answered {response.status} {error_code(response)}".strip()


# -- deleted --------------------------------------------------------------------------------------


async def _gone(it: WebApi, subject: Subject) -> RowResult | None:
    """Deleted in FHIR."""
    entity = subject.entity
    row = await row_lookup.row_of(it.dataverse, subject)
    if row is None:
        return subject.outcome("absent")
    key, etag = row[entity.key], row["@odata.etag"]
    if it.on_delete == "leave" or (
        it.on_delete == "deactivate" and row.get("statecode") == _INACTIVE["statecode"]
    ):
        return subject.outcome("unchanged", key)
    changes = [Change("PATCH", entity.entity_set, key, _INACTIVE, etag)]
    if it.on_delete == "delete":
        children = await row_lookup.children_of(it.dataverse, subject, key)
        changes = [
            Change("DELETE", expand.entity_set, child[expand.key])
            for expand, found in zip(entity.expands, children, strict=True)
            for child in found
        ]
        changes.append(Change("DELETE", entity.entity_set, key, etag=etag))
    response = await it.dataverse.change(changes, subject.claim.delivery)
    if response.status in (404, 412):
        return None
    if response.status >= 400:
        return subject.outcome("refused", None, None, _refusal(response))
    return subject.outcome("deleted" if it.on_delete == "delete" else "deactivated", key)
