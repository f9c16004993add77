"""Compare all that a resource's rows show with what FHIR has: columns, state, children, lookups,
and whose row it is. Pure.

What is to be written is decided by `mirror.row_diff`, as the mirror itself decides it, so the two
cannot disagree. A difference is told by names of columns, never by values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from integration.core.errors import Unmappable
from integration.core.model import Columns, FhirResource, Row, Tables
from integration.dataverse.requests import Change
from integration.mapping import row_stamp, row_version
from integration.mapping.model import EntityMap, LongId, MappedRows
from integration.mapping.primary_keys import ServerKeys
from integration.mirror import row_diff, row_lookup
from integration.mirror.row_diff import ExistingRows, Target
from integration.mirror.row_edits import AUTHORS
from integration.reconcile.differences import (
    ID,
    Difference,
    DifferenceKind,
    Why,
    build_difference,
)

# https://learn.microsoft.com/power-apps/developer/data-platform/reference/entities/contact
_DEACTIVATE = {"statecode": 1, "statuscode": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """What a comparison has to know of the organisation. `targets`: by resource type."""

    tables: Tables
    targets: Mapping[str, Target]
    server_keys: ServerKeys
    app_user: str = ""  # the id of this app's user
    stamps_rows: bool = False  # a row whose stamp proves nothing gets another one


@dataclass(frozen=True, slots=True)
class Subject:
    """A resource, the rows that it should have, and the rows of its table that may show it."""

    resource: FhirResource
    mapped: MappedRows
    candidates: Sequence[Row]


def find_row(
    entity: EntityMap, subject: Subject, server_keys: ServerKeys
) -> Row | Difference | None:
    """Return the row that shows the resource, None if there is none, or what is wrong with whose
    row it is."""
    id_ = str(subject.resource["id"])
    keyed = _find_keyed_row(entity, server_keys, subject)
    if keyed is not None and not entity.has_kind_of(keyed):
        # Whether it is a patient or a practitioner is for a person to say.
        columns = (str(entity.kind_column),)
        return _build(entity, subject, DifferenceKind.ANOTHER, keyed, columns, is_repairable=False)
    if keyed is not None and keyed[entity.id_column] not in (None, _get_row_id(entity, subject)):
        return _plan_return(entity, subject, keyed)
    try:
        return row_lookup.pick_row(entity, server_keys, id_, subject.candidates)
    except Unmappable:
        return _plan_deactivation(entity, subject, server_keys)


def compare_content(
    entity: EntityMap,
    subject: Subject,
    existing: ExistingRows,
    organization: Organization,
    *,
    fhir_is_right: bool = False,
) -> Difference | None:
    """Return how the rows differ from the resource; None if they show it as it is."""
    row = existing.row
    try:
        if row is not None and _is_ahead(entity, subject, row, fhir_is_right=fhir_is_right):
            shown = (entity.version_column,)
            return _build(entity, subject, DifferenceKind.AHEAD, row, shown, is_repairable=False)
    except Unmappable:  # a time that cannot be parsed: the mirror decides, and records why
        return _build(entity, subject, DifferenceKind.BEHIND, row, (entity.updated_column,))
    plan = row_diff.plan_changes(
        entity,
        organization.server_keys.derive(entity.resource, str(subject.resource["id"])),
        subject.mapped,
        existing,
        targets=organization.targets,
        tables=organization.tables,
        is_stamped=not organization.stamps_rows
        or row_stamp.is_stamp_good(entity, subject.resource, row, organization.tables),
    )
    if not plan.changes:
        return None
    if row is None:
        return _build(entity, subject, DifferenceKind.MISSING)
    columns = tuple(
        dict.fromkeys(
            name
            for change in plan.changes
            for name in _name_differences(entity, change, existing, organization.tables)
        )
    )
    is_stamp_alone = not columns and entity.map_column is not None
    if is_stamp_alone:
        columns = (str(entity.map_column),)
    is_behind = entity.version_column in columns
    kind = DifferenceKind.BEHIND if is_behind else DifferenceKind.DIFFERENT
    difference = _build(entity, subject, kind, row, columns)
    why = _find_why(entity, columns, row, organization.app_user, kind)
    why = Why.MAP if is_stamp_alone else why
    return replace(difference, why=why)


def _find_why(
    entity: EntityMap, columns: Sequence[str], row: Row, app_user: str, kind: DifferenceKind
) -> Why:
    """Return what has changed since the row was right. A row that says which map has written it
    tells whether that has changed; else who wrote it last tells whether it was edited, and that of
    child rows is not told by their parent."""
    if kind is DifferenceKind.BEHIND:
        return Why.FHIR
    made_by = row_stamp.read_map_digest(row.get(entity.map_column or ""))
    if made_by not in (None, entity.digest):
        return Why.MAP
    if all("." in name or ":" in name for name in columns):
        return Why.CHILDREN
    authors = {row.get(f"_{name}_value") for name in AUTHORS} - {None}
    return Why.EDITED if authors and app_user not in authors else Why.MAP


def _is_ahead(entity: EntityMap, subject: Subject, row: Row, *, fhir_is_right: bool) -> bool:
    """Whether the row shows a later version than FHIR has: the mirror writes no earlier one."""
    if row[entity.version_column] == subject.resource.get("meta", {}).get("versionId"):
        return False
    return not row_version.is_newer(entity, subject.resource, row, fhir_is_right=fhir_is_right)


def _build(
    entity: EntityMap,
    subject: Subject,
    kind: DifferenceKind,
    row: Row | None = None,
    columns: tuple[str, ...] = (),
    *,
    is_repairable: bool = True,
) -> Difference:
    return build_difference(
        entity, subject.resource, kind, row, columns=columns, is_repairable=is_repairable
    )


# -- whose row it is ------------------------------------------------------------------------------


def _find_keyed_row(entity: EntityMap, server_keys: ServerKeys, subject: Subject) -> Row | None:
    """Return the row with a key that follows from the resource's id, whatever it shows."""
    by_key = {row[entity.key]: row for row in subject.candidates}
    keys = server_keys.list_own(entity.resource, str(subject.resource["id"]))
    return next((by_key[key] for key in keys if key in by_key), None)


