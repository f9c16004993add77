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
    Custom,
    CustomColumn,
    Item,
    LeftOut,
    Note,
    Step,
    There,
    VirtualColumn,
    VirtualTable,
    Wanted,
    later,
)

_DEFINITIONS = "EntityDefinitions"


@dataclass(frozen=True, slots=True)
class Known:
    """A table as it is: its columns by name, with type and external name; its keys' columns."""

    id: str
    columns: Mapping[str, Mapping[str, Any]]
    keys: tuple[frozenset[str], ...] = ()
    definition: Mapping[str, Any] = field(default_factory=dict)
    primary: Mapping[str, Any] = field(default_factory=dict)  # the primary key, whole


Tables = Mapping[str, Known | None]


def custom(wanted: Wanted, tables: Tables) -> Iterator[Item]:
    """What the mirror needs of tables that have rows."""
    for one in wanted.custom:
        known = tables[one.table]
        if known is None:
            yield Note(f"there is no table {one.table}, for which columns are wanted")
        else:
            yield from _custom(one, known, wanted.solution)


def _custom(one: Custom, known: Known, solution: str) -> Iterator[Item]:
    for column in one.columns:
        yield from _custom_column(one.table, column, known, solution)
    for name in one.unknown:
        if name not in known.columns:
            yield Note(f"{one.table}.{name} is lacking, and no file says its type: make it by hand")
    for key in one.keys:
        what = f"alternate key {key.name} of {one.table} ({', '.join(key.columns)})"
        path = f"{_DEFINITIONS}(LogicalName='{one.table}')/Keys"
        if frozenset(key.columns) in known.keys:
            yield There(what)
        else:
            yield Step(what, "POST", path, definitions.key(key), solution)


def _custom_column(table: str, column: CustomColumn, known: Known, solution: str) -> Iterator[Item]:
    what = f"column {column.name} of {table}"
    if column.name in known.columns:
        yield There(what)
        yield from _other_type(what, known.columns[column.name], column.type)
    elif column.target is not None:
        body = definitions.custom_lookup(table, column, column.target)
        yield Step(f"{what}, to {column.target}", "POST", "RelationshipDefinitions", body, solution)
    else:
        path = f"{_DEFINITIONS}(LogicalName='{table}')/Attributes"
        yield Step(what, "POST", path, definitions.custom_column(column), solution)


def virtual_tables(
    wanted: Wanted, tables: Tables, provider: str | None, source: str | None
) -> Iterator[Item]:
    """The tables themselves; a column is made once its table is there."""
    for table in wanted.virtual:
        known = tables[table.name]
        what = f"virtual table {table.name}, of {table.set}"
        if known is None:
            body = definitions.virtual_table(
                table, provider or later("the data provider"), source or later("the data source")
            )
            yield Step(what, "POST", _DEFINITIONS, body, wanted.solution)
            continue
        yield There(what)
        asked = {
            "EntitySetName": build_entity_set(table.name),
            "ExternalName": table.entity_type,
            "ExternalCollectionName": table.set,
            "DataSourceId": source,
        }
        other = [name for name, value in asked.items() if known.definition.get(name) != value]
        if other:
            yield Note(f"{table.name} has another {', '.join(other)} than is wanted")


def virtual_columns(wanted: Wanted, tables: Tables) -> Iterator[Item]:
    """Of every virtual table: what its primary key is in the feed, its columns and lookups."""
    for table in wanted.virtual:
        known = tables[table.name] or Known(later(table.name), {})
        yield from _primary_key(table, known, wanted.solution)
        for column in table.columns:
            yield from _virtual_column(table.name, column, known, wanted.solution)
        for lookup in table.lookups:
            what = f"lookup {lookup.name} of {table.name}, to {lookup.target}"
            found = known.columns.get(lookup.name)
            if found is None:
                body = definitions.virtual_lookup(table.name, lookup)
                yield Step(what, "POST", "RelationshipDefinitions", body, wanted.solution)
                continue
            yield There(what)
            yield from _other_type(what, found, "Lookup", lookup.external)
        if table.left_out:
            lost = ", ".join(table.left_out)
            yield LeftOut(f"lookups of {table.name} to tables that are virtual, too: {lost}")


def _primary_key(table: VirtualTable, known: Known, solution: str) -> Iterator[Item]:
    what = f"external name {table.key} of the primary key of {table.name}"
    if known.primary.get("ExternalName") == table.key:
        yield There(what)
    else:
        path = (
            f"{_DEFINITIONS}(LogicalName='{table.name}')/Attributes(LogicalName='{table.name}id')"
        )
        yield Step(what, "PUT", path, definitions.primary_key(known.primary, table.key), solution)


def _virtual_column(
    table: str, column: VirtualColumn, known: Known, solution: str
) -> Iterator[Item]:
    what = f"column {column.name} of {table}"
    found = known.columns.get(column.name)
    if found is None:
        path = f"{_DEFINITIONS}(LogicalName='{table}')/Attributes"
        yield Step(what, "POST", path, definitions.virtual_column(column), solution)
        return
    yield There(what)
    yield from _other_type(what, found, column.type, column.external)


def _other_type(
    what: str, found: Mapping[str, Any], type_: str, external: str | None = None
) -> Iterator[Note]:
    """Nothing is changed that somebody may have wanted so; what does not fit is told."""
    if found.get("AttributeType") != type_:
        yield Note(f"{what} is of type {found.get('AttributeType')}, not {type_}")
    if external is not None and found.get("ExternalName") != external:
        yield Note(f"{what} has the external name {found.get('ExternalName')}, not {external}")
