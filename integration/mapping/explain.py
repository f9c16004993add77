"""Explains why each column of a row has its value, as text for an admin. Pure.

The text contains the resource's values: show it only to whoever has the resource.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from integration.core import decimal_json
from integration.core.model import Column
from integration.mapping.model import (
    AttributeMap,
    Concept,
    EntityMap,
    ExpandMap,
    Kind,
    Lookup,
    MappedRows,
)

# Without a tenant's metadata, a column is taken to be one that suits the kind of its attribute.
_ASSUMED_COLUMNS = {
    Kind.COPY: Column("", "String"),
    Kind.DATE: Column("", "DateTime"),
    Kind.DATETIME: Column("", "DateTime"),
    Kind.CHOICE: Column("", "Picklist"),
    Kind.DEFAULT: Column("", "String"),
    Kind.LOOKUP: Column("", "Lookup"),
    Kind.CONCEPT: Column("", "Lookup"),
    Kind.MAP: Column("", "String"),
}


def assume_columns(entity: EntityMap) -> dict[str, dict[str, Column]]:
    """Return tables whose columns take whatever the map gives them."""
    tables: dict[str, dict[str, Column]] = {name: {} for name in entity.tables}
    blocks = [(entity.table, entity.attributes)]
    blocks += [(expand.table, expand.attributes) for expand in entity.expands]
    for table, attributes in blocks:
        tables[table] |= {item.column: _ASSUMED_COLUMNS[item.kind] for item in attributes}
    text, instant = _ASSUMED_COLUMNS[Kind.COPY], _ASSUMED_COLUMNS[Kind.DATETIME]
    version_columns = zip(entity.version_columns, (text, text, instant), strict=True)
    return {**tables, entity.table: {**tables[entity.table], **dict(version_columns)}}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedColumn:
    """A column with its value as text. `value` None: it is cleared. `attribute` None: a column that
    tells which version of which resource the row shows."""

    column: str
    value: str | None
    attribute: AttributeMap | None = None

    @property
    def source(self) -> str:
        """How the value got there: the kind, and the path."""
        attribute = self.attribute
        if attribute is None:
            return ""
        return f"{attribute.kind} {attribute.path}" if attribute.path else attribute.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedRow:
    """A row: that of the resource, or of one of its children, then `expand_map` says of which."""

    table: str
    columns: tuple[ExplainedColumn, ...]
    expand_map: ExpandMap | None = None


def list_rows(entity: EntityMap, mapped: MappedRows) -> list[ExplainedRow]:
    """Return the row of the resource, and those of its children, with every column."""
    versions = (
        ExplainedColumn(column=name, value=_format_stated(mapped.values[name]))
        for name in entity.version_columns
    )
    columns = (*versions, *_list_columns(entity.attributes, mapped.values))
    children = (
        ExplainedRow(
            table=child.expand_map.table,
            columns=tuple(_list_columns(child.expand_map.attributes, child.values)),
            expand_map=child.expand_map,
        )
        for child in mapped.children
    )
    return [ExplainedRow(table=entity.table, columns=columns), *children]


def explain_rows(entity: EntityMap, mapped: MappedRows, *, empty: bool = False) -> Iterator[str]:
    """Yield a line for each column, with its value, kind, path and line of the map, and one for
    each note. `empty` includes the columns that are cleared."""
    for row in list_rows(entity, mapped):
        if row.expand_map is None:
            yield f"{row.table}: {entity.resource} by {entity.file}"
        else:
            yield f"{row.table}: {row.expand_map.path} ({row.expand_map.defined_at})"
        for item in row.columns:
            value = "-" if item.value is None else item.value
            if item.attribute is None:
                yield f"  {item.column} = {value}"
            elif item.value is not None or empty:
                place = item.attribute.defined_at
                yield f"  {item.column} = {value}    <- {item.source} ({place})"
    yield from (f"note: {note}" for note in mapped.notes)


def _list_columns(
    attributes: tuple[AttributeMap, ...], values: Mapping[str, Any]
) -> Iterator[ExplainedColumn]:
    for attribute in attributes:
        if attribute.column not in values:
            continue  # it stays as it is
        value = _format_stated(values[attribute.column])
        yield ExplainedColumn(column=attribute.column, value=value, attribute=attribute)


def _format_stated(value: Any) -> str | None:
    return None if value is None else _format_value(value)


def _format_value(value: Any) -> str:
    match value:
        case Lookup(resource):
            return f"the row of {resource}"
        case Concept(type_, code, name, _):
            return f"the concept {code} ({name}) of type {type_}"
        case str() | int() | Decimal():
            return decimal_json.encode(value).decode()
    return str(value)
