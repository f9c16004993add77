"""Columns, keys and virtual tables: what is lacking of them. Pure.

`Known` is what the organisation's metadata says of a table: None where there is no such table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from integration.dataverse.virtual import build_entity_set
from integration.provision import definitions
from integration.provision.model import (
    CustomColumn,
    CustomTable,
    Existing,
    Item,
    ManualTask,
    Requirements,
    Step,
    Unsupported,
    VirtualColumn,
    VirtualTable,
    make_placeholder,
)

_DEFINITIONS = "EntityDefinitions"


@dataclass(frozen=True, slots=True)
class ExistingTable:
    """A table as it is: its columns by name, with type and external name; its keys' columns."""

    id: str
    columns: Mapping[str, Mapping[str, Any]]
    keys: tuple[frozenset[str], ...] = ()
    definition: Mapping[str, Any] = field(default_factory=dict)
    primary: Mapping[str, Any] = field(default_factory=dict)  # the primary key, whole


Tables = Mapping[str, ExistingTable | None]


def plan_custom_tables(requirements: Requirements, tables: Tables) -> Iterator[Item]:
    """What the mirror needs of tables that have rows."""
    for custom_table in requirements.custom_tables:
        existing = tables[custom_table.table]
        if existing is None:
            yield ManualTask(
                f"there is no table {custom_table.table}, for which columns are wanted"
            )
        else:
            yield from _plan_custom_table(custom_table, existing, requirements.solution)


def _plan_custom_table(
    custom_table: CustomTable, existing: ExistingTable, solution: str
) -> Iterator[Item]:
    for column in custom_table.columns:
        yield from _plan_custom_column(custom_table.table, column, existing, solution)
    for name in custom_table.undescribed:
        if name not in existing.columns:
            yield ManualTask(
                f"{custom_table.table}.{name} is lacking, and no file says its type: "
                "make it by hand"
            )
    for key in custom_table.keys:
        what = f"alternate key {key.name} of {custom_table.table} ({', '.join(key.columns)})"
        path = f"{_DEFINITIONS}(LogicalName='{custom_table.table}')/Keys"
        if frozenset(key.columns) in existing.keys:
            yield Existing(what)
        else:
            yield Step(what, "POST", path, definitions.build_key(key), solution)


def _plan_custom_column(
    table: str, column: CustomColumn, existing: ExistingTable, solution: str
) -> Iterator[Item]:
    what = f"column {column.name} of {table}"
    if column.name in existing.columns:
        yield Existing(what)
        yield from _compare_column(what, existing.columns[column.name], column.type)
    elif column.target is not None:
        body = definitions.build_custom_lookup(table, column, column.target)
        yield Step(f"{what}, to {column.target}", "POST", "RelationshipDefinitions", body, solution)
    else:
        path = f"{_DEFINITIONS}(LogicalName='{table}')/Attributes"
        yield Step(what, "POST", path, definitions.build_custom_column(column), solution)


def plan_virtual_tables(
    requirements: Requirements, tables: Tables, provider: str | None, source: str | None
) -> Iterator[Item]:
    """The tables themselves; a column is made once its table is there."""
    for table in requirements.virtual_tables:
        existing = tables[table.name]
        what = f"virtual table {table.name}, of {table.entity_set}"
        if existing is None:
            body = definitions.build_virtual_table(
                table,
                provider or make_placeholder("the data provider"),
                source or make_placeholder("the data source"),
            )
            yield Step(what, "POST", _DEFINITIONS, body, requirements.solution)
            continue
        yield Existing(what)
        required = {
            "EntitySetName": build_entity_set(table.name),
            "ExternalName": table.entity_type,
            "ExternalCollectionName": table.entity_set,
            "DataSourceId": source,
        }
        other = [name for name, value in required.items() if existing.definition.get(name) != value]
        if other:
            yield ManualTask(f"{table.name} has another {', '.join(other)} than is wanted")


def plan_virtual_columns(requirements: Requirements, tables: Tables) -> Iterator[Item]:
    """Of every virtual table: what its primary key is in the feed, its columns and lookups."""
    for table in requirements.virtual_tables:
        existing = tables[table.name] or ExistingTable(make_placeholder(table.name), {})
        yield from _plan_primary_key(table, existing, requirements.solution)
        for column in table.columns:
            yield from _plan_virtual_column(table.name, column, existing, requirements.solution)
        for lookup in table.lookups:
            what = f"lookup {lookup.name} of {table.name}, to {lookup.target}"
            found = existing.columns.get(lookup.name)
            if found is None:
                body = definitions.build_virtual_lookup(table.name, lookup)
                yield Step(what, "POST", "RelationshipDefinitions", body, requirements.solution)
                continue
            yield Existing(what)
            yield from _compare_column(what, found, "Lookup", lookup.external_name)
        if table.dropped_lookups:
            lost = ", ".join(table.dropped_lookups)
            yield Unsupported(f"lookups of {table.name} to tables that are virtual, too: {lost}")


def _plan_primary_key(
    table: VirtualTable, existing: ExistingTable, solution: str
) -> Iterator[Item]:
    what = f"external name {table.key} of the primary key of {table.name}"
    if existing.primary.get("ExternalName") == table.key:
        yield Existing(what)
    else:
        path = (
            f"{_DEFINITIONS}(LogicalName='{table.name}')/Attributes(LogicalName='{table.name}id')"
        )
        yield Step(
            what, "PUT", path, definitions.build_primary_key(existing.primary, table.key), solution
        )


def _plan_virtual_column(
    table: str, column: VirtualColumn, existing: ExistingTable, solution: str
) -> Iterator[Item]:
    what = f"column {column.name} of {table}"
    found = existing.columns.get(column.name)
    if found is None:
        path = f"{_DEFINITIONS}(LogicalName='{table}')/Attributes"
        yield Step(what, "POST", path, definitions.build_virtual_column(column), solution)
        return
    yield Existing(what)
    yield from _compare_column(what, found, column.type, column.external_name)


def _compare_column(
    what: str, found: Mapping[str, Any], type_: str, external: str | None = None
) -> Iterator[ManualTask]:
    """Nothing is changed that somebody may have wanted so; what does not fit is told."""
    if found.get("AttributeType") != type_:
        yield ManualTask(f"{what} is of type {found.get('AttributeType')}, not {type_}")
    if external is not None and found.get("ExternalName") != external:
        yield ManualTask(
            f"{what} has the external name {found.get('ExternalName')}, not {external}"
        )
