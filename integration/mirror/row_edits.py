"""What somebody has changed in a row since the mirror wrote it, and what becomes of it.

Nothing is stored for this but a stamp in the row. The row says which version of its resource it
shows, and FHIR keeps the versions, so three states are compared, column by column: what the mirror
has written into the row, the row, and what the map makes of the resource as it is now. The first is
that version, mapped as the stamp says; where the stamp does not prove it, nobody can tell. Where
the row differs from the first, somebody has changed it. Where FHIR has not changed since, the edit
is for FHIR; where it has, the rule of the column decides.

A row that this app wrote last has no edits, so its own writes end here by themselves.
docs/decisions/0047-an-edit-is-a-difference-of-three.md
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from integration.core.errors import Unavailable, Unmappable
from integration.core.model import Column, Columns, FhirResource, Row, RowResult
from integration.core.state_version import ATTEMPTS_UNTIL_BELIEVED, get_version
from integration.dataverse.client import Dataverse
from integration.dataverse.requests import FORMATTED
from integration.edits.signed_write import Author
from integration.fhir import write_mark
from integration.fhir.client import FhirServer
from integration.mapping import engine, row_stamp
from integration.mapping.map_changes import find_map_changes
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
    is to wait. `is_unknown`: nobody can tell whether what is replaced was changed. `author`: who
    wrote the row last. `notes`: why something could not be written."""

    written: Mapping[str, Any] = field(default_factory=dict)
    replaced: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    author: Author = _NOBODY
    notes: tuple[str, ...] = ()
    is_unknown: bool = False

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
    if job.writes_back and differing and read_row_version(entity, row) is None:
        return RowEdits(replaced=tuple(differing), is_unknown=True)
    if not differing or not authors or await dataverse.get_user_id() in authors:
        return NO_EDITS
    look = _Look(fhir=fhir, job=job, row=row, resource=resource, today=today)
    if not job.writes_back or find_former_map is None or row.get(MERGED):
        shown = await _read_shown_version(look, is_sought=False)
        base = None if shown is None else _map(look, entity, shown, today)
        if base is None:
            return NO_EDITS
        return compare_edits(entity, base, mapped.values, row, columns=columns, writes_back=False)
    base = await _map_as_stamped(look, find_former_map)
    if base is None:
        return RowEdits(replaced=tuple(differing), is_unknown=True)
    written_before = await _find_written_before(look, mapped.values)
    base = {**base, **{name: mapped.values.get(name) for name in written_before}}
    edits = compare_edits(entity, base, mapped.values, row, columns=columns, writes_back=True)
    return replace(edits, author=find_author(row))


