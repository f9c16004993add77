"""`python -m integration check`: can this identity reach and use every service, as the app will?"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from integration.app.package_documents import (
    find_senders_text,
    parse_configured_maps,
    read_package_documents,
)
from integration.app.settings import find_renamed_settings
from integration.check import dataverse, fhir, remedies, senders, virtual_tables
from integration.check.connections import Connections, open_connections
from integration.check.report import (
    CheckResult,
    has_no_failure,
    render_table,
    report_failure,
    report_ok,
    report_skip,
    report_warning,
)
from integration.core.errors import IntegrationError
from integration.dataverse.virtual_table_names import build_table_name
from integration.journal.configuration import ConfigurationVersion
from integration.journal.configured_routes import ConfiguredRoutes
from integration.journal.live_configuration import Configuration, LiveConfiguration
from integration.mapping import files, load
from integration.mapping.load import Maps
from integration.mapping.model import EntityMap, Route
from integration.virtual_tables.data_routes import DATAVERSE, VIRTUAL, DataRoutes

_NAMES, _ROUTES, _MAPS, _IDENTITY = "names of settings", "data routes", "maps", "identity"
_CONFIGURATION = "configuration"
_STORAGE_SCOPE = "https://storage.azure.com/.default"

# Prints one line on the terminal.
PrintLine = Callable[[str], object]

# Opens the clients of all services. The argument: seconds that clocks may differ.
OpenConnections = Callable[[float], AbstractAsyncContextManager[Connections]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options. What is checked, the settings say."""
    parser.add_argument(
        "--skew",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how much the clocks of the services may differ from this machine's (by default 60)",
    )


def run(
    chosen: argparse.Namespace,
    print_line: PrintLine,
    open_connections: OpenConnections = open_connections,
) -> int:
    """Return 0 if no check failed, 1 if one did, 2 if a setting is missing or wrong."""
    try:
        results = asyncio.run(_open_and_check(open_connections(chosen.skew)))
    except IntegrationError as error:
        print_line(str(error))
        return 2
    for line in render_table(results):
        print_line(line)
    return 0 if has_no_failure(results) else 1


async def _open_and_check(opening: AbstractAsyncContextManager[Connections]) -> list[CheckResult]:
    async with opening as connections:
        return await check_all(connections)


async def check_all(connections: Connections) -> list[CheckResult]:
    """Run every check; the results are in the order of a delivery's way through the services.

    Raises Misconfigured if a setting or an entity map is wrong.
    """
    from integration.check import storage  # its SDKs are slow to import
    from integration.journal import azure_configuration

    used = connections.settings.mirror
    live = LiveConfiguration(
        store=azure_configuration.build_configuration_store(
            connections.storage.blobs, connections.storage.tables
        ),
        package=read_package_documents(connections.settings),
    )
    configuration, report_version = await _read_configuration(live)
    read = parse_configured_maps(configuration.documents, used)
    maps = load.build_maps(read)
    event_types = frozenset(connections.settings.feed.event_types)
    routes = DataRoutes(
        store=ConfiguredRoutes(live),
        tables=files.list_tables(read),
        is_mirroring=used.target != "off",
        event_types=event_types,
    )
    chosen, routes_result = await _check_data_routes(routes)
    mirrored = _select_mirrored(maps, chosen, to=used.target)
    virtual = _name_virtual_tables(maps, chosen, used.map_prefix)
    event_tables = [table for name, table in virtual.items() if name in event_types]
    identity = await _check_identity(connections)
    services, tables = await asyncio.gather(
        asyncio.gather(storage.check_storage(connections), fhir.check_fhir(connections)),
        asyncio.gather(
            dataverse.check_dataverse(connections, maps, mirrored, event_tables),
            virtual_tables.check_virtual_tables(connections, virtual, event_tables),
            fhir.check_sources(connections),
        ),
    )
    return [
        identity,
        _check_setting_names(find_renamed_settings()),
        report_version,
        *senders.report_senders(
            connections.settings.senders,
            connections.settings.fetch_from,
            find_senders_text(configuration.documents),
        ),
        *(result for results in services for result in results),
        *(_check_maps(maps), routes_result),
        *(result for results in tables for result in results),
    ]


