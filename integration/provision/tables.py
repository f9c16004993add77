"""Plan the steps for columns, keys and virtual tables. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from integration.dataverse.virtual_table_names import build_entity_set
from integration.provision import definitions
from integration.provision.model import (
    Body,
    CustomColumn,
    CustomTable,
    Existing,
    Item,
    ManualTask,
    Requirements,
    Step,
    VirtualColumn,
    VirtualLookup,
    VirtualTable,
    make_placeholder,
)

_DEFINITIONS = "EntityDefinitions"

# What to do about an alternate key whose index could not be built.
# https://learn.microsoft.com/power-apps/developer/data-platform/define-alternate-keys-entity
FAILED_KEY = (
    "its index could not be built, as a rule because two rows have the same values, so it keeps "
    "nothing out. Merge or change those rows, then reactivate it under Keys of the table "
    "(make.powerapps.com), or by the action ReactivateEntityKey"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExistingTable:
    """A table as the organisation's metadata describes it."""

    id: str
    columns: Mapping[str, Mapping[str, Any]]  # type and external name, by logical name
    keys: Mapping[frozenset[str], str] = field(default_factory=dict)  # index status, by columns
    definition: Mapping[str, Any] = field(default_factory=dict)
    primary: Mapping[str, Any] = field(
        default_factory=dict
    )  # the whole definition of the primary key
    whole: Mapping[str, Any] = field(default_factory=dict)  # its own, where that may be changed
    unnamed_options: frozenset[str] = (
        frozenset()
    )  # columns with options that have no external value


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
            yield from _plan_custom_table(custom_table, existing, requirements)


def _plan_custom_table(
    custom_table: CustomTable, existing: ExistingTable, requirements: Requirements
) -> Iterator[Item]:
    for column in custom_table.columns:
        yield from _plan_custom_column(custom_table.table, column, existing, requirements)
    if custom_table.tracked:
        yield from _plan_tracking(custom_table.table, existing)
    for name in custom_table.undescribed:
        if name not in existing.columns:
            yield ManualTask(
                f"column {name} of {custom_table.table} is missing, and no file defines its type: "
                "add it by hand"
            )
    for key in custom_table.keys:
        what = f"alternate key {key.name} of {custom_table.table} ({', '.join(key.columns)})"
        path = f"{_DEFINITIONS}(LogicalName='{custom_table.table}')/Keys"
        status = existing.keys.get(frozenset(key.columns))
        if status is None:
            yield _make_component(
                requirements, what, path, definitions.build_key(key, requirements.language)
            )
            continue
        yield Existing(what if status == "Active" else f"{what}; its index is {status}")
        if status == "Failed":
            yield ManualTask(f"{what}: {FAILED_KEY}")


def _plan_tracking(table: str, existing: ExistingTable) -> Iterator[Item]:
    """Plan to have the changes of a table tracked, so that edits of its rows are found. It cannot
    be switched off again.
    https://learn.microsoft.com/power-apps/developer/data-platform/use-change-tracking-synchronize-data-external-systems
    """
    what = f"change tracking of {table}"
    if existing.definition.get("ChangeTrackingEnabled"):
        yield Existing(what)
    elif not existing.whole:
        yield ManualTask(f"{what} is off: switch on Track changes of the table by hand")
    else:
        yield Step(
            description=what,
            method="PUT",
            path=f"{_DEFINITIONS}(LogicalName='{table}')",
            body=definitions.build_tracked_table(existing.whole),
        )


def _plan_custom_column(
    table: str, column: CustomColumn, existing: ExistingTable, requirements: Requirements
) -> Iterator[Item]:
    what = f"column {column.name} of {table}"
    if column.name in existing.columns:
        yield Existing(what)
        yield from _compare_column(what, existing.columns[column.name], column.type)
    elif column.target is not None:
        body = definitions.build_custom_lookup(table, column, column.target, requirements.language)
        yield _make_component(
            requirements, f"{what}, to {column.target}", "RelationshipDefinitions", body
        )
    else:
        path = f"{_DEFINITIONS}(LogicalName='{table}')/Attributes"
        yield _make_component(
            requirements, what, path, definitions.build_custom_column(column, requirements.language)
        )


