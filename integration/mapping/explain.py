"""Why each column of a row has its value, as text for an admin. Pure.

The text holds what the resource holds: it is for the eyes of whoever has the resource.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from integration.core import decimal_json
from integration.core.model import Column
from integration.mapping.model import AttributeMap, Concept, EntityMap, Kind, Lookup, MappedRows

# What is taken for granted of a column where nobody has asked the tenant.
_ASSUMED = {
    Kind.COPY: Column("", "String"),
    Kind.DATE: Column("", "DateTime"),
    Kind.DATETIME: Column("", "DateTime"),
    Kind.CHOICE: Column("", "Picklist"),
    Kind.DEFAULT: Column("", "String"),
    Kind.LOOKUP: Column("", "Lookup"),
    Kind.CONCEPT: Column("", "Lookup"),
}


def assume_columns(entity: EntityMap) -> dict[str, dict[str, Column]]:
    """Tables that take whatever the map gives them."""
    tables: dict[str, dict[str, Column]] = {name: {} for name in entity.tables}
    blocks = [(entity.table, entity.attributes)]
    blocks += [(expand.table, expand.attributes) for expand in entity.expands]
    for table, attributes in blocks:
        tables[table] |= {one.column: _ASSUMED[one.kind] for one in attributes}
    text, moment = _ASSUMED[Kind.COPY], _ASSUMED[Kind.DATETIME]
    books = zip(entity.version_columns, (text, text, moment), strict=True)
    return {**tables, entity.table: {**tables[entity.table], **dict(books)}}


def explain_rows(entity: EntityMap, mapped: MappedRows, *, empty: bool = False) -> Iterator[str]:
    """The rows, a line for each column: value, kind, path and line of the map; then the notes.
    `empty`: those columns too that are cleared."""
    yield f"{entity.table}: {entity.resource} by {entity.file}"
    yield from (f"  {name} = {_shown(mapped.values[name])}" for name in entity.version_columns)
    yield from _columns(entity.attributes, mapped.values, empty=empty)
    for child in mapped.children:
        yield f"{child.expand_map.table}: {child.expand_map.path} ({child.expand_map.defined_at})"
        yield from _columns(child.expand_map.attributes, child.values, empty=empty)
    yield from (f"note: {note}" for note in mapped.notes)


def _columns(
    attributes: tuple[AttributeMap, ...], columns: Mapping[str, Any], *, empty: bool
) -> Iterator[str]:
    for one in attributes:
        value = columns[one.column]
        if value is not None or empty:
            why = f"{one.kind} {one.path}" if one.path else str(one.kind)
            yield f"  {one.column} = {_shown(value)}    <- {why} ({one.defined_at})"


def _shown(value: Any) -> str:
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