def _get_row_id(entity: EntityMap, subject: Subject) -> str:
    return str(subject.mapped.values[entity.id_column])


def _plan_return(entity: EntityMap, subject: Subject, row: Row) -> Difference:
    """Plan to give a row back to the resource that its key follows from: virtual tables find the
    resource by that key. The version is cleared, so that the mirror writes all of it; what the row
    shows now gets a row of its own."""
    change = Change(
        method="PATCH",
        entity_set=entity.entity_set,
        key=str(row[entity.key]),
        columns={
            entity.id_column: _get_row_id(entity, subject),
            entity.version_column: None,
            entity.updated_column: None,
        },
        etag=row["@odata.etag"],
    )
    difference = _build(entity, subject, DifferenceKind.ANOTHER, row, (entity.id_column,))
    shown = str(row[entity.id_column])
    is_known = bool(ID.fullmatch(shown)) and entity.long_id is not LongId.DIGEST
    also = f"{entity.resource}/{shown}" if is_known else None
    return replace(difference, steps=(change,), also=also)


def _plan_deactivation(entity: EntityMap, subject: Subject, server_keys: ServerKeys) -> Difference:
    """Plan to deactivate the rows that show the resource beside the one with its key, and to let
    go of its id: an alternate key may allow it once. Without a row that has the key nothing is
    planned: the mirror says that a person has to merge them."""
    difference = _build(entity, subject, DifferenceKind.TWICE, None, (entity.id_column,))
    keyed = _find_keyed_row(entity, server_keys, subject)
    if keyed is None:
        return difference
    surplus = (
        Change(
            method="PATCH",
            entity_set=entity.entity_set,
            key=str(row[entity.key]),
            columns={**_DEACTIVATE, **dict.fromkeys(entity.version_columns)},
            etag=row["@odata.etag"],
        )
        for row in row_lookup.find_shown(
            entity, server_keys, str(subject.resource["id"]), subject.candidates
        )
        if row is not keyed
    )
    return replace(difference, row=str(keyed[entity.key]), steps=tuple(surplus))


# -- names of what differs ------------------------------------------------------------------------


def _name_differences(
    entity: EntityMap, change: Change, existing: ExistingRows, tables: Tables
) -> Iterator[str]:
    """Name what a planned change would alter: `column`, `table.column`, `table: too few`, `table:
    too many`. A row of the codeable concepts goes with the lookup of it."""
    row = existing.row or {}
    if change.entity_set == entity.entity_set and change.key == row.get(entity.key):
        for name in _name_columns(change, tables[entity.table]):
            # A change of children writes the version again, as it is.
            is_same = name == entity.version_column and (change.columns or {})[name] == row[name]
            if not is_same and name != entity.map_column:
                yield name
        return
    for position, expand in enumerate(entity.expands):
        if change.entity_set != expand.entity_set:
            continue
        keys = {child[expand.key] for child in existing.children.get(position, ())}
        if change.method == "DELETE":
            yield f"{expand.table}: too many"
        elif change.key not in keys:
            yield f"{expand.table}: too few"
        else:
            columns = tables[expand.table]
            yield from (f"{expand.table}.{name}" for name in _name_columns(change, columns))
        return


def _name_columns(change: Change, columns: Columns) -> Iterator[str]:
    """Name the columns of a change: a lookup is written by its navigation property."""
    names = change.columns or {}
    lookups = {}
    if any(name.endswith("@odata.bind") for name in names):  # a table has hundreds of columns
        lookups = {
            f"{navigation}@odata.bind": column.name
            for column in columns.values()
            for navigation in (column.targets or {}).values()
        }
    for name in names:
        yield lookups.get(name, name)