def _make_component(requirements: Requirements, what: str, path: str, body: Body) -> Step:
    """Return the step that adds something to the solution."""
    return Step(
        description=what, method="POST", path=path, body=body, solution=requirements.solution
    )


def plan_own_tables(requirements: Requirements, tables: Tables) -> Iterator[Item]:
    """Plan the tables with rows that the organisation has instead of Microsoft's, without columns:
    those follow when the tables exist."""
    for table in requirements.own_tables:
        what = f"table {table.name}, for rows of {table.shown_by.label}"
        existing = tables[table.name]
        if existing is None:
            body = definitions.build_own_table(table, requirements.language)
            yield _make_component(requirements, what, _DEFINITIONS, body)
        elif existing.definition.get("TableType") == "Virtual":
            yield ManualTask(f"{what} is a virtual table: delete it")
        else:
            yield Existing(what)


def plan_own_columns(requirements: Requirements, tables: Tables) -> Iterator[Item]:
    """Plan the columns and lookups of these tables."""
    for table in requirements.own_tables:
        existing = tables[table.name] or ExistingTable(id=make_placeholder(table.name), columns={})
        for column in table.shown_by.columns:
            what = f"column {column.name} of {table.name}"
            found = existing.columns.get(column.name)
            if found is not None:
                yield Existing(what)
                yield from _compare_column(what, found, column.type)
                continue
            path = f"{_DEFINITIONS}(LogicalName='{table.name}')/Attributes"
            body = definitions.build_own_column(column, requirements.language)
            yield _make_component(requirements, what, path, body)
        for lookup in table.shown_by.lookups:
            what = f"lookup {lookup.name} of {table.name}, to {lookup.target}"
            found = existing.columns.get(lookup.name)
            if found is not None:
                yield Existing(what)
                yield from _compare_column(what, found, "Lookup")
                continue
            body = definitions.build_own_lookup(table.name, lookup, requirements.language)
            yield _make_component(requirements, what, "RelationshipDefinitions", body)


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
                requirements.language,
            )
            yield _make_component(requirements, what, _DEFINITIONS, body)
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
            yield from _plan_virtual_column(table.name, column, existing, requirements)
        for lookup in table.lookups:
            yield from _plan_virtual_lookup(table.name, lookup, existing, requirements)


def plan_tried_lookups(requirements: Requirements, tables: Tables) -> Iterator[Item]:
    """Plan the lookups between two virtual tables: pages of Microsoft's differ on whether Dataverse
    takes them. All tables are there when they are tried."""
    names = {table.name for table in requirements.virtual_tables}
    for table in requirements.virtual_tables:
        existing = tables[table.name] or ExistingTable(id=make_placeholder(table.name), columns={})
        for lookup in table.tried_lookups:
            if lookup.target not in names:
                continue
            yield from _plan_virtual_lookup(
                table.name, lookup, existing, requirements, trial="lookups between virtual tables"
            )


def _plan_virtual_lookup(
    table: str,
    lookup: VirtualLookup,
    existing: ExistingTable,
    requirements: Requirements,
    *,
    trial: str | None = None,
) -> Iterator[Item]:
    what = f"lookup {lookup.name} of {table}, to {lookup.target}"
    found = existing.columns.get(lookup.name)
    if found is None:
        body = definitions.build_virtual_lookup(table, lookup, requirements.language)
        component = _make_component(requirements, what, "RelationshipDefinitions", body)
        yield replace(component, trial=trial)
        return
    yield Existing(what)
    yield from _compare_column(what, found, "Lookup", lookup.external_name)


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
    table: str, column: VirtualColumn, existing: ExistingTable, requirements: Requirements
) -> Iterator[Item]:
    what = f"column {column.name} of {table}"
    found = existing.columns.get(column.name)
    if found is None:
        path = f"{_DEFINITIONS}(LogicalName='{table}')/Attributes"
        yield _make_component(
            requirements,
            what,
            path,
            definitions.build_virtual_column(column, requirements.language),
        )
        return
    yield Existing(what)
    yield from _compare_column(what, found, column.type, column.external_name)
    if column.name in existing.unnamed_options:
        yield ManualTask(
            f"{what} has options without an external value, by which the provider may look for "
            "them: give each its own number as external value, or delete the column and run this "
            "again"
        )


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
