"""Plan the steps for columns, keys and virtual tables. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from integration.dataverse.virtual_table_names import build_entity_set
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ExistingTable:
    """A table as the organisation's metadata describes it."""

    id: str
    columns: Mapping[str, Mapping[str, Any]]  # type and external name, by logical name
    keys: tuple[frozenset[str], ...] = ()  # the columns of each
    definition: Mapping[str, Any] = field(default_factory=dict)
    primary: Mapping[str, Any] = field(
        default_factory=dict
    )  # the whole definition of the primary key


# By name; None: the organisation has no such table.
Tables = Mapping[str, ExistingTable | None]


def plan_custom_tables(requirements: Requirements, tables: Tables) -> Iterator[Item]:
    """Plan what the mirror needs of tables with rows of their own."""
    for custom_table in requirements.custom_tables:
        existing = tables[custom_table.table]
        if existing is None:
            yield ManualTask(
                f"table {custom_table.table} does not exist, and maps write columns of it"
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
                f"column {name} of {custom_table.table} is missing, and no file defines its type: "
                "add it by hand"
            )
    for key in custom_table.keys:
        what = f"alternate key {key.name} of {custom_table.table} ({', '.join(key.columns)})"
        path = f"{_DEFINITIONS}(LogicalName='{custom_table.table}')/Keys"
        if frozenset(key.columns) in existing.keys:
            yield Existing(what)
        else:
            yield Step(
                description=what,
                method="POST",
                path=path,
                body=definitions.build_key(key),
                solution=solution,
            )


def _plan_custom_column(
    table: str, column: CustomColumn, existing: ExistingTable, solution: str
) -> Iterator[Item]:
    what = f"column {column.name} of {table}"
    if column.name in existing.columns:
        yield Existing(what)
        yield from _compare_column(what, existing.columns[column.name], column.type)
    elif column.target is not None:
        body = definitions.build_custom_lookup(table, column, column.target)
        yield Step(
            description=f"{what}, to {column.target}",
            method="POST",
            path="RelationshipDefinitions",
            body=body,
            solution=solution,
        )
    else:
        path = f"{_DEFINITIONS}(LogicalName='{table}')/Attributes"
        yield Step(
            description=what,
            method="POST",
            path=path,
            body=definitions.build_custom_column(column),
            solution=solution,
        )


def plan_virtual_tables(
    requirements: Requirements, tables: Tables, provider: str | None, source: str | None
) -> Iterator[Item]:
    """Plan the virtual tables, without columns: those follow when the tables exist."""
    for table in requirements.virtual_tables:
        existing = tables[table.name]
        what = f"virtual table {table.name}, of {table.entity_set}"
        if existing is None:
            body = definitions.build_virtual_table(
                table,
                provider or make_placeholder("the data provider"),
                source or make_placeholder("the data source"),
            )
            yield Step(
                description=what,
                method="POST",
                path=_DEFINITIONS,
                body=body,
                solution=requirements.solution,
            )
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
            yield ManualTask(
                f"virtual table {table.name} differs in {', '.join(other)}: correct or delete it"
            )


def plan_virtual_columns(requirements: Requirements, tables: Tables) -> Iterator[Item]:
    """Plan, for every virtual table, the external name of its primary key, columns and lookups."""
    for table in requirements.virtual_tables:
        existing = tables[table.name] or ExistingTable(id=make_placeholder(table.name), columns={})
        yield from _plan_primary_key(table, existing, requirements.solution)
        for column in table.columns:
            yield from _plan_virtual_column(table.name, column, existing, requirements.solution)
        for lookup in table.lookups:
            what = f"lookup {lookup.name} of {table.name}, to {lookup.target}"
            found = existing.columns.get(lookup.name)
            if found is None:
                body = definitions.build_virtual_lookup(table.name, lookup)
                yield Step(
                    description=what,
                    method="POST",
                    path="RelationshipDefinitions",
                    body=body,
                    solution=requirements.solution,
                )
                continue
            yield Existing(what)
            yield from _compare_column(what, found, "Lookup", lookup.external_name)
        if table.dropped_lookups:
            lost = ", ".join(table.dropped_lookups)
            yield Unsupported(
                f"lookups of {table.name} to other virtual tables, which Dataverse does not allow: "
                f"{lost}"
            )


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
            description=what,
            method="PUT",
            path=path,
            body=definitions.build_primary_key(existing.primary, table.key),
            solution=solution,
        )


def _plan_virtual_column(
    table: str, column: VirtualColumn, existing: ExistingTable, solution: str
) -> Iterator[Item]:
    what = f"column {column.name} of {table}"
    found = existing.columns.get(column.name)
    if found is None:
        path = f"{_DEFINITIONS}(LogicalName='{table}')/Attributes"
        yield Step(
            description=what,
            method="POST",
            path=path,
            body=definitions.build_virtual_column(column),
            solution=solution,
        )
        return
    yield Existing(what)
    yield from _compare_column(what, found, column.type, column.external_name)


def _compare_column(
    what: str, found: Mapping[str, Any], type_: str, external: str | None = None
) -> Iterator[ManualTask]:
    """Report what differs. It is not changed, because somebody may have chosen it."""
    if found.get("AttributeType") != type_:
        yield ManualTask(f"{what} is of type {found.get('AttributeType')}, not {type_}")
    if external is not None and found.get("ExternalName") != external:
        yield ManualTask(
            f"{what} has the external name {found.get('ExternalName')}, not {external}"
        )
