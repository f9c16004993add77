"""The row sink that writes through the Web API: it reads the rows, compares, and writes what
differs.

One request reads the row, its children and the rows that its lookups point at. One change set
writes what differs: a row never shows a version without the children of that version.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from integration.core.errors import Misconfigured, Unavailable, Unmappable
from integration.core.model import FhirResource, Response, Row, RowResult, WorkItem
from integration.dataverse.client import Dataverse, get_error_code
from integration.dataverse.requests import Change
from integration.fhir.client import FhirServer
from integration.journal.pending_lookups import PendingLookups
from integration.mapping import engine
from integration.mapping.model import EntityMap, MappedRows
from integration.mapping.row_version import is_newer
from integration.mapping.schema_mismatches import find_schema_mismatches
from integration.mirror import row_diff, row_lookup
from integration.mirror.row_diff import ChangePlan, ExistingRows, Target
from integration.mirror.row_sink import MirrorJob
from integration.queues.names import MIRROR_QUEUE
from integration.queues.queue_sender import QueueSender

# How often a row is tried when others write it at the same time, before the work item goes back
# to the queue.
_MAX_ATTEMPTS = 5

# DuplicateRecordEntityKey: another row has this value of an alternate key.
# https://learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes
_DUPLICATE_KEY = "0x80060892"

# https://learn.microsoft.com/power-apps/developer/data-platform/reference/entities/contact
_INACTIVE = {"statecode": 1, "statuscode": 2}


class _DuplicateKeyError(Exception):
    """Another row has the FHIR id: it was created just now, or is of another resource type."""


# One attempt; None: FHIR or Dataverse has changed meanwhile, so try again.
_Attempt = Callable[[MirrorJob], Awaitable[RowResult | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebApiSink:
    """The sink, and what it needs. `all_maps`: by resource type, also those that are not mirrored,
    since lookups may point at their rows. `on_delete`: what becomes of the row of a deleted
    resource: `deactivate`, `delete` or `leave`."""

    fhir: FhirServer
    dataverse: Dataverse
    pending_lookups: PendingLookups
    queue: QueueSender
    all_maps: Mapping[str, EntityMap]
    on_delete: str = "deactivate"

    async def bring_up_to_date(self, entity: EntityMap, item: WorkItem) -> RowResult:
        """Make the rows show `item.resource` as FHIR has it now: see RowSink."""
        tables = {name: await self.dataverse.get_columns(name) for name in entity.tables}
        mismatches = find_schema_mismatches(entity, tables)
        if mismatches:
            raise Misconfigured("; ".join(mismatches))
        return await self._retry_lost_races(MirrorJob(entity, item, tables), self._try_to_write)

    async def remove_row(self, entity: EntityMap, item: WorkItem) -> RowResult:
        """Do what `on_delete` says with the row of a deleted resource, whoever has written the row.
        Raises as `bring_up_to_date` does."""
        job = await self._build_reduced_job(entity, item)
        return await self._retry_lost_races(job, self._try_to_remove)

    async def find_row(self, entity: EntityMap, item: WorkItem) -> Row | None:
        """Return the row of a resource, whoever has written it. Raises as `bring_up_to_date` does,
        and Unmappable when it cannot be told from others."""
        return await row_lookup.find_row(
            self.dataverse, await self._build_reduced_job(entity, item)
        )

    async def queue_waiting(self, resource: str) -> None:
        """Queue the resources that have an empty lookup until `resource`, as `Type/id`, has its
        row."""
        for item in await self.pending_lookups.list_waiting(resource):
            await self.queue.send(MIRROR_QUEUE, item)
            await self.pending_lookups.remove(resource, item)

    async def _build_reduced_job(self, entity: EntityMap, item: WorkItem) -> MirrorJob:
        """Return a job with so much of the map as finds the rows: the rest of it need not fit the
        tables. Raises Misconfigured when a column of that is missing."""
        attributes = tuple(a for a in entity.attributes if a.column == entity.kind_column)
        children = entity.expands if self.on_delete == "delete" else ()
        expands = tuple(replace(expand, attributes=()) for expand in children)
        reduced = replace(entity, attributes=attributes, expands=expands)
        tables = {name: await self.dataverse.get_columns(name) for name in reduced.tables}
        missing = {*reduced.columns, "statecode"} - tables[reduced.table].keys()
        if missing:
            raise Misconfigured(f"{reduced.table} has no column {', '.join(sorted(missing))}")
        return MirrorJob(reduced, item, tables)

    async def _retry_lost_races(self, job: MirrorJob, attempt: _Attempt) -> RowResult:
        duplicate = False
        for _ in range(_MAX_ATTEMPTS):
            try:
                result = await attempt(job)
            except Unmappable as problem:
                return job.build_result("refused", notes=(str(problem),))
            except _DuplicateKeyError:
                duplicate = True
                continue
            if result is not None:
                return result
        if duplicate:
            table = job.entity.table
            why = f"an alternate key of {table} allows one row per FHIR id, and another row has it"
            return job.build_result("refused", notes=(why,))
        raise Unavailable(self.dataverse.upstream.name, "other writers kept changing the row")

    # -- writing ----------------------------------------------------------------------------------

    async def _try_to_write(self, job: MirrorJob) -> RowResult | None:
        """Read both sides, write what differs. None: one of them has changed meanwhile."""
        resource = await self.fhir.read_current(job.item)
        if resource is None:
            return await self._try_to_remove(job)
        mapped = engine.map_resource(job.entity, resource, job.tables, self.fhir.upstream.base)
        existing = await row_lookup.find_existing_rows(self.dataverse, self.all_maps, job, mapped)
        if existing.row is not None and _is_older(job.entity, resource, existing.row):
            return _build_unchanged_result(job, existing.row)
        plan = row_diff.plan_changes(
            job.entity, job.key, mapped, existing, targets=self._list_targets(), tables=job.tables
        )
        if plan.missing and await self._add_pending_lookups(job, plan.missing):
            return None
        result = await self._write_changes(job, existing, plan, mapped)
        if result is None:
            return None
        return replace(result, notes=(*mapped.notes, *plan.notes, *result.notes))

    def _list_targets(self) -> dict[str, Target]:
        return {
            type_: Target(entity.table, entity.entity_set)
            for type_, entity in self.all_maps.items()
        }

    async def _add_pending_lookups(self, job: MirrorJob, missing: Iterable[str]) -> bool:
        """Record that this resource is to be mirrored again when these resources have their rows.
        Return whether one of them has got its row before that was recorded."""
        targets = sorted(missing)
        for target in targets:
            await self.pending_lookups.add(target, job.item)
        return await row_lookup.has_any_row(self.dataverse, self.all_maps, job, targets)

    async def _write_changes(
        self, job: MirrorJob, existing: ExistingRows, plan: ChangePlan, mapped: MappedRows
    ) -> RowResult | None:
        if not plan.changes:
            # Whoever created the row may have died before it queued those that wait for it.
            await self.queue_waiting(job.reference)
            return _build_unchanged_result(job, existing.row or {})
        notes: tuple[str, ...] = ()
        response = await self.dataverse.apply_changes(plan.changes, job.item.delivery)
        if response.status >= 400 and response.status not in (404, 412) and len(plan.changes) > 1:
            response, notes = await self._write_one_by_one(job, plan)
        if response.status == 412 and get_error_code(response) == _DUPLICATE_KEY:
            raise _DuplicateKeyError
        if response.status in (404, 412):
            return None
        if response.status >= 400:
            return job.build_result("refused", notes=(describe_refusal(response),))
        version = mapped.values.get(job.entity.version_column)
        if existing.row is not None:
            await self.queue_waiting(job.reference)
            key = existing.row[job.entity.key]
            return job.build_result("updated", row=key, version=version, notes=notes)
        # If the resource was deleted meanwhile, its deletion found no row to deactivate.
        if await self.fhir.read_current(job.item) is None:
            return None
        await self.queue_waiting(job.reference)
        return job.build_result("created", row=job.key, version=version, notes=notes)

    async def _write_one_by_one(
        self, job: MirrorJob, plan: ChangePlan
    ) -> tuple[Response, tuple[str, ...]]:
        """Write each change alone, so that a refused child does not cost the row. Return the
        response to the change of the row, and notes about the others."""
        row_response: Response | None = None
        notes: list[str] = []
        for position, change in enumerate(plan.changes):
            response = await self.dataverse.apply_changes([change], job.item.delivery)
            if position == plan.row_position:
                row_response = response
                if response.status >= 400:
                    break
            elif response.status >= 400:
                notes.append(f"{change.entity_set}: {describe_refusal(response)}")
        if row_response is None:
            raise Unavailable(self.dataverse.upstream.name, "the row was not written")
        return row_response, tuple(dict.fromkeys(notes))

    # -- deleted resources ------------------------------------------------------------------------

    async def _try_to_remove(self, job: MirrorJob) -> RowResult | None:
        """Do what `on_delete` says. None: the row has changed meanwhile."""
        entity = job.entity
        row = await row_lookup.find_row(self.dataverse, job)
        if row is None:
            return job.build_result("absent")
        key, etag = row[entity.key], row["@odata.etag"]
        inactive = row.get("statecode") == _INACTIVE["statecode"]
        if self.on_delete == "leave" or (self.on_delete == "deactivate" and inactive):
            return job.build_result("unchanged", row=key)
        if self.on_delete == "delete":
            changes = [
                *await self._plan_child_deletions(job, key),
                Change(method="DELETE", entity_set=entity.entity_set, key=key, etag=etag),
            ]
        else:
            changes = [
                Change(
                    method="PATCH",
                    entity_set=entity.entity_set,
                    key=key,
                    columns=_INACTIVE,
                    etag=etag,
                )
            ]
        response = await self.dataverse.apply_changes(changes, job.item.delivery)
        if response.status in (404, 412):
            return None
        if response.status >= 400:
            return job.build_result("refused", notes=(describe_refusal(response),))
        action = "deleted" if self.on_delete == "delete" else "deactivated"
        return job.build_result(action, row=key)

    async def _plan_child_deletions(self, job: MirrorJob, key: str) -> list[Change]:
        children = await row_lookup.find_children(self.dataverse, job, key)
        return [
            Change(method="DELETE", entity_set=expand.entity_set, key=child[expand.key])
            for expand, rows in zip(job.entity.expands, children, strict=True)
            for child in rows
        ]


def describe_refusal(response: Response) -> str:
    """Return the status and Dataverse's error code; its message may quote a value."""
    return f"answered {response.status} {get_error_code(response)}".strip()


def _is_older(entity: EntityMap, resource: FhirResource, row: Mapping[str, Any]) -> bool:
    """Whether what was read from FHIR is older than what the row shows."""
    row_version = row.get(entity.version_column)
    same = row_version is not None and row_version == resource.get("meta", {}).get("versionId")
    return not same and not is_newer(entity, resource, row)


def _build_unchanged_result(job: MirrorJob, row: Mapping[str, Any]) -> RowResult:
    entity = job.entity
    return job.build_result(
        "unchanged", row=row.get(entity.key), version=row.get(entity.version_column)
    )