def find_author(row: Row) -> Author:
    """Return who wrote a row last."""
    id_ = next((str(row[key]) for name in AUTHORS if row.get(key := f"_{name}_value")), "")
    name = row.get(f"_{AUTHORS[0]}_value@{FORMATTED}")
    return Author(id=id_, name=str(name) if name else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """A row, and the resource as it is now."""

    fhir: FhirServer
    job: MirrorJob
    row: Row
    resource: FhirResource
    today: date


async def _map_as_stamped(look: _Look, find_former_map: FindFormerMap) -> Mapping[str, Any] | None:
    """Return what the mirror has written into the row, as its stamp proves; None: nobody can
    tell."""
    entity, columns = look.job.entity, look.job.tables[look.job.entity.table]
    stamp = row_stamp.parse_stamp(look.row.get(entity.map_column or ""))
    if stamp is None:
        return None
    former: EntityMap | None = entity
    if stamp.map_digest != entity.digest:
        former = await find_former_map(entity.resource, stamp.map_digest)
    shown = await _read_shown_version(look, is_sought=True)
    if former is None or shown is None:
        return None
    if not row_stamp.is_made_of(stamp, former, shown, columns):
        return None  # of another resource, another server, or with other columns
    base = _map(look, former, shown, stamp.day)
    if base is None or former is entity:
        return base
    # What was typed under one map is of the element that its column showed then.
    changed = {item.column for item in find_map_changes(former, entity).reduced.attributes}
    return {name: value for name, value in base.items() if name not in changed}


async def _read_shown_version(look: _Look, *, is_sought: bool) -> FhirResource | None:
    """Return the version that the row shows; None: it shows none, or the server has it no more.
    `is_sought`: what is not there is asked for again, since the server may read from a copy that
    lags."""
    shown, fhir, item = read_row_version(look.job.entity, look.row), look.fhir, look.job.item
    if shown is None or shown.id is None or shown.is_deleted:
        return None
    if shown.id == get_version(look.resource).id:
        return look.resource
    version = await fhir.read_version(look.job.reference, shown.id, item.delivery)
    if version is None and is_sought and item.attempt < ATTEMPTS_UNTIL_BELIEVED:
        raise Unavailable(
            fhir.upstream.name,
            "the version that the row shows is not in the history yet: the server may have read "
            "from a copy that lags",
        )
    return version


async def _find_written_before(look: _Look, now: Mapping[str, Any]) -> set[str]:
    """Return the columns whose edits an earlier attempt has just written to FHIR, and has not come
    to show in the row: whatever the row has by now is a newer edit, or takes the first one back."""
    entity, correlation = look.job.entity, look.job.item.delivery
    replaced, shown = write_mark.read_edited_version(look.resource), look.row
    if replaced is None or shown.get(entity.version_column) == get_version(look.resource).id:
        return set()
    versions = await look.fhir.list_versions(look.job.reference, correlation, 2)
    if len(versions) < 2 or versions[1].id != replaced:
        return set()  # somebody has written it since, and has kept what the edit left
    before = await look.fhir.read_version(look.job.reference, replaced, correlation)
    earlier = None if before is None else _map(look, entity, before, look.today)
    if earlier is None:
        return set()
    return {name for name, value in now.items() if not is_same(earlier.get(name), value)}


def _map(
    look: _Look, entity: EntityMap, resource: FhirResource, day: date
) -> Mapping[str, Any] | None:
    try:
        base = look.fhir.upstream.base
        return engine.map_resource(entity, resource, look.job.tables, base, today=day).values
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
        is_writable = is_writable and name in base  # else nobody knows what stood there
        is_kept = attribute.absent is Absent.KEEP and name not in now
        if is_writable and (is_same(was, is_) or attribute.conflict is Conflict.DATAVERSE):
            written[name] = current
        elif is_writable and attribute.conflict is Conflict.HOLD:
            held.append(name)
        elif not is_kept:  # else the mirror leaves it alone
            replaced.append(name)
    return RowEdits(written=written, replaced=tuple(replaced), held=tuple(held))


def is_exact(attribute: AttributeMap, column: Column) -> bool:
    """Whether this app sees the value that others see: a day in a column that shows each reader's
    own time is another day for some, and a secured column looks empty to who may not read it.
    https://learn.microsoft.com/power-apps/developer/data-platform/behavior-format-date-time-attribute
    """
    is_same_day = attribute.kind is not Kind.DATE or column.behavior != "UserLocal"
    return is_same_day and not column.secured


def describe_edits(edits: RowEdits) -> tuple[str, ...]:
    """Return the remarks on what became of edits, by names of columns; none for none."""
    remarks = []
    if edits.replaced:
        what = "replaced what somebody has changed in Dataverse"
        if edits.is_unknown:
            what = "replaced, and nobody can tell whether somebody has changed it in Dataverse"
        remarks.append(f"{what}: {', '.join(sorted(edits.replaced))}")
    if edits.written:
        what = "written to FHIR, as somebody has changed it in Dataverse"
        remarks.append(f"{what}: {', '.join(sorted(edits.written))}")
    return tuple(remarks)


def build_left_result(job: MirrorJob, row: Row, edits: RowEdits) -> RowResult:
    """Return the result of a row that is left as it is, and what ends that."""
    key, shown = row[job.entity.key], row.get(job.entity.version_column)
    if edits.held:
        note = (
            f"{', '.join(sorted(edits.held))}: somebody has changed it in Dataverse, and FHIR has "
            "another value since: the row waits. Make the two agree, on either side, and mirror it "
            "again"
        )
        return job.build_result("refused", row=key, version=shown, notes=(note,))
    note = (
        "the row's stamp does not tell what the mirror has written, so nobody can tell what was "
        "changed: it shows what FHIR has at its next change, or by reconcile"
    )
    return job.build_result("unchanged", row=key, version=shown, notes=(note,))
