"""Choose from where the feed answers for a table: FHIR, or Dataverse's own rows.

The entity set is there on both routes, with the same keys, so views, forms and flows go on. Before
a table is answered from Dataverse, its rows are brought there: changes are mirrored from then on, a
job brings what was there before, and at its end the route changes. Until then FHIR answers. The
other way nothing has to be brought, since FHIR has it all. No row is moved or deleted.
docs/decisions/0049-one-table-two-sources.md
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
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

# The job that brings rows begins after this many: by then every change is mirrored, and the FHIR
# server's searches show what was written before, also where they are answered by a copy.
_BRINGING_DELAY = 45.0

# Who changes a route through the API: of a function key it is not known who has it.
FUNCTION_KEY = "function key"


@dataclass(frozen=True, slots=True, kw_only=True)
class BringingJobs:
    """The jobs that bring rows into Dataverse.

    `add`: adds one for a resource type and the person who wants it, and returns its id; raises
    Rejected where that cannot be done. `begin`: has it begin after some seconds; until then it does
    nothing.
    """

    add: Callable[[str, str], Awaitable[str]]
    begin: Callable[[str, float], Awaitable[None]]


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
        asked = self.clock()
        if not self._cached or asked >= self._cached_until:
            listed = await self.store.list_routes()
            self._chosen = {
                name: chosen
                for name, chosen in listed.items()
                if name in self.tables and chosen.route in self.tables[name].routes
            }
            self._cached = {
                name: self._chosen[name].route if name in self._chosen else table.routes[0]
                for name, table in self.tables.items()
            }
            # From when it was asked: an answer that takes long is as old as its question.
            self._cached_until = asked + _CACHE_SECONDS
        return self._cached

    def get_known_route(self, name: str) -> str | None:
        """Return the route of a resource type as the store had it when it was last asked."""
        return self._cached.get(name)

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

    async def get_reported_types(self) -> Mapping[str, bool]:
        """Return the types whose changes are reported to Dataverse once the mirror has looked at
        their rows: flows run on the virtual table, whichever route it has. And whether it shows
        what FHIR has, also where the row could not be written."""
        routes, queues = await self.get_routes(), await self.get_change_queues()
        return {
            name: routes[name] == VIRTUAL
            for name, queue in queues.items()
            if queue == MIRROR_QUEUE
            and name in self.event_types
            and VIRTUAL in self.tables[name].routes
        }

    def has_had_rows(self, name: str) -> bool:
        """Whether the mirror may have written rows of a resource type, as the store had it when it
        was last asked. Of a type without a map in use, it may have."""
        table = self.tables.get(name)
        return table is None or table.routes[0] == DATAVERSE or name in self._chosen

    def _choose_queue(self, name: str, route: str) -> str | None:
        if route == DATAVERSE or self.is_bringing(name):
            return MIRROR_QUEUE if self.is_mirroring else None
        return EXTERNAL_QUEUE if name in self.event_types else None

    def is_bringing(self, name: str) -> bool:
        """Whether the rows of a resource type are being brought into Dataverse, as the store had it
        when it was last asked."""
        return name in self._chosen and self._chosen[name].bringing is not None

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
            "bringing": choices.get(name, map_decides).bringing,
            "changed": choices.get(name, map_decides).changed,
            "changedBy": choices.get(name, map_decides).changed_by,
        }
        for name, table in sorted(routes.tables.items())
    ]


async def describe_changes(
    routes: DataRoutes, requested: Any, *, brings: bool = True
) -> dict[str, str]:
    """Return what a change of the routes would mean, by resource type, and change nothing. Raises
    Rejected for routes that are not valid."""
    current = await _check_changes(routes, requested)
    return {
        name: _describe_change(routes, name, current[name], route, brings=brings)
        for name, route in requested.items()
    }


async def change_routes(
    routes: DataRoutes, requested: Any, changed_by: str, jobs: BringingJobs | None
) -> dict[str, str]:
    """Change the routes to `requested`, routes by resource type: all of them or none. Wait until
    every worker uses them. `changed_by` is kept with each. `jobs`: a table that is to be answered
    from Dataverse is so once a job has brought its rows; None: at once.

    Returns what each change means, by resource type. Raises Rejected for routes that are not valid.
    """
    meanings = await describe_changes(routes, requested, brings=jobs is not None)
    chosen = {
        name: await _choose(routes, name, route, changed_by, jobs)
        for name, route in requested.items()
        if await _is_change(routes, name, route)
    }
    if chosen:
        await routes.store.set_routes(chosen)
    routes.clear_cache()
    if jobs is not None:
        # A job begins when every worker mirrors what changes: nothing falls between the two.
        for choice in chosen.values():
            if choice.bringing is not None:
                await jobs.begin(choice.bringing, _BRINGING_DELAY)
    if chosen:
        await routes.pause(_SPREAD_SECONDS)
    return meanings


async def is_brought_by(routes: DataRoutes, name: str, job: str) -> bool:
    """Whether a job is still to bring the rows of a table: not where somebody has chosen otherwise
    since. Raises Unavailable."""
    routes.clear_cache()
    chosen = (await routes.get_choices()).get(name)
    return chosen is not None and chosen.bringing == job


async def end_bringing(routes: DataRoutes, name: str, job: str, *, is_brought: bool) -> bool:
    """End that a job brings the rows of a table: it is answered from Dataverse now if they are
    there, else from FHIR as before. Return whether Dataverse answers, which it does not where
    somebody has chosen otherwise since. Raises Unavailable."""
    routes.clear_cache()
    chosen = (await routes.get_choices()).get(name)
    if chosen is None or chosen.bringing != job:
        return chosen is not None and chosen.route == DATAVERSE
    route = DATAVERSE if is_brought else chosen.route
    ended = replace(chosen, route=route, bringing=None, changed=routes.now())
    is_ended = await routes.store.set_routes({name: ended}, {name: chosen})
    routes.clear_cache()
    return is_ended and is_brought


async def _is_change(routes: DataRoutes, name: str, route: str) -> bool:
    """Whether a route is to be set: a table whose rows are being brought is `virtual` still, and to
    choose that again ends the bringing. Who chooses `dataverse` again gets another job: the first
    one may have been stopped, and if not, it changes nothing at its end."""
    return (await routes.get_routes())[name] != route or routes.is_bringing(name)


async def _choose(
    routes: DataRoutes, name: str, route: str, changed_by: str, jobs: BringingJobs | None
) -> ChosenRoute:
    now = routes.now()
    if route == VIRTUAL or jobs is None:
        return ChosenRoute(route, changed_by, now)
    return ChosenRoute(VIRTUAL, changed_by, now, bringing=await jobs.add(name, changed_by))


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


def _describe_change(
    routes: DataRoutes, name: str, before: str, route: str, *, brings: bool
) -> str:
    table = routes.tables[name]
    shown = f"{table.entity_set} at /api/odata/"
    if route == before:
        if routes.is_bringing(name):
            return f"{route}; its rows are no longer brought into {table.table}"
        return f"{route}, unchanged"
    if route == VIRTUAL:
        return (
            f"{shown} is answered from FHIR, and changes are no longer mirrored. The rows of "
            f"{table.table} stay as they are and become outdated; those that no resource of FHIR "
            "stands behind are not shown any more"
        )
    if not brings:
        return (
            f"{shown} is answered from the rows of {table.table} at once, and each change from now "
            "on is mirrored to them. What was there before is missing until a reconcile brings it: "
            f"python -m integration reconcile --type {name}"
        )
    return (
        f"each change from now on is mirrored to {table.table}, and a job brings what was there "
        f"before. At its end {shown} is answered from these rows; until then from FHIR"
    )
