"""The pages Maps: which maps are in use, what each does, and what it would make of a resource.

The list costs one storage operation at most, for the data routes. The page of a map costs a read of
the counts of a week besides. The first page of a worker compiles the maps. A resource that is tried
costs one read of the FHIR server where it is read by its id, one storage operation for the audit
log then, and what Dataverse is asked for its columns. It is kept nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from integration.core.errors import Issue, Rejected, Unavailable
from integration.core.flow import OTHER_ELEMENTS, UnmappedElement
from integration.core.model import FhirResource
from integration.core.offload import offload
from integration.fhir.grammar import is_id
from integration.journal.audit_entry import AccessKind, Reader, build_access
from integration.journal.audit_recorder import record
from integration.operations.flow import MAX_HOURS, report_flow
from integration.operations.maps import ListedMap, find_files, list_maps, list_unused
from integration.pages.compiled_maps import load_maps
from integration.pages.http import Reply
from integration.pages.map_lines import describe_map
from integration.pages.people import Role
from integration.pages.view import View, render

if TYPE_CHECKING:  # it imports the mapping engine, which takes long to load
    from integration.mapping.model import EntityMap
    from integration.operations.map_trial import Trial


# Rows of a trial that are shown: a resource may have thousands of items that are rows.
MAX_ROWS = 200

# Showing a column of a row takes about as long as parsing so many bytes.
_CELL = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A resource that was tried. `text` and `id` stand in the form again; `problem`: why it could
    not be tried, then there is no `trial`."""

    text: str = ""
    id: str = ""
    problem: str | None = None
    trial: Trial | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmapped:
    """What rows of a resource type could not take since then, and how often each, the most frequent
    first. `is_cut`: there was more than is named."""

    since: datetime
    elements: Sequence[tuple[UnmappedElement, int]]
    is_cut: bool


async def show_maps(view: View) -> Reply:
    """List the maps in use, those first that are broken or do not fit their table."""

    def is_wrong(item: ListedMap) -> bool:
        return item.problem is not None or bool(item.mismatches)

    sources = view.parts.maps
    maps = await load_maps(sources)
    routes = await view.parts.data_routes.get_routes()
    listed = list_maps(sources.files, maps, routes, view.parts.dataverse.get_known_columns)
    return render(
        view,
        "maps.html",
        maps=sorted(listed, key=lambda item: (not is_wrong(item), item.resource)),
        broken=sum(item.problem is not None for item in listed),
        unused=list_unused(sources.files),
        broken_unused=maps.broken_unused,
    )


async def show_map(view: View) -> Reply:
    """Show one map, and the form to try it."""
    return await _render_map(view, Tried())


async def try_map(view: View) -> Reply:
    """Show one map with what it would make of a resource. The answer is to the form itself, since
    the resource must not be in an address."""
    text, id_ = view.fields.get("resource", ""), view.fields.get("id", "")
    entity = (await load_maps(view.parts.maps)).entities.get(view.arguments["resource"])
    if entity is None:
        return await _render_map(view, Tried())
    try:
        trial = await _try(view, entity, text, id_)
    except Rejected as error:
        tried = Tried(text=text, id=id_, problem=str(error))
        return await _render_map(view, tried, status=error.status)
    return await _render_map(view, Tried(text=text, id=id_, trial=trial))


async def _try(view: View, entity: EntityMap, text: str, id_: str) -> Trial:
    """Raises Rejected for what cannot be tried."""
    # It imports the mapping engine, which takes long to load.
    from integration.mapping.model import Route
    from integration.operations.map_trial import parse_resource, try_resource

    if bool(text) == bool(id_):
        raise Rejected(Issue("required", "Give either a resource or an id."))
    parts = view.parts
    if text:
        resource = await offload(len(text), lambda: parse_resource(text, entity.resource))
    else:
        resource = await _read(view, entity, id_)
    routes = await parts.data_routes.get_routes()
    base = parts.fhir.upstream.base
    route = Route(routes[entity.resource])
    today = parts.now().astimezone(UTC).date()
    return await try_resource(entity, resource, parts.dataverse, base, route, today=today)


async def _read(view: View, entity: EntityMap, id_: str) -> FhirResource:
    """Read a resource, and record who is shown it. Raises Rejected, or that it cannot be
    recorded."""
    name = f"{entity.resource}/{id_}"
    if not is_id(id_):
        raise Rejected(Issue("value", "This is no FHIR id: up to 64 letters, digits, - and ."))
    resource = await view.parts.fhir.read(name, "maps")
    names = [] if resource is None else [name]
    status = 404 if resource is None else 200
    access = build_access(AccessKind.MAP_TRIAL, names, type_=entity.resource, status=status)
    await record(view.parts.audit, Reader(user=view.person.name), access)
    if resource is None:
        text = f"The FHIR server has no {entity.resource} with this id, or it was deleted."
        raise Rejected(Issue("not-found", text), status=404)
    return resource


async def _render_map(view: View, tried: Tried, *, status: int = 200) -> Reply:
    name, sources = view.arguments["resource"], view.parts.maps
    maps = await load_maps(sources)
    files = find_files(sources.files, name)
    if not files:
        raise Rejected(Issue("not-found", "No map in use is for this resource type."), status=404)
    entity = maps.entities.get(name)
    routes = await view.parts.data_routes.get_routes()
    unmapped = await _find_unmapped(view, name)
    rows = tried.trial.rows[:MAX_ROWS] if tried.trial else ()
    return await offload(
        _CELL * sum(len(row.columns) for row in rows),
        lambda: render(
            view,
            "map.html" if entity else "broken_map.html",
            status=status,
            resource=name,
            files=files,
            entity=entity,
            route=routes.get(name, ""),
            problem=maps.broken.get(name),
            table=describe_map(entity, files) if entity else None,
            on_delete=sources.on_delete,
            can_try=view.person.can(Role.PHI),
            tried=tried,
            rows=rows,
            unmapped=unmapped,
        ),
    )


async def _find_unmapped(view: View, type_: str) -> Unmapped | None:
    """Return what was not mapped lately; None: it cannot be read, and the map is shown without."""
    try:
        report = await report_flow(view.parts.flow, MAX_HOURS, view.parts.now())
    except Unavailable:
        return None
    elements = [pair for pair in report.unmapped.items() if pair[0].type == type_]
    is_cut = report.is_cut or OTHER_ELEMENTS in report.unmapped
    return Unmapped(since=report.since, elements=elements, is_cut=is_cut)
