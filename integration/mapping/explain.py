"""Explains why each column of a row has its value, as text for an admin. Pure.

The text contains the resource's values: show it only to whoever has the resource.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from integration.core import decimal_json
from integration.core.model import Column
from integration.mapping.model import AttributeMap, Concept, EntityMap, Kind, Lookup, MappedRows

# Without a tenant's metadata, a column is taken to be one that suits the kind of its attribute.
_ASSUMED_COLUMNS = {
    Kind.COPY: Column("", "String"),
    Kind.DATE: Column("", "DateTime"),
    Kind.DATETIME: Column("", "DateTime"),
    Kind.CHOICE: Column("", "Picklist"),
    Kind.DEFAULT: Column("", "String"),
    Kind.LOOKUP: Column("", "Lookup"),
    Kind.CONCEPT: Column("", "Lookup"),
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


def explain_rows(entity: EntityMap, mapped: MappedRows, *, empty: bool = False) -> Iterator[str]:
    """Yield a line for each column, with its value, kind, path and line of the map, and one for
    each note. `empty` includes the columns that are cleared."""
    yield f"{entity.table}: {entity.resource} by {entity.file}"
    for name in entity.version_columns:
        yield f"  {name} = {_format_value(mapped.values[name])}"
    yield from _explain_columns(entity.attributes, mapped.values, empty=empty)
    for child in mapped.children:
        expand = child.expand_map
        yield f"{expand.table}: {expand.path} ({expand.defined_at})"
        yield from _explain_columns(expand.attributes, child.values, empty=empty)
    yield from (f"note: {note}" for note in mapped.notes)


def _explain_columns(
    attributes: tuple[AttributeMap, ...], values: Mapping[str, Any], *, empty: bool
) -> Iterator[str]:
    for attribute in attributes:
        value = values[attribute.column]
        if value is not None or empty:
            source = f"{attribute.kind} {attribute.path}" if attribute.path else attribute.kind
            formatted = _format_value(value)
            yield f"  {attribute.column} = {formatted}    <- {source} ({attribute.defined_at})"


def _format_value(value: Any) -> str:
    match value:
        case None:
            return "-"
        case Lookup(resource):
            return f"the row of {resource}"
        case Concept(type_, code, name, _):
            return f"the concept {code} ({name}) of type {type_}"
        case str() | int() | Decimal():
            return decimal_json.encode(value).decode()
    return str(value)
