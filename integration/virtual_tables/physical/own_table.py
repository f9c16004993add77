"""The table that an organisation without Microsoft's gets for the rows of a map. Pure.

It has the columns of the virtual table, so what the feed shows is the same on both routes. Two
kinds differ: a concept is kept as the text that the feed shows, since such an organisation has no
table of concepts; and a lookup is kept where it leads to a table with rows of its own, a contact
for example.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from integration.dataverse.virtual_table_names import (
    build_column_name,
    build_entity_set,
    build_own_table_name,
)
from integration.mapping.load import Maps
from integration.mapping.model import AttributeMap, EntityMap, Kind, Route


def add_own_tables(maps: Maps, prefix: str | None) -> Maps:
    """Return the maps, of which those that may have either route write rows of tables of the
    organisation's. `prefix`: the publisher's; None: Microsoft's tables are there."""
    if prefix is None:
        return maps
    entities = {
        name: _add_own_table(entity, prefix, maps.available)
        for name, entity in maps.entities.items()
    }
    return replace(maps, entities=entities, available={**maps.available, **entities})


def _add_own_table(entity: EntityMap, prefix: str, available: Mapping[str, EntityMap]) -> EntityMap:
    if {*entity.routes} != {*Route}:
        return entity
    return replace(entity, own_table=build_own_map(entity, prefix, available))


def build_own_map(entity: EntityMap, prefix: str, available: Mapping[str, EntityMap]) -> EntityMap:
    """Return the map that writes rows of the organisation's table."""
    table = build_own_table_name(entity.table, prefix)
    return replace(
        entity,
        table=table,
        entity_set=build_entity_set(table),
        key=f"{table}id",
        id_column=build_column_name(entity.id_column, prefix),
        version_column=build_column_name(entity.version_column, prefix),
        updated_column=build_column_name(entity.updated_column, prefix),
        kind_column=None,
        name_column=None,
        routes=(Route.DATAVERSE,),
        attributes=tuple(_list_attributes(entity, prefix, available)),
        expands=(),
    )


def build_concept_name_path(path: str) -> str:
    """Return the path of the text that the feed shows of a concept: nothing, where it has no
    code."""
    concept = f"{path}.where(coding.code.exists())"
    coding = f"{concept}.coding.where(code.exists()).first()"
    return f"({coding}.display | {concept}.text | {coding}.code).first()"


def _list_attributes(
    entity: EntityMap, prefix: str, available: Mapping[str, EntityMap]
) -> Iterator[AttributeMap]:
    for attribute in entity.select_route(Route.VIRTUAL).attributes:
        column = build_column_name(attribute.column, prefix)
        written = replace(attribute, column=column, route=None)
        match attribute.kind:
            case Kind.DEFAULT:
                continue
            case Kind.LOOKUP:
                target = available.get(attribute.virtual_column.target or "")
                if target is not None and target.routes[0] is Route.DATAVERSE:
                    yield written
            case Kind.CONCEPT:
                path = build_concept_name_path(attribute.path or "")
                yield replace(written, kind=Kind.COPY, path=path, concept=None)
            case _:
                yield written
