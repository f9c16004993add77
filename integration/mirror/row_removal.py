"""What becomes of the row of a resource that was deleted in FHIR."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from integration.core.model import Row, RowResult
from integration.core.state_version import NEVER_SEEN, Order, StateVersion
from integration.dataverse.client import Dataverse
from integration.dataverse.error_codes import Meaning, describe_failure, read_meaning
from integration.dataverse.requests import Change
from integration.journal.deletions import Deletions
from integration.mapping.model import EntityMap
from integration.mapping.row_version import build_deletion_mark, compare_with_row
from integration.mirror import row_lookup
from integration.mirror.row_sink import MirrorJob

# https://learn.microsoft.com/power-apps/developer/data-platform/reference/entities/contact
INACTIVE = {"statecode": 1, "statuscode": 2}


# The note of a row whose FHIR id, or key, is of no resource that ever was.
NO_RESOURCE = "FHIR has no resource of this id: see what the row's column of it says"


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What removing needs. `on_delete`: `deactivate`, `delete` or `leave`. `is_current`: whether a
    state may be written over a row: see row_order. `needs_version`: a row that shows no version of
    the resource stays, unless FHIR says that there was one: it may be of a patient who is yet to
    come."""

    dataverse: Dataverse
    deletions: Deletions
    on_delete: str
    is_current: Callable[[MirrorJob, StateVersion, Row | None], Awaitable[bool]]
    needs_version: bool = True


async def try_to_remove(
    removal: Removal, job: MirrorJob, deletion: StateVersion
) -> RowResult | None:
    """Do what `on_delete` says. None: the row has changed meanwhile, or FHIR has."""
    entity = job.entity
    row = await row_lookup.find_row(removal.dataverse, job)
    if row is None:
        # Whoever is creating it reads this afterwards; or has done so before it was recorded.
        await removal.deletions.record(job.reference, deletion)
        row = await row_lookup.find_row(removal.dataverse, job)
    if row is None:
        return job.build_result("absent")
    key, etag = row[entity.key], row["@odata.etag"]
    was_shown = row.get(entity.version_column) is not None
    if removal.needs_version and deletion == NEVER_SEEN and not was_shown:
        return job.build_result("absent", notes=(NO_RESOURCE,))
    if removal.on_delete == "leave" or _is_removed(removal.on_delete, entity, deletion, row):
        return job.build_result("unchanged", row=key)
    if not await removal.is_current(job, deletion, row):
        return None
    if removal.on_delete == "delete":
        # No row is left to show it.
        await removal.deletions.record(job.reference, deletion)
        changes = [
            *await _plan_child_deletions(removal.dataverse, job, key),
            Change(method="DELETE", entity_set=entity.entity_set, key=key, etag=etag),
        ]
    else:
        changes = [
            Change(
                method="PATCH",
                entity_set=entity.entity_set,
                key=key,
                # A deletion has its place among the versions: what it crosses cannot undo it.
                columns={
                    **INACTIVE,
                    **build_deletion_mark(entity, deletion, job.tables[entity.table]),
                },
                etag=etag,
            )
        ]
    result = await removal.dataverse.apply_changes(changes, job.item.delivery)
    if result.status < 400:
        action = "deleted" if removal.on_delete == "delete" else "deactivated"
        return job.build_result(action, row=key)
    if read_meaning(result.response) in (Meaning.GONE, Meaning.CHANGED):
        return None
    return job.build_result("refused", notes=(describe_failure(result.response),))


def _is_removed(on_delete: str, entity: EntityMap, deletion: StateVersion, row: Row) -> bool:
    """Whether the row is inactive and shows this deletion."""
    is_inactive = row.get("statecode") == INACTIVE["statecode"]
    is_marked = compare_with_row(entity, deletion, row) is Order.SAME
    return on_delete == "deactivate" and is_inactive and is_marked


async def _plan_child_deletions(dataverse: Dataverse, job: MirrorJob, key: str) -> list[Change]:
    children = await row_lookup.find_children(dataverse, job, key)
    return [
        Change(method="DELETE", entity_set=expand.entity_set, key=child[expand.key])
        for expand, rows in zip(job.entity.expands, children, strict=True)
        for child in rows
    ]
