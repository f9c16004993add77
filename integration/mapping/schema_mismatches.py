"""Where a map and the tables of the tenant do not fit each other. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from integration.core.model import Column
from integration.mapping.concepts import CONCEPT_TABLE
from integration.mapping.model import AttributeMap, EntityMap, ExpandMap, Kind
from integration.mapping.values import CHOICES, LOOKUPS, NUMBERS, TEXTS

Columns = Mapping[str, Column]

_GUID_LENGTH = 36

# The types that take a value of each kind; a constant may go anywhere.
_SUITABLE = {
    Kind.COPY: TEXTS | NUMBERS | CHOICES | {"Uniqueidentifier"},
    Kind.DATE: frozenset({"DateTime"}),
    Kind.DATETIME: frozenset({"DateTime"}),
    Kind.CHOICE: CHOICES,
    Kind.LOOKUP: LOOKUPS,
    Kind.CONCEPT: LOOKUPS,
}

# Required, and filled by the platform where a writer says nothing.
_FILLED = frozenset({"State", "Status", "Owner", "EntityName", "Virtual", "Uniqueidentifier"})


def find_schema_mismatches(entity: EntityMap, tables: Mapping[str, Columns]) -> list[str]:
    """What the tenant's tables lack for this map, each with the line of the map."""
    found = [f"{entity.file}: the organisation has no table {name}"
             for name in entity.tables if name not in tables]  # fmt: skip
    if entity.table in tables:
        found += _row(entity, tables[entity.table])
    for expand in entity.expands:
        if expand.table in tables:
            found += _children(entity, expand, tables[expand.table])
    return found


def _row(entity: EntityMap, columns: Columns) -> Iterator[str]:
    where = f"{entity.file}: {entity.table}"
    books = (entity.key, *entity.version_columns)
    yield from (f"{where} has no column {name}" for name in books if name not in columns)
    for name, types in zip(entity.version_columns, (TEXTS, TEXTS, {"DateTime"}), strict=True):
        if name in columns and columns[name].type not in types:
            yield f"{where}.{name} is of the type {columns[name].type}"
    longest = columns[entity.id_column].max_length if entity.id_column in columns else None
    if longest is not None and longest < _GUID_LENGTH:
        yield f"{where}.{entity.id_column} holds {longest} characters, a GUID has {_GUID_LENGTH}"
    yield from _attributes(entity.table, entity.attributes, columns)
    yield from _unfilled(where, {*books}, entity.attributes, columns)


def _children(entity: EntityMap, expand: ExpandMap, columns: Columns) -> Iterator[str]:
    where = f"{expand.defined_at}: {expand.table}"
    books = (expand.key, expand.parent)
    yield from (f"{where} has no column {name}" for name in books if name not in columns)
    parent = columns.get(expand.parent)
    if parent is not None and entity.table not in parent.targets:
        yield f"{where}.{expand.parent} is no lookup of {entity.table}"
    yield from _attributes(expand.table, expand.attributes, columns)
    yield from _unfilled(where, {*books}, expand.attributes, columns)


def _attributes(
    table: str, attributes: tuple[AttributeMap, ...], columns: Columns
) -> Iterator[str]:
    for attribute in attributes:
        where = f"{attribute.defined_at}: {table}.{attribute.column}"
        column = columns.get(attribute.column)
        if column is None:
            yield f"{attribute.defined_at}: {table} has no column {attribute.column}"
        elif not (column.writable_on_create or column.writable_on_update):
            yield f"{where} cannot be written"
        elif column.type not in _SUITABLE.get(attribute.kind, {column.type}):
            yield f"{where} is of the type {column.type}, not for {attribute.kind}"
        else:
            yield from (f"{where} {why}" for why in _details(attribute, column))


def _details(attribute: AttributeMap, column: Column) -> Iterator[str]:
    if attribute.kind is Kind.DATETIME and column.behavior == "DateOnly":
        yield "keeps days, not for datetime"
    if column.options is not None and column.type != "Boolean":
        choices = {option for options in attribute.choices.values() for option in options}
        if choices and not choices & column.options:
            yield "has none of the options"
        if attribute.default is not None and attribute.default not in column.options:
            yield "has no option for the default"
    if attribute.kind is Kind.LOOKUP and not column.targets:
        yield "leads to no table"
    if attribute.kind is Kind.CONCEPT and CONCEPT_TABLE.table not in column.targets:
        yield f"is no lookup of {CONCEPT_TABLE.table}"


def _unfilled(
    where: str, books: set[str], attributes: tuple[AttributeMap, ...], columns: Columns
) -> Iterator[str]:
    """What only forms demand (ApplicationRequired) is no reason to stop a table."""
    filled = books | {attribute.column for attribute in attributes}
    for name, column in sorted(columns.items()):
        wanted = column.enforced and column.writable_on_create and column.type not in _FILLED
        if wanted and name not in filled:
            yield f"{where}.{name} is required, and no attribute fills it"
