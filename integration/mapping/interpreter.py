"""Maps a FHIR resource by an entity map, one column after the other. Pure.

This is the reference of what a map means: `compiled_map` does the same in a third of the time, and
leaves to this module what it cannot do.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import partial
from typing import Any

from integration.core.errors import Unmappable
from integration.core.model import Column, Columns, Tables
from integration.mapping import row_stamp
from integration.mapping.fhirpath.evaluate import Evaluation
from integration.mapping.model import (
    Absent,
    AttributeMap,
    ChildRow,
    EntityMap,
    ExpandMap,
    Kind,
    MappedRows,
)
from integration.mapping.primary_keys import fit_fhir_id
from integration.mapping.unmapped import (
    find_missing_expected,
    find_missing_required,
    find_unmapped,
)
from integration.mapping.values import clean_text, convert_value, format_utc, parse_instant


def interpret_map(
    entity: EntityMap,
    resource: Mapping[str, Any],
    tables: Tables,
    base: str | None = None,
    *,
    today: date,
) -> MappedRows:
    """Return the rows that show `resource`: see engine.map_resource."""
    columns = tables[entity.table]
    notes: list[str] = []
    row = map_version_columns(entity, resource, columns, notes)
    evaluation = Evaluation(entity.variables, resource, notes, today=today)
    mapper = Mapper(evaluation, notes, base)
    for attribute in entity.attributes:
        if attribute.kind is Kind.MAP:
            value = build_map_value(entity, resource, columns, attribute.column, today)
        elif attribute.path is None or evaluation.is_empty(attribute.path):
            value = attribute.default
        else:
            value = mapper.map_attribute(attribute, columns[attribute.column])
        if value is not None or attribute.absent is Absent.CLEAR:
            row[attribute.column] = value
    children = [
        child
        for expand in entity.expands
        for child in mapper.map_children(expand, tables[expand.table])
    ]
    notes += find_missing_required(entity, row, columns)
    notes += find_unmapped(entity, resource, evaluation)
    notes += find_missing_expected(entity, evaluation)
    # What is noted of hundreds of children is noted once.
    return MappedRows(
        row, tuple(children), tuple(dict.fromkeys(notes)), changes_on=evaluation.changes_on
    )


def build_map_value(
    entity: EntityMap, resource: Mapping[str, Any], columns: Columns, name: str, today: date
) -> str:
    """Return the stamp; where the column is too short for it, the digest of the map alone."""
    if not row_stamp.can_hold_stamp(entity, columns):
        return entity.digest[: columns[name].max_length]
    return row_stamp.build_stamp(entity, resource, columns, today)


def map_version_columns(
    entity: EntityMap, resource: Mapping[str, Any], columns: Columns, notes: list[str]
) -> dict[str, Any]:
    """Return the values of the columns that say which version of which resource the row shows."""
    identifier = resource.get("id")
    if not isinstance(identifier, str):
        raise Unmappable("the resource has no id")
    meta = resource.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}

    def note(column: str, why: str, element: str) -> None:
        notes.append(f"{column}: {why} @ meta.{element} ({entity.file})")

    column, version, updated = entity.version_column, meta.get("versionId"), None
    if version is not None:
        # A row without its version is mirrored each time; one with half of it, never again.
        version = clean_text(
            version,
            columns[column].max_length,
            cut=False,
            note=lambda why: note(column, why, "versionId"),
        )
    if meta.get("lastUpdated") is not None:
        try:
            updated = format_utc(parse_instant(meta["lastUpdated"]))
        except Unmappable as problem:
            note(entity.updated_column, problem.why, "lastUpdated")
    return {
        entity.id_column: fit_fhir_id(entity, identifier, columns),
        entity.version_column: version,
        entity.updated_column: updated,
    }


def format_attribute_note(attribute: AttributeMap, prefix: str, why: str) -> str:
    """Return the note of a column. `prefix`: the child's table, where it is one of a child."""
    line = f" ({attribute.defined_at})" if attribute.defined_at else ""
    return f"{prefix}{attribute.column}: {why} @ {attribute.path}{line}"


def format_children_note(expand: ExpandMap, why: str) -> str:
    """Return the note of an item that has become no row."""
    line = f" ({expand.defined_at})" if expand.defined_at else ""
    return f"{expand.table}: {why} @ {expand.path}{line}"


class Mapper:
    """Maps the attributes and children of one resource, and notes what does not fit."""

    def __init__(self, evaluation: Evaluation, notes: list[str], base: str | None) -> None:
        self._evaluation = evaluation
        self._notes = notes
        self._base = base

    def map_attribute(
        self, attribute: AttributeMap, column: Column, item: Any = None, prefix: str = ""
    ) -> Any:
        """Return the value of one column. With `item`, the column is one of a child's row, and its
        path starts at that node; `prefix` is the child's table in notes."""
        if attribute.path is None:
            return attribute.default
        note = partial(self._note_attribute, attribute, prefix)
        try:
            values = self._evaluation.find_values(attribute.path, item)
            if len(values) > 1:
                note("more than one value; the first was taken")
            if values:
                return convert_value(attribute, values[0], column, note, self._base)
            if item is None and self._evaluation.has_only_extensions(attribute.path):
                note("no value, only extensions")
        except Unmappable as problem:
            note(problem.why)
        return attribute.default

    def map_children(self, expand: ExpandMap, columns: Columns) -> list[ChildRow]:
        """Return the child rows. Rows that lack a required column, or that cannot be told from
        another one by the map's `match`, are left out."""
        try:
            items = self._evaluation.find_nodes(expand.path)
        except Unmappable as problem:
            self._note_children(expand, problem.why)
            return []
        prefix = f"{expand.table}."
        children: dict[tuple[Any, ...], ChildRow] = {}
        for item in items:
            row = {
                attribute.column: self.map_attribute(
                    attribute, columns[attribute.column], item, prefix
                )
                for attribute in expand.attributes
            }
            missing = [name for name in row if row[name] is None and columns[name].required]
            key = tuple(row[name] for name in expand.match)
            if missing:
                self._note_children(expand, f"a row without {', '.join(missing)} was left out")
            elif all(part is None for part in key):
                self._note_children(expand, f"a row without {', '.join(expand.match)} was left out")
            elif key in children:
                self._note_children(
                    expand, "more than one item has the same key; the first was taken"
                )
            else:
                children[key] = ChildRow(expand, row)
        return list(children.values())

    def _note_attribute(self, attribute: AttributeMap, prefix: str, why: str) -> None:
        self._notes.append(format_attribute_note(attribute, prefix, why))

    def _note_children(self, expand: ExpandMap, why: str) -> None:
        self._notes.append(format_children_note(expand, why))
