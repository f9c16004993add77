"""From a FHIR resource to its row and the rows of its children, by an entity map. Pure.

A value that does not fit its column is handled by rule and noted; it never costs the row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from integration.core.errors import Unmappable
from integration.core.model import Column
from integration.mapping.fhirpath.evaluate import Evaluation
from integration.mapping.keys import fit_fhir_id
from integration.mapping.model import (
    AttributeMap,
    ChildRow,
    EntityMap,
    ExpandMap,
    MappedRows,
)
from integration.mapping.unmapped import missing_required, unmapped
from integration.mapping.values import fitted, instant, text, utc

Columns = Mapping[str, Column]

_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2}))?")


def map_resource(
    entity: EntityMap,
    resource: Mapping[str, Any],
    tables: Mapping[str, Columns],
    base: str | None = None,
) -> MappedRows:
    """The rows that show `resource`: every mapped column, None where FHIR has nothing.

    `tables` are those of `entity.tables`; `base` is the address of the FHIR server, whose own
    resources a reference may name in full. Raises Unmappable when the row could not be found
    again, because its id does not fit.
    """
    columns = tables[entity.table]
    notes: list[str] = []
    row = _bookkeeping(entity, resource, columns, notes)
    evaluation = Evaluation(entity.variables, resource, notes)
    for attribute in entity.attributes:
        if attribute.path is None or evaluation.is_empty(attribute.path):
            row[attribute.column] = attribute.default
            continue
        found = _value(attribute, columns[attribute.column], evaluation, None, "", notes, base)
        row[attribute.column] = found
    children = [
        child
        for expand in entity.expands
        for child in _children(expand, tables[expand.table], evaluation, notes, base)
    ]
    notes += missing_required(entity, row, columns)
    notes += unmapped(entity, resource, evaluation)
    # The same for hundreds of children is said once.
    return MappedRows(row, tuple(children), tuple(dict.fromkeys(notes)))


def is_newer(entity: EntityMap, resource: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether `resource` is a later state than the one that `row` shows.

    Versions of the FHIR service are whole numbers that grow; where a server has other versions,
    the time of the last update decides.
    """
    meta = resource.get("meta", {})
    version, shown = meta.get("versionId"), row.get(entity.version_column)
    if shown is None:
        return True
    if str(version).isdigit() and str(shown).isdigit():
        return int(version) > int(shown)
    updated, last = meta.get("lastUpdated"), row.get(entity.updated_column)
    if updated is None or last is None:
        return bool(version != shown)
    # Dataverse keeps whole seconds.
    later = instant(updated).replace(microsecond=0) - instant(last).replace(microsecond=0)
    return later.total_seconds() > 0 or (later.total_seconds() == 0 and version != shown)


def is_datetime_text(value: str) -> bool:
    """Whether a column of days or moments would show this text."""
    return _MOMENT.fullmatch(value) is not None


def is_same_datetime(one: str, other: str) -> bool:
    """Whether two such texts say the same, whichever way their time zones are written."""
    try:
        return instant(one) == instant(other)
    except Unmappable:
        return one == other


def _bookkeeping(
    entity: EntityMap, resource: Mapping[str, Any], columns: Columns, notes: list[str]
) -> dict[str, Any]:
    identifier = resource.get("id")
    if not isinstance(identifier, str):
        raise Unmappable("the resource has no id")
    meta = resource.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}

    def note(column: str, why: str, element: str) -> None:
        notes.append(f"{column}: {why} @ meta.{element} ({entity.file})")

    column, version, updated = entity.version_column, meta.get("versionId"), None
    if version is not None:
        longest = columns[column].max_length
        # Without its version a row is brought up to date each time; with half of it, never.
        version = text(version, longest, False, lambda why: note(column, why, "versionId"))
    if meta.get("lastUpdated") is not None:
        try:
            updated = utc(instant(meta["lastUpdated"]))
        except Unmappable as problem:
            note(entity.updated_column, problem.why, "lastUpdated")
    return {
        entity.id_column: fit_fhir_id(entity, identifier, columns),
        entity.version_column: version,
        entity.updated_column: updated,
    }


def _value(
    attribute: AttributeMap,
    column: Column,
    evaluation: Evaluation,
    focus: Any,
    table: str,
    notes: list[str],
    base: str | None,
) -> Any:
    """One column of a row; of a child's row where `focus` is an item of the resource."""
    if attribute.path is None:
        return attribute.default
    note = partial(_note, attribute, table, notes)
    try:
        found = evaluation.values(attribute.path, focus)
        if len(found) > 1:
            note("more than one value, the first taken")
        if found:
            return fitted(attribute, found[0], column, note, base)
        if focus is None and evaluation.says_only_why(attribute.path):
            note("no value, only extensions")
    except Unmappable as problem:
        note(problem.why)
    return attribute.default


def _note(attribute: AttributeMap, table: str, notes: list[str], why: str) -> None:
    where = f" ({attribute.defined_at})" if attribute.defined_at else ""
    notes.append(f"{table}{attribute.column}: {why} @ {attribute.path}{where}")


def _children(
    expand: ExpandMap,
    columns: Columns,
    evaluation: Evaluation,
    notes: list[str],
    base: str | None,
) -> list[ChildRow]:
    """The child rows, those left out that could not be told from each other or be kept."""

    def note(why: str) -> None:
        where = f" ({expand.defined_at})" if expand.defined_at else ""
        notes.append(f"{expand.table}: {why} @ {expand.path}{where}")

    try:
        items = evaluation.nodes(expand.path)
    except Unmappable as problem:
        note(problem.why)
        return []
    prefix = f"{expand.table}."
    children: dict[tuple[Any, ...], ChildRow] = {}
    for item in items:
        row = {
            attribute.column: _value(
                attribute, columns[attribute.column], evaluation, item, prefix, notes, base
            )
            for attribute in expand.attributes
        }
        lacking = [name for name in row if row[name] is None and columns[name].required]
        key = tuple(row[name] for name in expand.match)
        if lacking:
            note(f"left out without {', '.join(lacking)}")
        elif all(part is None for part in key):
            note(f"left out without {', '.join(expand.match)}")
        elif key in children:
            note("more than one with the same key, the first taken")
        else:
            children[key] = ChildRow(expand, row)
    return list(children.values())
