"""`python -m integration check`: does the app's identity reach all that the app needs?"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from integration.check import dataverse, fhir, remedies, virtual_tables
from integration.check.connections import Connections
from integration.check.report import Line, all_well, failed, ok, skipped, table
from integration.core.errors import IntegrationError
from integration.dataverse.virtual import build_table_name
from integration.mapping import files, load
from integration.mapping.load import Maps
from integration.mapping.model import EntityMap, Route
from integration.virtual_tables.data_routes import DATAVERSE, VIRTUAL, DataRoutes

_ROUTES, _MAPS, _IDENTITY = "data routes", "maps", "identity"
_STORAGE_SCOPE = "https://storage.azure.com/.default"

Opened = Callable[[float], AbstractAsyncContextManager[Connections]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes. Whom it asks, the settings say."""
    parser.add_argument(
        "--skew", type=float, default=60.0, metavar="SECONDS", help="that a clock may be wrong"
    )


def run(chosen: argparse.Namespace, opened: Opened, say: Callable[[str], object]) -> int:
    """0 when all is well, 1 when something is not, 2 when settings are missing."""
    try:
        lines = asyncio.run(_lines(opened(chosen.skew)))
    except IntegrationError as error:
        say(str(error))
        return 2
    for line in table(lines):
        say(line)
    return 0 if all_well(lines) else 1


async def _lines(opened: AbstractAsyncContextManager[Connections]) -> list[Line]:
    async with opened as ends:
        return await lines(ends)


async def lines(ends: Connections) -> list[Line]:
    """The whole table, in the order of a delivery's way. Raises Misconfigured for a setting."""
    from integration.check import storage  # with its SDKs
    from integration.journal import azure_data_routes

    used = ends.settings.mirror
    read = files.read_map_files(used.map_set, used.map_prefix, used.maps_folder, used.enabled_maps)
    maps = load.build_maps(read)
    table_of_routes = ends.storage.tables.get_table_client(azure_data_routes.TABLE)
    kept = azure_data_routes.AzureDataRouteStore(table_of_routes)
    told = frozenset(ends.settings.feed.event_types)
    routes = DataRoutes(kept, files.list_tables(read), used.target != "off", told)
    chosen, line = await _routes(routes)
    mirrored = _mirrored(maps, chosen, to=used.target)
    named = _named(maps, chosen, used.map_prefix)
    heard = [table for name, table in named.items() if name in told]
    parts = await asyncio.gather(
        _identity(ends),
        storage.lines(ends),
        fhir.lines(ends),
        dataverse.lines(ends, maps, mirrored, heard),
        virtual_tables.lines(ends, named, heard),
        fhir.sources(ends),
    )
    identity, stored, server, tables, feed, sources = parts
    return [identity, *stored, *server, _understood(maps), line, *tables, *feed, *sources]


async def _identity(ends: Connections) -> Line:
    """Asked for first, so that one without a token is not taken for one without a role."""
    settings = ends.settings
    scopes = [settings.fhir.scope, settings.dataverse.scope, *settings.fetch_from.values()]
    wanted = {scope for scope in scopes if scope}
    if settings.storage.connection is None:
        wanted.add(_STORAGE_SCOPE)
    if ends.credential is None or not wanted:
        return skipped(_IDENTITY, "no neighbour of these settings wants a token")
    for scope in sorted(wanted):
        try:
            await ends.credential.get_token(scope)
        except Exception as error:  # one class of theirs for all there is
            found = f"no token for {scope} ({type(error).__name__})"
            return failed(_IDENTITY, found, remedies.IDENTITY)
    return ok(_IDENTITY, f"has tokens for {len(wanted)} neighbours")


def _understood(maps: Maps) -> Line:
    if maps.broken:
        broken = "; ".join(maps.broken.values())
        return failed(_MAPS, broken, "mend the map: docs/mapping.md")
    return ok(_MAPS, f"{len(maps.entities)} in use")


async def _routes(routes: DataRoutes) -> tuple[Mapping[str, str], Line]:
    """Where they cannot be read, the maps' own count for the lines that follow."""
    chosen = {name: one.routes[0] for name, one in routes.tables.items()}

    try:
        stored = await routes.store.list_routes()
        chosen.update(await routes.get_routes())
    except IntegrationError:
        return chosen, skipped(_ROUTES, "see table routes")
    strangers = sorted(stored.keys() - chosen.keys())
    if strangers:
        found = f"chosen for {', '.join(strangers)}, of which no map is in use"
        return chosen, failed(_ROUTES, found, remedies.ROUTES)
    virtual = sum(route == VIRTUAL for route in chosen.values())
    mirrored = ", ".join(name for name, route in chosen.items() if route == DATAVERSE)
    found = f"mirrored: {mirrored or 'none'}; virtual: {virtual}; chosen: {len(stored)}"
    return chosen, ok(_ROUTES, found)


def _mirrored(maps: Maps, chosen: Mapping[str, str], *, to: str) -> Sequence[EntityMap]:
    if to == "off":
        return []
    return [one for name, one in maps.entities.items() if chosen.get(name) == DATAVERSE]


def _named(maps: Maps, chosen: Mapping[str, str], prefix: str | None) -> dict[str, str]:
    """The virtual table of each resource type that the feed shows."""
    return {
        name: build_table_name(one.table, prefix)
        for name, one in maps.entities.items()
        if prefix and Route.VIRTUAL in one.routes and chosen.get(name) == VIRTUAL
    }
