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
from integration.dataverse.client import Dataverse, get_error_code
from integration.dataverse.requests import Change
from integration.fhir.client import FhirServer
from integration.journal.pending_lookups import PendingLookups
from integration.mapping import engine
from integration.mapping.model import EntityMap, MappedRows
from integration.mapping.row_version import is_newer
from integration.mapping.schema_mismatches import find_schema_mismatches
from integration.mirror import row_diff, row_lookup
from integration.mirror.row_diff import ChangePlan, ExistingRows, Tables, Target
from integration.mirror.row_lookup import Subject
from integration.queues.names import MIRROR_QUEUE
from integration.queues.queue_sender import QueueSender

# Lost races against other writers of one row, before the claim goes back to the queue.
_MAX_ATTEMPTS = 5

# DuplicateRecordEntityKey: an alternate key of the table has the value already.
# https://learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes
_DUPLICATE_KEY = "0x80060892"

# https://learn.microsoft.com/power-apps/developer/data-platform/reference/entities/contact
_INACTIVE = {"statecode": 1, "statuscode": 2}


@dataclass(frozen=True, slots=True)
class WebApiSink:
    """What writing rows needs. `known`: the maps of all types, those too that are not mirrored,
    since lookups may point at their rows. `on_delete`: deactivate, delete or leave."""

    fhir: FhirServer
    dataverse: Dataverse
    pending_lookups: PendingLookups
    queue: QueueSender
    all_maps: Mapping[str, EntityMap]
    on_delete: str = "deactivate"

    @property
    def targets(self) -> dict[str, Target]:
        """Where the rows of each type are."""
        return {
            type_: Target(entity.table, entity.entity_set)
            for type_, entity in self.all_maps.items()
        }


class _DuplicateKeyError(Exception):
    """Another row has the FHIR id: one that was made just now, or of another resource type."""


# One try; None when either side has moved on meanwhile.
_Attempt = Callable[[WebApiSink, Subject], Awaitable[RowResult | None]]


async def bring_up_to_date(sink: WebApiSink, entity: EntityMap, item: WorkItem) -> RowResult:
    """The rows of `claim.resource` as FHIR has it now. Raises Unavailable or Misconfigured."""
    return await _retry_lost_races(
        sink, Subject(entity, item, await _read_tables(sink, entity)), _try_once
    )


async def remove_row(sink: WebApiSink, entity: EntityMap, item: WorkItem) -> RowResult:
    """The row of a resource that FHIR no longer has, as `on_delete` says, though others have
    written it. Raises as `bring` does."""
    return await _retry_lost_races(
        sink, await _build_reduced_subject(sink, entity, item), _try_remove_row
    )


async def find_row(sink: WebApiSink, entity: EntityMap, item: WorkItem) -> Mapping[str, Any] | None:
    """The row of a resource, which others have written. Raises as `bring` does, and Unmappable."""
    subject = await _build_reduced_subject(sink, entity, item)
    return await row_lookup.find_row(sink.dataverse, subject)


async def _build_reduced_subject(sink: WebApiSink, entity: EntityMap, item: WorkItem) -> Subject:
    """Of the map, only what finds the rows has to fit the tables."""
    kind_attributes = tuple(
        attribute for attribute in entity.attributes if attribute.column == entity.kind_column
    )
    children = entity.expands if sink.on_delete == "delete" else ()
    expands = tuple(replace(attribute, attributes=()) for attribute in children)
    reduced = replace(entity, attributes=kind_attributes, expands=expands)
    tables = {name: await sink.dataverse.get_columns(name) for name in reduced.tables}
    missing = {*reduced.columns, "statecode"} - tables[reduced.table].keys()
    if missing:
        raise Misconfigured(f"{reduced.table} has no column {', '.join(sorted(missing))}")
    return Subject(reduced, item, tables)


async def _retry_lost_races(sink: WebApiSink, subject: Subject, attempt: _Attempt) -> RowResult:
    """Again while others win the races for the row."""
    entity, duplicate = subject.entity, False
    for _ in range(_MAX_ATTEMPTS):
        try:
            result = await attempt(sink, subject)
        except Unmappable as problem:
            return subject.build_result("refused", None, None, str(problem))
        except _DuplicateKeyError:
            duplicate = True
            continue
        if result is not None:
            return result
    if duplicate:
        why = f"a key of {entity.table} lets one row have this FHIR id, and another has it"
        return subject.build_result("refused", None, None, why)
    raise Unavailable(sink.dataverse.upstream.name, "the row keeps changing")


async def _read_tables(sink: WebApiSink, entity: EntityMap) -> Tables:
    tables = {name: await sink.dataverse.get_columns(name) for name in entity.tables}
    mismatches = find_schema_mismatches(entity, tables)
    if mismatches:
        raise Misconfigured("; ".join(mismatches))
    return tables


