"""What somebody has changed in Dataverse and the mirror replaces: told by names of columns.

A row that this app wrote last shows what the map made of a version, so whatever differs now has
changed in FHIR. A row that somebody else wrote last may hold edits. Then the version that it shows
is read from the history and mapped again: where the row differs from that, somebody has changed it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from integration.core.errors import Unmappable
from integration.core.model import Row
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.mapping import engine
from integration.mapping.row_version import read_row_version
from integration.mirror import row_diff
from integration.mirror.row_diff import ChangePlan
from integration.mirror.row_sink import MirrorJob

# Who wrote a row last, and for whom: under IMPERSONATE the first is the person.
# https://learn.microsoft.com/power-apps/developer/data-platform/impersonate-another-user
AUTHORS = ("modifiedby", "modifiedonbehalfby")


async def find_replaced_edits(
    fhir: FhirServer,
    dataverse: Dataverse,
    job: MirrorJob,
    *,
    row: Row,
    plan: ChangePlan,
    today: date,
) -> tuple[str, ...]:
    """Return the columns in which `plan` replaces what somebody has changed. Lookups are left out.

    Raises Unavailable when a service does not answer.
    """
    columns = job.tables[job.entity.table]
    hidden = {*job.entity.version_columns, job.entity.map_column, "statuscode"}
    changed = [
        name
        for name in plan.changes[plan.row_position].columns or ()
        if name in columns and name not in hidden
    ]
    authors = {str(author) for name in AUTHORS if (author := row.get(f"_{name}_value"))}
    if not changed or not authors or await dataverse.get_user_id() in authors:
        return ()
    shown = read_row_version(job.entity, row)
    if shown is None or shown.id is None or shown.is_deleted:
        return ()
    base = await fhir.read_version(job.reference, shown.id, job.item.delivery)
    if base is None:
        return ()
    try:
        address = fhir.upstream.base
        mapped = engine.map_resource(job.entity, base, job.tables, address, today=today)
    except Unmappable:
        return ()
    return tuple(row_diff.list_differences(mapped.values, row, changed))


def describe_replaced_edits(columns: Iterable[str]) -> tuple[str, ...]:
    """Return the remark on these columns; none for none."""
    names = ", ".join(sorted(columns))
    return (f"replaced what somebody has changed in Dataverse: {names}",) if names else ()
