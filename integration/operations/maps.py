"""VERB list_maps: the entity maps in use, what they fill, and what is wrong with those that are
broken. It asks nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from integration.core.model import Columns
from integration.mapping.files import MapFile, list_tables

if TYPE_CHECKING:  # it imports the mapping engine, which takes long to load
    from integration.mapping.load import Maps
    from integration.mapping.model import EntityMap


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedMap:
    """A map. `columns`: of the table, and of its child tables; None: the map is broken, and
    `problem` says why. `files`: it, and those that add to it. `is_used`: False: there are only
    additions to it. `mismatches`: where it does not fit the organisation's tables; None: their
    columns are not known to this worker, or it shows no rows of them."""

    resource: str
    table: str
    route: str
    columns: int | None
    child_columns: int | None
    files: tuple[MapFile, ...]
    problem: str | None
    is_used: bool = True
    mismatches: tuple[str, ...] | None = None


def list_maps(
    files: Sequence[MapFile],
    maps: Maps,
    routes: Mapping[str, str],
    get_columns: Callable[[str], Columns | None],
) -> list[ListedMap]:
    """List the maps in use by resource type, and those that are only added to. `routes`: the data
    route of each; `get_columns`: the columns of a table, as far as they are known."""
    tables = list_tables(files)
    names = sorted({*tables, *maps.broken})
    return [
        replace(
            _describe(name, tables[name].table if name in tables else "", files, maps, routes),
            is_used=name in tables,
            mismatches=_find_mismatches(maps.entities.get(name), routes.get(name), get_columns),
        )
        for name in names
    ]


def _find_mismatches(
    entity: EntityMap | None, route: str | None, get_columns: Callable[[str], Columns | None]
) -> tuple[str, ...] | None:
    # The maps are loaded, and so the mapping engine is.
    from integration.mapping.model import Route
    from integration.mapping.schema_mismatches import find_schema_mismatches

    if entity is None or route != Route.DATAVERSE:
        return None
    entity = entity.select_route(Route.DATAVERSE)
    tables = {name: get_columns(name) for name in entity.tables}
    known = {name: columns for name, columns in tables.items() if columns is not None}
    if len(known) < len(tables):
        return None
    return tuple(find_schema_mismatches(entity, known))


def find_files(files: Iterable[MapFile], resource: str) -> tuple[MapFile, ...]:
    """Return the files in use that make the map of a resource type, its own before additions."""
    found = [file for file in files if file.in_use and file.resource == resource]
    return tuple(sorted(found, key=lambda file: file.adds_to_map))


def list_unused(files: Iterable[MapFile]) -> list[MapFile]:
    """Return the files that MAPS_ENABLED does not name, and that are used only if it does."""
    return [file for file in files if not file.in_use]


def _describe(
    name: str, table: str, files: Sequence[MapFile], maps: Maps, routes: Mapping[str, str]
) -> ListedMap:
    entity = maps.entities.get(name)
    return ListedMap(
        resource=name,
        table=table,
        route=routes.get(name, ""),
        columns=None if entity is None else len(entity.columns),
        child_columns=None
        if entity is None
        else sum(len(expand.attributes) for expand in entity.expands),
        files=find_files(files, name),
        problem=maps.broken.get(name),
    )