async def _try_once(sink: WebApiSink, subject: Subject) -> RowResult | None:
    """From both sides as they are now; None when either has moved on meanwhile."""
    entity = subject.entity
    resource = await sink.fhir.read(subject.resource, subject.item.delivery)
    if resource is None:
        return await _try_remove_row(sink, subject)
    base = sink.fhir.upstream.base
    mapped = engine.map_resource(entity, resource, subject.tables, base)
    existing = await row_lookup.find_existing_rows(sink.dataverse, sink.all_maps, subject, mapped)
    if existing.row is not None and _is_older(entity, resource, existing.row):
        return _build_unchanged_result(subject, existing.row)
    plan = row_diff.plan_changes(
        entity, subject.key, mapped, existing, sink.targets, subject.tables
    )
    if plan.missing and await _add_pending_lookups(sink, subject, plan.missing):
        return None
    result = await _write_changes(sink, subject, existing, plan, mapped)
    return replace(result, notes=(*mapped.notes, *plan.notes, *result.notes)) if result else None


def _is_older(entity: EntityMap, resource: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    row_version = row.get(entity.version_column)
    same = row_version is not None and row_version == resource.get("meta", {}).get("versionId")
    return not same and not is_newer(entity, resource, row)


# -- writing --------------------------------------------------------------------------------------


async def _add_pending_lookups(sink: WebApiSink, subject: Subject, missing: Iterable[str]) -> bool:
    """Note that this resource waits for others, so that it is mirrored again when they come.
    Whether one has come before that was noted."""
    targets = sorted(missing)
    for target in targets:
        await sink.pending_lookups.add(target, subject.item)
    return await row_lookup.has_any_row(sink.dataverse, sink.all_maps, subject, targets)


async def _write_changes(
    sink: WebApiSink, subject: Subject, existing: ExistingRows, plan: ChangePlan, mapped: MappedRows
) -> RowResult | None:
    entity = subject.entity
    if not plan.changes:
        # Whoever made the row may have died before it told those who wait.
        await queue_waiting(sink, subject.resource)
        return _build_unchanged_result(subject, existing.row or {})
    notes: tuple[str, ...] = ()
    response = await sink.dataverse.apply_changes(plan.changes, subject.item.delivery)
    if response.status >= 400 and response.status not in (404, 412) and len(plan.changes) > 1:
        response, notes = await _write_one_by_one(sink, subject, plan)
    if response.status == 412 and get_error_code(response) == _DUPLICATE_KEY:
        raise _DuplicateKeyError
    if response.status in (404, 412):
        return None
    if response.status >= 400:
        return subject.build_result("refused", None, None, _describe_refusal(response))
    version = mapped.values.get(entity.version_column)
    if existing.row is not None:
        await queue_waiting(sink, subject.resource)
        return subject.build_result("updated", existing.row[entity.key], version, *notes)
    # A delete in between has found no row to deactivate.
    if await sink.fhir.read(subject.resource, subject.item.delivery) is None:
        return None
    await queue_waiting(sink, subject.resource)
    return subject.build_result("created", subject.key, version, *notes)


async def _write_one_by_one(
    sink: WebApiSink, subject: Subject, plan: ChangePlan
) -> tuple[Response, tuple[str, ...]]:
    """One refused child must not cost the row: the answer to the row's own change, and notes."""
    row_response: Response | None = None
    notes: list[str] = []
    for number, change in enumerate(plan.changes):
        response = await sink.dataverse.apply_changes([change], subject.item.delivery)
        if number == plan.row_position:
            row_response = response
            if response.status >= 400:
                break
        elif response.status >= 400:
            notes.append(f"{change.entity_set}: {_describe_refusal(response)}")
    if row_response is None:
        raise Unavailable(sink.dataverse.upstream.name, "the row was not written")
    return row_response, tuple(dict.fromkeys(notes))


async def queue_waiting(sink: WebApiSink, resource: str) -> None:
    """Who waits for the row of Type/id is mirrored again."""
    for item in await sink.pending_lookups.list_waiting(resource):
        await sink.queue.send(MIRROR_QUEUE, item)
        await sink.pending_lookups.remove(resource, item)


def _build_unchanged_result(subject: Subject, row: Mapping[str, Any]) -> RowResult:
    entity = subject.entity
    return subject.build_result("unchanged", row.get(entity.key), row.get(entity.version_column))


def _describe_refusal(response: Response) -> str:
    return f"answered {response.status} {get_error_code(response)}".strip()


# -- deleted --------------------------------------------------------------------------------------


async def _try_remove_row(sink: WebApiSink, subject: Subject) -> RowResult | None:
    """Deleted in FHIR."""
    entity = subject.entity
    row = await row_lookup.find_row(sink.dataverse, subject)
    if row is None:
        return subject.build_result("absent")
    key, etag = row[entity.key], row["@odata.etag"]
    if sink.on_delete == "leave" or (
        sink.on_delete == "deactivate" and row.get("statecode") == _INACTIVE["statecode"]
    ):
        return subject.build_result("unchanged", key)
    changes = [Change("PATCH", entity.entity_set, key, _INACTIVE, etag)]
    if sink.on_delete == "delete":
        children = await row_lookup.find_children(sink.dataverse, subject, key)
        changes = [
            Change("DELETE", expand.entity_set, child[expand.key])
            for expand, rows in zip(entity.expands, children, strict=True)
            for child in rows
        ]
        changes.append(Change("DELETE", entity.entity_set, key, etag=etag))
    response = await sink.dataverse.apply_changes(changes, subject.item.delivery)
    if response.status in (404, 412):
        return None
    if response.status >= 400:
        return subject.build_result("refused", None, None, _describe_refusal(response))
    return subject.build_result("deleted" if sink.on_delete == "delete" else "deactivated", key)
