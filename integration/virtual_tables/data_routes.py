"""Choose whether the rows of a table come from the mirror or from the feed.

A change of the route moves and deletes nothing. Rows that the mirror wrote stay where they are; a
reconcile updates those that were not mirrored for a while.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from integration.core.errors import Issue, Rejected
from integration.journal.data_routes import ChosenRoute, DataRouteStore
from integration.mapping.files import MappedTable
from integration.queues.names import EXTERNAL_QUEUE, MIRROR_QUEUE

DATAVERSE, VIRTUAL = "dataverse", "virtual"

# Every worker uses a changed route after this many seconds, and those that a request to storage
# takes. A change is answered only then: what it says of changes from now on holds for all workers.
_CACHE_SECONDS = 15.0
_SPREAD_SECONDS = 20.0

# Who changes a route through the API: of a function key it is not known who has it.
FUNCTION_KEY = "function key"


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True, kw_only=True)
class DataRoutes:
    """The data routes in use.

    `tables`: those of the maps in use, by resource type. `event_types`: the resource types whose
    changes Dataverse is told of as external events. `clock` and `pause` are in seconds. `now`: what
    is noted as the time of a change.
    """

    store: DataRouteStore
    tables: Mapping[str, MappedTable]
    is_mirroring: bool
    event_types: frozenset[str] = frozenset()
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep
    now: Callable[[], datetime] = _utc_now
    _chosen: Mapping[str, ChosenRoute] = field(default_factory=dict)
    _cached: Mapping[str, str] = field(default_factory=dict)
    _cached_until: float = 0.0

    async def get_routes(self) -> Mapping[str, str]:
        """Return the route of every resource type that has a map. Raises Unavailable."""
        if not self._cached or self.clock() >= self._cached_until:
            self._chosen = {
                name: chosen
                for name, chosen in (await self.store.list_routes()).items()
                if name in self.tables and chosen.route in self.tables[name].routes
            }
            self._cached = {
                name: self._chosen[name].route if name in self._chosen else table.routes[0]
                for name, table in self.tables.items()
            }
            self._cached_until = self.clock() + _CACHE_SECONDS
        return self._cached

    async def get_choices(self) -> Mapping[str, ChosenRoute]:
        """Return the routes that were chosen, and count, by resource type. Raises Unavailable."""
        await self.get_routes()
        return self._chosen

    async def get_change_queues(self) -> Mapping[str, str]:
        """Return the queue that is told of each change, by resource type."""
        routes = await self.get_routes()
        queues = {name: self._choose_queue(name, route) for name, route in routes.items()}
        return {name: queue for name, queue in queues.items() if queue is not None}

    async def read_change_queues(self) -> Mapping[str, str]:
        """Return the same as the store has it now. Raises Unavailable."""
        self.clear_cache()
        return await self.get_change_queues()

    async def list_virtual_types(self) -> frozenset[str]:
        """Return the resource types that the feed shows."""
        routes = await self.get_routes()
        return frozenset(name for name, route in routes.items() if route == VIRTUAL)

    def _choose_queue(self, name: str, route: str) -> str | None:
        if route == DATAVERSE:
            return MIRROR_QUEUE if self.is_mirroring else None
        return EXTERNAL_QUEUE if name in self.event_types else None

    def clear_cache(self) -> None:
        """Ask the store again at the next use."""
        self._cached_until = 0.0


async def list_routes(routes: DataRoutes) -> list[dict[str, Any]]:
    """List every table with its route, the routes that it may have, and who chose it when, which
    is None where the map decides."""
    current, choices = await routes.get_routes(), await routes.get_choices()
    map_decides = ChosenRoute("")
    return [
        {
            "resource": name,
            "table": table.table,
            "entitySet": table.entity_set,
            "route": current[name],
            "possible": list(table.routes),
            "changed": choices.get(name, map_decides).changed,
            "changedBy": choices.get(name, map_decides).changed_by,
        }
        for name, table in sorted(routes.tables.items())
    ]


async def describe_changes(routes: DataRoutes, requested: Any) -> dict[str, str]:
    """Return what a change of the routes would mean, by resource type, and change nothing. Raises
    Rejected for routes that are not valid."""
    current = await _check_changes(routes, requested)
    return {
        name: _describe_change(routes, name, current[name], route)
        for name, route in requested.items()
    }


async def change_routes(routes: DataRoutes, requested: Any, changed_by: str) -> dict[str, str]:
    """Change the routes to `requested`, routes by resource type: all of them or none. Wait until
    every worker uses them. `changed_by` is kept with each.

    Returns what each change means, by resource type. Raises Rejected for routes that are not valid.
    """
    current = await _check_changes(routes, requested)
    meanings = {
        name: _describe_change(routes, name, current[name], route)
        for name, route in requested.items()
    }
    changed = [name for name, route in requested.items() if current[name] != route]
    if changed:
        now = routes.now()
        await routes.store.set_routes(
            {name: ChosenRoute(requested[name], changed_by, now) for name in changed}
        )
    routes.clear_cache()
    if changed:
        await routes.pause(_SPREAD_SECONDS)
    return meanings


async def _check_changes(routes: DataRoutes, requested: Any) -> Mapping[str, str]:
    """Return the current routes, as the store has them. Raises Rejected for routes that are not
    valid."""
    if not isinstance(requested, dict) or not requested:
        text = 'send routes by resource type: {"Observation": "virtual"}'
        raise Rejected(Issue("structure", text))
    found = [_find_problem(routes, name, route) for name, route in requested.items()]
    problems = [problem for problem in found if problem is not None]
    if problems:
        raise Rejected(*problems)
    routes.clear_cache()
    return await routes.get_routes()


def _find_problem(routes: DataRoutes, name: str, route: object) -> Issue | None:
    table = routes.tables.get(name)
    if table is None:
        known = ", ".join(sorted(routes.tables))
        return Issue("not-found", f"no map in use is for that resource type; there are {known}")
    if route not in (DATAVERSE, VIRTUAL):
        return Issue("value", f"the route is {DATAVERSE} or {VIRTUAL}", name)
    if route not in table.routes:
        text = f"the map of {name} allows only the route {table.routes[0]}"
        return Issue("business-rule", text, name)
    if route == DATAVERSE and not routes.is_mirroring:
        return Issue("business-rule", "nothing is mirrored, because MIRROR_TO is off", name)
    return None


def _describe_change(routes: DataRoutes, name: str, before: str, route: str) -> str:
    table = routes.tables[name]
    if route == before:
        return f"{route}, unchanged"
    if route == VIRTUAL:
        return (
            f"no longer mirrored; shown as {table.entity_set} at /api/odata/. The rows of "
            f"{table.table} stay as they are and become outdated: hide or delete them"
        )
    return (
        f"no longer shown at /api/odata/; each change from now on is mirrored to {table.table}. "
        f"For earlier changes, run: python -m integration reconcile --type {name}. It reads every "
        f"{name} of the FHIR server and writes the rows that are missing or outdated"
    )
