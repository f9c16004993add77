"""Writes to FHIR what somebody has changed in a row, before the row is brought up to date."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

from integration.core.activity_recorder import ActivityRecorder, get_activity_context
from integration.core.errors import Rejected
from integration.core.model import Category, FhirResource
from integration.core.state_version import get_version
from integration.edits.guarded_write import check_valid
from integration.edits.signed_write import EditWriter, write_signed
from integration.fhir.client import CurrentState
from integration.mapping.write_back.row_changes import apply_edits
from integration.mirror.row_edits import FindFormerMap, RowEdits, describe_edits
from integration.mirror.row_sink import MirrorJob


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteBack:
    """What writing edits of rows to FHIR needs. `find_former_map`: see row_edits. `makes_new`:
    resources are made of new rows."""

    writer: EditWriter
    find_former_map: FindFormerMap
    makes_new: bool = False


async def write_edits(
    write_back: WriteBack, job: MirrorJob, resource: FhirResource, edits: RowEdits, *, today: date
) -> tuple[CurrentState, RowEdits] | None:
    """Write the edits to the resource. Return it as it is then, and what became of the edits: what
    cannot be written is replaced, and noted. None: FHIR has changed meanwhile.

    Raises Unavailable and Misconfigured. If an answer is lost, the next attempt finds the edit in
    FHIR, or FHIR as it was.
    """
    fhir = write_back.writer.fhir
    before = CurrentState(resource, get_version(resource))
    applied = apply_edits(
        job.entity,
        resource,
        edits.written,
        job.tables[job.entity.table],
        fhir.upstream.base,
        today=today,
        check_valid=check_valid,
    )
    edits = edits.record_applied(applied)
    if applied.resource is resource:
        return before, edits
    try:
        stored = await write_signed(write_back.writer, resource, applied.resource, edits.author)
    except Rejected as error:
        return before, edits.record_refused(str(error))
    if stored is None:
        return None
    if stored.resource is not None:
        return CurrentState(stored.resource, stored.version), edits
    return await fhir.read_current(replace(job.item, version=stored.version)), edits


async def record_edits(activities: ActivityRecorder, job: MirrorJob, edits: RowEdits) -> None:
    """Record in the activity log what becomes of edits, before the row is written: should that
    answer be lost or the worker end, the next attempt finds its own row, and no edit. Raises
    Unavailable where the log cannot be written."""
    remarks = (*describe_edits(edits), *edits.notes)
    if not remarks:
        return
    category = Category.WARNING if edits.replaced else Category.INFORMATION
    context = replace(
        get_activity_context(), resource=job.reference, table=job.entity.table, action="compare"
    )
    await activities.record_now(category, "Dataverse", "edited", context, notes=remarks)
