"""`python -m integration map FILE`: the rows that resources would become, and why."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from integration.app.settings import read_mirror_settings
from integration.core import decimal_json
from integration.core.errors import IntegrationError, Unmappable
from integration.core.model import Column
from integration.mapping import engine, explain, load
from integration.mapping.load import Maps
from integration.mapping.model import EntityMap, Route
from integration.mapping.schema_mismatches import find_schema_mismatches

Tables = Mapping[str, Mapping[str, Column]]

# Reads the columns of these tables in the organisation that the settings name.
FetchTables = Callable[[Iterable[str]], Coroutine[Any, Any, Tables]]

# For a look at the maps before the publisher has a prefix.
_PREFIX = "new"


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes. Which maps are in use the settings say, where no option does."""
    parser.add_argument("file", type=Path, help="a resource or a bundle; .gz too")
    parser.add_argument("--set", choices=("healthcare", "plain"), help="instead of MAP_SET")
    parser.add_argument("--prefix", help="the publisher's, for {prefix}, instead of MAP_PREFIX")
    parser.add_argument("--maps", type=Path, help="the folder of own maps, instead of MAPS")
    parser.add_argument(
        "--enable", action="append", help="a map, by its file name, instead of MAPS_ENABLED"
    )
    parser.add_argument("--base", help="the FHIR server's address in absolute references")
    parser.add_argument("--empty", action="store_true", help="columns too that are cleared")
    parser.add_argument("--check", action="store_true", help="by the tables of DATAVERSE_URL")


def run(
    chosen: argparse.Namespace, body: bytes, fetch_tables: FetchTables, say: Callable[[str], object]
) -> int:
    """0 when everything is mapped, 1 when something is not or a map does not fit, 2 when there is
    nothing to map."""
    try:
        maps = _load_maps(chosen)
        resources = [*_list_resources(decimal_json.decode(body))]
        used = _select_maps(maps, resources)
        names = {name for entity in used.values() for name in entity.tables}
        tables = asyncio.run(fetch_tables(sorted(names))) if chosen.check else {}
    except decimal_json.Malformed as error:
        say(f"{chosen.file.name}: {error}")
        return 2
    except IntegrationError as error:
        say(str(error))
        return 2
    wrong = {kind: find_schema_mismatches(each, tables) for kind, each in used.items() if tables}
    misfit = [problem for problems in wrong.values() for problem in problems]
    for problem in maps.broken.values():
        say(f"broken: {problem}")
    for problem in misfit:
        say(f"misfit: {problem}")
    if not used:
        say(f"{chosen.file.name}: no resource was mapped")
        return 2
    whole = not (maps.broken or misfit)
    for each in resources:
        entity = used.get(str(each.get("resourceType")))
        if entity is not None and not wrong.get(entity.resource):
            lines, noted = _explain_row(entity, each, tables, chosen)
            whole &= not noted
            for line in lines:
                say(line)
    return 0 if whole else 1


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
    """The maps of these resources, where rows may come of them."""
    types = {kind for each in resources if isinstance(kind := each.get("resourceType"), str)}
    return {
        kind: each
        for kind, each in maps.entities.items()
        if kind in types and Route.DATAVERSE in each.routes
    }


def _explain_row(
    entity: EntityMap, resource: Mapping[str, Any], tables: Tables, chosen: argparse.Namespace
) -> tuple[Iterable[str], bool]:
    """What to say of it, and whether anything was noted."""
    try:
        mapped = engine.map_resource(
            entity, resource, tables or explain.assume_columns(entity), chosen.base
        )
    except Unmappable as problem:
        return [f"refused: {entity.resource}: {problem}"], True
    return explain.explain_rows(entity, mapped, empty=chosen.empty), bool(mapped.notes)


def _list_resources(data: Any) -> Iterator[dict[str, Any]]:
    entries = data.get("entry", []) if isinstance(data, dict) else []
    found = [item.get("resource") for item in entries if isinstance(item, dict)] or [data]
    # One that is created gets its id on the way.
    return ({"id": "not-yet", **item} for item in found if isinstance(item, dict))
