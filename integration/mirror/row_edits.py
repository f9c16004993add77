"""What somebody has changed in a row since the mirror wrote it, and what becomes of it.

Nothing is stored for this. A row says which version of its resource it shows, and FHIR keeps the
versions, so three states are compared, column by column: what the map makes of that version, the
row, and what the map makes of the resource as it is now. Where the row differs from the first,
somebody has changed it. Where FHIR has not changed since, the edit is for FHIR; where it has, the
rule of the column decides.

A row that this app wrote last has no edits, so its own writes end here by themselves.
docs/decisions/0047-an-edit-is-a-difference-of-three.md
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from integration.core.errors import Unavailable, Unmappable
from integration.core.model import Column, Columns, FhirResource, Row
from integration.core.state_version import ATTEMPTS_UNTIL_BELIEVED, get_version
from integration.dataverse.client import Dataverse
from integration.dataverse.requests import FORMATTED
from integration.edits.signed_write import Author
from integration.fhir.client import FhirServer
from integration.mapping import engine
from integration.mapping.model import Absent, AttributeMap, Conflict, EntityMap, Kind, MappedRows
from integration.mapping.row_version import read_row_version
from integration.mapping.write_back.row_changes import AppliedEdits
from integration.mirror.row_diff import MERGED, get_column_value, is_same, list_differences
from integration.mirror.row_sink import MirrorJob

# Who wrote a row last, and for whom: under IMPERSONATE the first is the person.
# https://learn.microsoft.com/power-apps/developer/data-platform/impersonate-another-user
AUTHORS = ("modifiedby", "modifiedonbehalfby")

# The state of a row follows `active`, whoever has changed it.
_HIDDEN = frozenset({"statecode", "statuscode"})

# A row shows these as keys of other rows.
_UNCOMPARED = (Kind.MAP, Kind.LOOKUP, Kind.CONCEPT)

_NOBODY = Author(id="")

# Finds the map of a resource type that had this digest; None: it is not known any more.
FindFormerMap = Callable[[str, str], Awaitable[EntityMap | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowEdits:
    """What somebody has changed in a row. `written`: values of columns for FHIR. `replaced`:
    columns that the mirror writes over; `held`: those that FHIR has changed as well and whose rule
    is to wait. `author`: who wrote the row last. `notes`: why something could not be written."""

    written: Mapping[str, Any] = field(default_factory=dict)
    replaced: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    author: Author = _NOBODY
    notes: tuple[str, ...] = ()

    @property
    def any(self) -> bool:
        """Whether there are edits."""
        return bool(self.written or self.replaced or self.held)

    def record_applied(self, applied: AppliedEdits) -> RowEdits:
        """Return them with those replaced that cannot be written to the resource."""
        notes = [f"{name}: not written to FHIR: {why}" for name, why in applied.refused.items()]
        return replace(
            self,
            written={name: self.written[name] for name in applied.columns},
            replaced=(*self.replaced, *applied.refused),
            notes=(*self.notes, *notes),
        )

    def record_refused(self, why: str) -> RowEdits:
        """Return them with all replaced, since the FHIR server does not take them."""
        names = ", ".join(sorted(self.written))
        return replace(
            self,
            written={},
            replaced=(*self.replaced, *self.written),
            notes=(*self.notes, f"{names}: not written to FHIR: {why}"),
        )


NO_EDITS = RowEdits()


async def find_edits(
    fhir: FhirServer,
    dataverse: Dataverse,
    job: MirrorJob,
    *,
    row: Row,
    resource: FhirResource,
    mapped: MappedRows,
    find_former_map: FindFormerMap | None,
    today: date,
) -> RowEdits:
    """Return the edits of a row. Lookups are left out. `resource`, `mapped`: as they are now.
    `find_former_map`: None where nothing is written back: every edit is replaced.

    Raises Unavailable when a service does not answer, or does not show the row's version yet.
    """
    entity, columns = job.entity, job.tables[job.entity.table]
    hidden = {entity.key, *entity.version_columns, entity.map_column, *_HIDDEN}
    names = [name for name in mapped.values if name in columns and name not in hidden]
    differing = list(list_differences(mapped.values, row, names))
    authors = [str(author) for name in AUTHORS if (author := row.get(f"_{name}_value"))]
    if not differing or not authors or await dataverse.get_user_id() in authors:
        return NO_EDITS
    writes_back = job.writes_back and find_former_map is not None and not row.get(MERGED)
    former, digest = entity, row.get(entity.map_column or "")
    if writes_back and find_former_map is not None and digest not in (None, entity.digest):
        found = await find_former_map(entity.resource, str(digest))
        if found is None:  # nobody can tell an edit from what another map has made
            return RowEdits(replaced=tuple(differing))
        former = found
    base = await _map_shown_version(
        fhir, job, former, row=row, resource=resource, today=today, is_sought=writes_back
    )
    if base is None:
        return RowEdits(replaced=tuple(differing)) if writes_back else NO_EDITS
    edits = compare_edits(
        entity, base.values, mapped.values, row, columns=columns, writes_back=writes_back
    )
    return replace(edits, author=find_author(row))


def find_author(row: Row) -> Author:
    """Return who wrote a row last."""
    id_ = next((str(row[key]) for name in AUTHORS if row.get(key := f"_{name}_value")), "")
    name = row.get(f"_{AUTHORS[0]}_value@{FORMATTED}")
    return Author(id=id_, name=str(name) if name else "")


async def _map_shown_version(
    fhir: FhirServer,
    job: MirrorJob,
    entity: EntityMap,
    *,
    row: Row,
    resource: FhirResource,
    today: date,
    is_sought: bool,
) -> MappedRows | None:
    """Return what a map makes of the version that the row shows; None where nobody can tell.
    `is_sought`: what is not there is asked for again, since the server may read from a copy that
    lags."""
    shown = read_row_version(job.entity, row)
    if shown is None or shown.id is None or shown.is_deleted:
        return None
    version: FhirResource | None = resource
    if shown.id != get_version(resource).id:
        version = await fhir.read_version(job.reference, shown.id, job.item.delivery)
        if version is None and is_sought and job.item.attempt < ATTEMPTS_UNTIL_BELIEVED:
            raise Unavailable(
                fhir.upstream.name,
                "the version that the row shows is not in the history yet: the server may have "
                "read from a copy that lags",
            )
    if version is None:
        return None
    try:
        return engine.map_resource(entity, version, job.tables, fhir.upstream.base, today=today)
    except (Unmappable, KeyError):  # a column of a former map may be gone
        return None


def compare_edits(
    entity: EntityMap,
    base: Mapping[str, Any],
    now: Mapping[str, Any],
    row: Row,
    *,
    columns: Columns,
    writes_back: bool,
) -> RowEdits:
    """Compare what the map makes of the version that the row shows, what it makes of the resource
    as it is now, and the row. Pure."""
    written: dict[str, Any] = {}
    replaced, held = [], []
    for attribute in entity.attributes:
        name = attribute.column
        if name not in columns or name in _HIDDEN or attribute.kind in _UNCOMPARED:
            continue
        was, is_ = base.get(name), now.get(name)
        current = get_column_value(row, name)
        if is_same(was, current) or is_same(is_, current):
            continue  # nobody has changed it, or FHIR has been changed alike
        is_writable = writes_back and attribute.writeback and is_exact(attribute, columns[name])
        is_kept = attribute.absent is Absent.KEEP and name not in now
        if is_writable and (is_same(was, is_) or attribute.conflict is Conflict.DATAVERSE):
            written[name] = current
        elif is_writable and attribute.conflict is Conflict.HOLD:
            held.append(name)
        elif not is_kept:  # else the mirror leaves it alone
            replaced.append(name)
    return RowEdits(written=written, replaced=tuple(replaced), held=tuple(held))


def is_exact(attribute: AttributeMap, column: Column) -> bool:
    """Whether a value of the column is the same for every reader: a day in a column that shows each
    reader's own time is another day for some.
    https://learn.microsoft.com/power-apps/developer/data-platform/behavior-format-date-time-attribute
    """
    return attribute.kind is not Kind.DATE or column.behavior != "UserLocal"


def describe_replaced(columns: Iterable[str]) -> tuple[str, ...]:
    """Return the remark on columns whose edits the mirror has written over; none for none."""
    names = ", ".join(sorted(columns))
    return (f"replaced what somebody has changed in Dataverse: {names}",) if names else ()


def describe_written(columns: Iterable[str]) -> tuple[str, ...]:
    """Return the remark on columns whose edits were written to FHIR; none for none."""
    names = ", ".join(sorted(columns))
    return (f"written to FHIR, as somebody has changed it in Dataverse: {names}",) if names else ()


def describe_held(columns: Iterable[str]) -> str:
    """Say why a row is left as it is, and what ends that."""
    return (
        f"{', '.join(sorted(columns))}: somebody has changed it in Dataverse, and FHIR has another "
        "value since: the row waits. Make the two agree, on either side, and mirror it again"
    )
