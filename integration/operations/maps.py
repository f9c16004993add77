"""VERB list_maps: the entity maps in use, what they fill, and what is wrong with those that are
broken. It asks nobody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from integration.mapping.files import MapFile, list_tables

if TYPE_CHECKING:  # it imports the mapping engine, which takes long to load
    from integration.mapping.load import Maps


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedMap:
    """A map. `columns`: of the table, and of its child tables; None: the map is broken, and
    `problem` says why. `files`: it, and those that add to it."""

    resource: str
    table: str
    route: str
    columns: int | None
    child_columns: int | None
    files: tuple[MapFile, ...]
    problem: str | None


def list_maps(files: Sequence[MapFile], maps: Maps, routes: Mapping[str, str]) -> list[ListedMap]:
    """List the maps in use by resource type. `routes`: the data route of each."""
    tables = list_tables(files)
    return [_describe(name, tables[name].table, files, maps, routes) for name in sorted(tables)]


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
