"""`python -m integration map FILE`: show the rows that the entity maps make, and why."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from integration.app.settings import read_mirror_settings
from integration.cli.terminal import PrintLine, open_dataverse, read_file
from integration.core import decimal_json
from integration.core.errors import IntegrationError, Unmappable
from integration.core.model import Column
from integration.mapping import engine, explain, load
from integration.mapping.load import Maps
from integration.mapping.model import EntityMap, Route
from integration.mapping.schema_mismatches import find_schema_mismatches

Tables = Mapping[str, Mapping[str, Column]]

# Reads the columns of these tables from the organisation of the settings.
FetchTables = Callable[[Iterable[str]], Coroutine[Any, Any, Tables]]

# Stands for the publisher's prefix while none is chosen.
_PREFIX = "new"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options. Maps that no option names come from the settings."""
    parser.add_argument("file", type=Path, help="a resource or a bundle; may end with .gz")
    parser.add_argument("--set", choices=("healthcare", "plain"), help="the set of maps (MAP_SET)")
    parser.add_argument("--prefix", help="the publisher's prefix, for {prefix} (MAP_PREFIX)")
    parser.add_argument("--maps", type=Path, help="the folder of your own maps (MAPS)")
    parser.add_argument(
        "--enable", action="append", help="a map to use, by its file name (MAPS_ENABLED)"
    )
    parser.add_argument(
        "--base", help="the FHIR server's address, for absolute references to its resources"
    )
    parser.add_argument("--empty", action="store_true", help="show columns that are cleared, too")
    parser.add_argument(
        "--check", action="store_true", help="compare the maps with the tables of DATAVERSE_URL"
    )


async def fetch_tables(names: Iterable[str]) -> Tables:
    """Read the columns of tables from the organisation of the settings. Raises Misconfigured."""
    async with open_dataverse() as dataverse:
        return {name: await dataverse.get_columns(name) for name in names}


def run(
    chosen: argparse.Namespace, print_line: PrintLine, fetch_tables: FetchTables = fetch_tables
) -> int:
    """Return 0 if everything was mapped, 1 if some of it was not, 2 if nothing was."""
    try:
        body = read_file(chosen.file)
        maps = _load_maps(chosen)
        resources = list(_list_resources(decimal_json.decode(body)))
        entities = _select_maps(maps, resources)
        names = {name for entity in entities.values() for name in entity.tables}
        tables = asyncio.run(fetch_tables(sorted(names))) if chosen.check else {}
    except decimal_json.Malformed as error:
        print_line(f"{chosen.file.name}: {error}")
        return 2
    except IntegrationError as error:
        print_line(str(error))
        return 2
    mismatches = {
        kind: find_schema_mismatches(entity, tables) for kind, entity in entities.items() if tables
    }
    for problem in maps.broken.values():
        print_line(f"broken: {problem}")
    for problems in mismatches.values():
        for problem in problems:
            print_line(f"mismatch: {problem}")
    if not entities:
        print_line(
            f"{chosen.file.name}: no resource was mapped, because no entity map in use makes rows "
            "from these types"
        )
        return 2
    is_complete = not maps.broken and not any(mismatches.values())
    for resource in resources:
        entity = entities.get(str(resource.get("resourceType")))
        if entity is not None and not mismatches.get(entity.resource):
            lines, has_notes = _explain_row(entity, resource, tables, chosen)
            is_complete &= not has_notes
            for line in lines:
                print_line(line)
    return 0 if is_complete else 1


def _load_maps(chosen: argparse.Namespace) -> Maps:
    """Raises Misconfigured."""
    settings = read_mirror_settings()
    prefix = chosen.prefix or settings.map_prefix
    if not chosen.check:
        prefix = prefix or _PREFIX
    enabled = chosen.enable if chosen.enable is not None else settings.enabled_maps
    return load.load_maps(
        chosen.set or settings.map_set, prefix, chosen.maps or settings.maps_folder, enabled
    )


def _select_maps(maps: Maps, resources: Iterable[Mapping[str, Any]]) -> dict[str, EntityMap]:
    """Return, by resource type, the maps that make rows from these resources."""
    types = {str(resource.get("resourceType")) for resource in resources}
    return {
        kind: entity
        for kind, entity in maps.entities.items()
        if kind in types and Route.DATAVERSE in entity.routes
    }


def _explain_row(
    entity: EntityMap, resource: Mapping[str, Any], tables: Tables, chosen: argparse.Namespace
) -> tuple[Iterable[str], bool]:
    """Return the lines to print, and whether something of the resource was not mapped."""
    try:
        mapped = engine.map_resource(
            entity,
            resource,
            tables or explain.assume_columns(entity),
            chosen.base,
            today=datetime.now(UTC).date(),
        )
    except Unmappable as problem:
        return [f"refused: {entity.resource}: {problem}"], True
    return explain.explain_rows(entity, mapped, empty=chosen.empty), bool(mapped.notes)


def _list_resources(data: Any) -> Iterator[dict[str, Any]]:
    entries = data.get("entry", []) if isinstance(data, dict) else []
    found = [item.get("resource") for item in entries if isinstance(item, dict)] or [data]
    # A resource to be created has no id yet; the relay gives it one.
    return ({"id": "not-yet", **item} for item in found if isinstance(item, dict))
