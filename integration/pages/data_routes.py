"""The page Data routes: from where each table is answered, who chose that, and how to switch it.

The list costs one storage operation. The page that asks before a switch adds one request to the
FHIR server and one to Dataverse, and compiles the maps once in a worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from integration.core.errors import Issue, Misconfigured, Rejected, Unavailable
from integration.mapping.files import MappedTable
from integration.mapping.model import Route
from integration.operations.bringing import add_bringing_job
from integration.operations.jobs import JobParts, begin_job
from integration.pages.compiled_maps import load_maps
from integration.pages.http import Reply, redirect
from integration.pages.view import View, render
from integration.virtual_tables.data_routes import (
    DATAVERSE,
    BringingJobs,
    change_routes,
    describe_changes,
    list_routes,
)
from integration.virtual_tables.entity_type import build_entity_type
from integration.virtual_tables.physical.source import read_columns
from integration.virtual_tables.physical.table import build_physical_table
from integration.virtual_tables.route_counts import Count, RouteCounts, count_affected


async def show_data_routes(view: View) -> Reply:
    """Show each table with its route. `changed` names the one that was switched just now."""
    routes = view.parts.data_routes
    changed = view.fields.get("changed")
    return render(
        view,
        "data_routes.html",
        routes=await list_routes(routes),
        changed=changed if changed in routes.tables else None,
        is_mirroring=routes.is_mirroring,
    )


async def show_switch(view: View) -> Reply:
    """Show what a switch would do, counted, and ask whether to do it."""
    routes = view.parts.data_routes
    name = view.arguments["resource"]
    table = find_table(view, name)
    current = (await routes.get_routes())[name]
    others = (route for route in table.routes if route != current)
    target = view.fields.get("to") or next(others, current)
    brings = view.fields.get("bring") != "no"
    meaning = (await describe_changes(routes, {name: target}, brings=brings))[name]
    is_bringing = routes.is_bringing(name)
    is_change = current != target or is_bringing
    return render(
        view,
        "data_route.html",
        resource=name,
        table=table,
        route=current,
        target=target,
        meaning=meaning,
        is_change=is_change,
        brings=brings,
        job=(await routes.get_choices())[name].bringing if is_bringing else None,
        missing=await _list_missing(view, name) if is_change and target == DATAVERSE else (),
        counts=await count_route(view, name) if is_change else None,
    )


async def switch_route(view: View) -> Reply:
    """Switch the route, and wait until every worker uses it. Rows are brought by a job."""
    name = view.arguments["resource"]
    find_table(view, name)
    brings = view.fields.get("bring") != "no"
    jobs = _build_bringing_jobs(view.parts.jobs) if brings else None
    requested = {name: view.fields.get("route")}
    await change_routes(view.parts.data_routes, requested, view.person.name, jobs)
    return redirect(f"data-routes?changed={name}")


def _build_bringing_jobs(jobs: JobParts) -> BringingJobs:
    return BringingJobs(add=partial(add_bringing_job, jobs), begin=partial(begin_job, jobs))


async def _list_missing(view: View, name: str) -> Sequence[str]:
    """List the columns that are empty while a table is answered from Dataverse."""
    maps = await load_maps(view.parts.maps)
    entity = maps.entities.get(name)
    if entity is None:
        return ()
    try:
        columns, related = await read_columns(view.parts.dataverse, entity)
    except (Misconfigured, Unavailable):
        return ()  # the count says that the table is not there, or not to be asked
    entity_type = build_entity_type(entity)
    return build_physical_table(entity_type, entity, columns, related, maps.available).missing


def find_table(view: View, name: str) -> MappedTable:
    """Return the table of a resource type. Raises Rejected with 404 where it has none."""
    table = view.parts.data_routes.tables.get(name)
    if table is None:
        raise Rejected(Issue("not-found", "No map in use is for this resource type."), status=404)
    return table


async def count_route(view: View, name: str) -> RouteCounts:
    """Count the resources of a type, and the rows that show one."""
    maps = await load_maps(view.parts.maps)
    entity = maps.entities.get(name)
    if entity is None:
        unknown = Count(number=None, reason=f"the map of {name} is broken")
        return RouteCounts(resources=unknown, rows=unknown)
    rows = entity.select_route(Route.DATAVERSE)
    return await count_affected(rows, view.parts.fhir, view.parts.dataverse)
