"""VERB choose: whether Dataverse has a table's rows from the mirror or from the feed.

Choosing moves and deletes nothing. Rows that the mirror wrote stay where they are; a reconcile
brings up to date what was not mirrored for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from integration.core.errors import Issue, Rejected
from integration.journal.data_routes import DataRouteStore
from integration.mapping.files import MappedTable
from integration.queues.names import EXTERNAL_QUEUE, MIRROR_QUEUE

DATAVERSE, VIRTUAL = "dataverse", "virtual"

# A choice is known to every worker after so many seconds.
_AGE = 15.0


@dataclass(slots=True)
class DataRoutes:
    """What choosing needs. `tables` of the maps in use, by resource type; `mirrors`: whether there
    is a mirror; `told`: the types of whose changes flows are to hear."""

    store: DataRouteStore
    tables: Mapping[str, MappedTable]
    is_mirroring: bool
    event_types: frozenset[str] = frozenset()
    clock: Callable[[], float] = time.monotonic
    _known: Mapping[str, str] = field(default_factory=dict)
    _until: float = 0.0

    async def get_routes(self) -> Mapping[str, str]:
        """The route of every resource type that has a map. Raises Unavailable."""
        if not self._known or self.clock() >= self._until:
            chosen = await self.store.list_routes()
            self._known = {
                name: chosen[name] if chosen.get(name) in table.routes else table.routes[0]
                for name, table in self.tables.items()
            }
            self._until = self.clock() + _AGE
        return self._known

    async def get_change_queues(self) -> Mapping[str, str]:
        """By resource type, the queue that hears of each change."""
        return {name: queue for name, route in (await self.get_routes()).items()
                if (queue := self._queue(name, route))}  # fmt: skip

    async def list_virtual_types(self) -> frozenset[str]:
        """The resource types that the feed shows."""
        return frozenset(
            name for name, route in (await self.get_routes()).items() if route == VIRTUAL
        )

    def _queue(self, name: str, route: str) -> str | None:
        if route == DATAVERSE:
            return MIRROR_QUEUE if self.is_mirroring else None
        return EXTERNAL_QUEUE if name in self.event_types else None

    def clear_cache(self) -> None:
        """Ask again at the next use."""
        self._until = 0.0


async def list_routes(it: DataRoutes) -> list[dict[str, Any]]:
    """Every table with its route and those that it may have."""
    current = await it.get_routes()
    return [
        {
            "resource": name,
            "table": table.table,
            "entitySet": table.entity_set,
            "route": current[name],
            "possible": list(table.routes),
        }
        for name, table in sorted(it.tables.items())
    ]


async def change_routes(it: DataRoutes, asked: Any) -> dict[str, str]:
    """Take `asked`, routes by resource type: all or none. What it means, by resource type.

    Raises Rejected for what is no such choice.
    """
    if not isinstance(asked, dict) or not asked:
        raise Rejected(
            Issue("structure", 'say routes by resource type: {"Observation": "virtual"}')
        )
    problems = [problem for name, route in asked.items() if (problem := _problem(it, name, route))]
    if problems:
        raise Rejected(*problems)
    it.clear_cache()
    current = await it.get_routes()
    meant = {name: _meaning(it, name, current[name], route) for name, route in asked.items()}
    for name, route in asked.items():
        if current[name] != route:
            await it.store.set_route(name, route)
    it.clear_cache()
    return meant


def _problem(it: DataRoutes, name: str, route: object) -> Issue | None:
    table = it.tables.get(name)
    if table is None:
        known = ", ".join(sorted(it.tables))
        return Issue("not-found", f"no map in use is of that resource type; there are {known}")
    if route not in (DATAVERSE, VIRTUAL):
        return Issue("value", f"the route is {DATAVERSE} or {VIRTUAL}", name)
    if route not in table.routes:
        return Issue("business-rule", f"the map of {name} is for {table.routes[0]} alone", name)
    if route == DATAVERSE and not it.is_mirroring:
        return Issue("business-rule", "nothing is mirrored: MIRROR_TO is off", name)
    return None


def _meaning(it: DataRoutes, name: str, before: str, route: str) -> str:
    table = it.tables[name]
    if route == before:
        return f"{route}, as it was"
    if route == VIRTUAL:
        return (
            f"mirrored no more; shown as {table.entity_set} at /api/odata/. Rows of {table.table} "
            "stay as they are, and become old: hide or delete them"
        )
    return (
        f"shown no more at /api/odata/; each change from now on is mirrored to {table.table}. For "
        f"what was there before: python -m integration reconcile --type {name} reads every {name} "
        "of the FHIR server and writes the rows that are missing or behind"
    )
