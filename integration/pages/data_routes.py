"""The page Data routes: from where each table is answered, who chose that, and how to switch it.

The list costs one storage operation. The page that asks before a switch adds one request to the
FHIR server and one to Dataverse, and compiles the maps once in a worker.
"""

from __future__ import annotations

from integration.core.errors import Issue, Rejected
from integration.mapping.files import MappedTable
from integration.pages.compiled_maps import load_maps
from integration.pages.http import Reply, redirect
from integration.pages.view import View, render
from integration.virtual_tables.data_routes import (
    change_routes,
    describe_changes,
    list_routes,
)
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
    meaning = (await describe_changes(routes, {name: target}))[name]
    is_change = current != target
    return render(
        view,
        "data_route.html",
        resource=name,
        table=table,
        route=current,
        target=target,
        meaning=meaning,
        is_change=is_change,
        counts=await count_route(view, name) if is_change else None,
    )


async def switch_route(view: View) -> Reply:
    """Switch the route, and wait until every worker uses it."""
    name = view.arguments["resource"]
    find_table(view, name)
    routes = view.parts.data_routes
    await change_routes(routes, {name: view.fields.get("route")}, view.person.name)
    return redirect(f"data-routes?changed={name}")


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
    return await count_affected(entity, view.parts.fhir, view.parts.dataverse)