async def _read_configuration(live: LiveConfiguration) -> tuple[Configuration, CheckResult]:
    """Return the configuration in use, and the result. If it cannot be read, return the package's,
    with which a new app begins."""
    try:
        configuration = await live.refresh()
    except IntegrationError:
        found = "it cannot be read: see the check of its table. Below, the files of the package"
        return await live.read(ConfigurationVersion()), report_skip(_CONFIGURATION, found)
    number, documents = configuration.version.number, len(configuration.version.documents)
    found = f"version {number}: {documents} documents differ from the package's"
    return configuration, report_ok(_CONFIGURATION, found)


def _check_setting_names(renamed: Mapping[str, str]) -> CheckResult:
    """A setting of an older name is not read: its default holds, and nothing else tells so."""
    if renamed:
        listed = ", ".join(f"{old} is now {new}" for old, new in renamed.items())
        return report_warning(_NAMES, f"not read: {listed}", remedies.RENAMED)
    return report_ok(_NAMES, "none has a name of an earlier version")


async def _check_identity(connections: Connections) -> CheckResult:
    """Get a token for each service. Otherwise a missing token would look like a missing role."""
    settings = connections.settings
    scopes = [settings.fhir.scope, settings.dataverse.scope, *settings.fetch_from.values()]
    required = {scope for scope in scopes if scope}
    if settings.storage.connection is None:
        required.add(_STORAGE_SCOPE)
    if connections.credential is None or not required:
        return report_skip(_IDENTITY, "no service of these settings requires a token")
    for scope in sorted(required):
        try:
            await connections.credential.get_token(scope)
        except Exception as error:  # azure.identity raises one class for every cause
            found = f"no token for {scope} ({type(error).__name__})"
            return report_failure(_IDENTITY, found, remedies.IDENTITY)
    return report_ok(_IDENTITY, f"has tokens for {len(required)} services")


def _check_maps(maps: Maps) -> CheckResult:
    if maps.broken:
        broken = "; ".join(maps.broken.values())
        return report_failure(_MAPS, broken, "correct the map: docs/mapping.md")
    return report_ok(_MAPS, f"{len(maps.entities)} in use")


async def _check_data_routes(routes: DataRoutes) -> tuple[Mapping[str, str], CheckResult]:
    """Return the data route of each table, and the result. If their table cannot be read,
    return the defaults of the maps."""
    chosen = {name: entity.routes[0] for name, entity in routes.tables.items()}

    try:
        stored = await routes.store.list_routes()
        chosen.update(await routes.get_routes())
    except IntegrationError:
        return chosen, report_skip(_ROUTES, "they cannot be read: see the check of their table")
    strangers = sorted(stored.keys() - chosen.keys())
    if strangers:
        found = f"chosen for {', '.join(strangers)}, of which no map is in use"
        return chosen, report_failure(_ROUTES, found, remedies.ROUTES)
    virtual = sum(route == VIRTUAL for route in chosen.values())
    mirrored = ", ".join(name for name, route in chosen.items() if route == DATAVERSE)
    found = f"mirrored: {mirrored or 'none'}; virtual: {virtual}; chosen: {len(stored)}"
    return chosen, report_ok(_ROUTES, found)


def _select_mirrored(maps: Maps, chosen: Mapping[str, str], *, to: str) -> Sequence[EntityMap]:
    if to == "off":
        return []
    return [entity for name, entity in maps.entities.items() if chosen.get(name) == DATAVERSE]


def _name_virtual_tables(
    maps: Maps, chosen: Mapping[str, str], prefix: str | None
) -> dict[str, str]:
    """Return the virtual table of each resource type whose data route is FHIR."""
    return {
        name: build_table_name(entity.table, prefix)
        for name, entity in maps.entities.items()
        if prefix and Route.VIRTUAL in entity.routes and chosen.get(name) == VIRTUAL
    }
