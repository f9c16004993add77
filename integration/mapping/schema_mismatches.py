"""Finds where a map and the tables of the tenant do not fit each other. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from integration.core.model import Column, Columns, Tables
from integration.mapping.concepts import CONCEPT_TABLE
from integration.mapping.model import AttributeMap, EntityMap, ExpandMap, Kind
from integration.mapping.values import CHOICE_TYPES, LOOKUP_TYPES, NUMBER_TYPES, TEXT_TYPES

_GUID_LENGTH = 36

# The column types that take a value of each kind. A constant may go into any column.
_SUITABLE_TYPES = {
    Kind.COPY: TEXT_TYPES | NUMBER_TYPES | CHOICE_TYPES | {"Uniqueidentifier"},
    Kind.DATE: frozenset({"DateTime"}),
    Kind.DATETIME: frozenset({"DateTime"}),
    Kind.CHOICE: CHOICE_TYPES,
    Kind.LOOKUP: LOOKUP_TYPES,
    Kind.CONCEPT: LOOKUP_TYPES,
    Kind.MAP: TEXT_TYPES,
}

# Columns of these types may be required, but the platform fills them.
_FILLED_TYPES = frozenset({"State", "Status", "Owner", "EntityName", "Virtual", "Uniqueidentifier"})


def find_schema_mismatches(entity: EntityMap, tables: Tables) -> list[str]:
    """Return what the tenant's tables lack for this map, each with the line of the map."""
    mismatches = [f"{entity.file}: the organisation has no table {name}"
                  for name in entity.tables if name not in tables]  # fmt: skip
    if entity.table in tables:
        mismatches += _check_row_table(entity, tables[entity.table])
    for expand in entity.expands:
        if expand.table in tables:
            mismatches += _check_child_table(entity, expand, tables[expand.table])
    return mismatches


def _check_row_table(entity: EntityMap, columns: Columns) -> Iterator[str]:
    where = f"{entity.file}: {entity.table}"
    own_columns = (entity.key, *entity.version_columns)
    yield from (f"{where} has no column {name}" for name in own_columns if name not in columns)
    version_types = (TEXT_TYPES, TEXT_TYPES, {"DateTime"})
    for name, types in zip(entity.version_columns, version_types, strict=True):
        if name in columns and columns[name].type not in types:
            allowed = " or ".join(sorted(types))
            yield f"{where}.{name} is of the type {columns[name].type}; it must be {allowed}"
    max_length = columns[entity.id_column].max_length if entity.id_column in columns else None
    if max_length is not None and max_length < _GUID_LENGTH:
        holds = f"holds {max_length} characters, but a GUID has {_GUID_LENGTH}"
        yield f"{where}.{entity.id_column} {holds}"
    yield from _check_attributes(entity.table, entity.attributes, columns)
    yield from _find_unfilled(where, {*own_columns}, entity.attributes, columns)


def _check_child_table(entity: EntityMap, expand: ExpandMap, columns: Columns) -> Iterator[str]:
    where = f"{expand.defined_at}: {expand.table}"
    own_columns = (expand.key, expand.parent)
    yield from (f"{where} has no column {name}" for name in own_columns if name not in columns)
    parent = columns.get(expand.parent)
    if parent is not None and entity.table not in parent.targets:
        yield f"{where}.{expand.parent} is not a lookup of {entity.table}"
    yield from _check_attributes(expand.table, expand.attributes, columns)
    yield from _find_unfilled(where, {*own_columns}, expand.attributes, columns)


def _check_attributes(
    table: str, attributes: tuple[AttributeMap, ...], columns: Columns
) -> Iterator[str]:
    for attribute in attributes:
        where = f"{attribute.defined_at}: {table}.{attribute.column}"
        column = columns.get(attribute.column)
        if column is None:
            yield f"{attribute.defined_at}: {table} has no column {attribute.column}"
        elif not (column.writable_on_create or column.writable_on_update):
            yield f"{where} cannot be written"
        elif column.type not in _SUITABLE_TYPES.get(attribute.kind, {column.type}):
            yield f"{where} is of the type {column.type}, which kind {attribute.kind} cannot fill"
        else:
            yield from (f"{where} {why}" for why in _check_column(attribute, column))


def _check_column(attribute: AttributeMap, column: Column) -> Iterator[str]:
    if attribute.kind is Kind.DATETIME and column.behavior == "DateOnly":
        yield "keeps days only; use kind date"
    if column.options is not None and column.type != "Boolean":
        choices = {option for options in attribute.choices.values() for option in options}
        if choices and not choices & column.options:
            yield "has none of the options in choices"
        if attribute.default is not None and attribute.default not in column.options:
            yield "has no option for the default"
    if attribute.kind is Kind.LOOKUP and not column.targets:
        yield "points at no table"
    if attribute.kind is Kind.CONCEPT and CONCEPT_TABLE.table not in column.targets:
        yield f"is not a lookup of {CONCEPT_TABLE.table}"


def _find_unfilled(
    where: str, own_columns: set[str], attributes: tuple[AttributeMap, ...], columns: Columns
) -> Iterator[str]:
    """Find required columns that nothing fills. Those that only forms require (ApplicationRequired)
    are no reason to stop a table."""
    filled = own_columns | {attribute.column for attribute in attributes}
    for name, column in sorted(columns.items()):
        is_required = column.enforced and column.writable_on_create
        if is_required and column.type not in _FILLED_TYPES and name not in filled:
            yield f"{where}.{name} is required, and no attribute fills it"
