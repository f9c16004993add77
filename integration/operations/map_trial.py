"""VERB try_resource: the rows that a map makes of one resource, and what it does not map. Nothing
is written.

The rows contain the resource's values: show them only to whoever may see the resource. It costs a
request to Dataverse for each table whose columns the worker does not know yet.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import date
from functools import partial

from integration.core import decimal_json
from integration.core.errors import IntegrationError, Issue, Rejected, Unmappable
from integration.core.model import FhirResource, Tables
from integration.core.offload import offload
from integration.dataverse.client import Dataverse
from integration.mapping import engine
from integration.mapping.explain import ExplainedRow, assume_columns, list_rows
from integration.mapping.model import EntityMap, Route
from integration.mapping.notes import Note, parse_note
from integration.mapping.schema_mismatches import find_schema_mismatches

# Seconds for Dataverse to tell the columns of all tables of a map.
_TIMEOUT = 10.0

# Mapping takes far longer than parsing, for which the bounds of `offload` are.
_WORK = 10

# What stands for the id of a resource that has none yet.
NO_ID = "not-yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What would become of a resource. `refused`: why there would be no row. `mismatches`: where
    the map does not fit the organisation's tables. `unchecked`: why their columns are not known,
    so that lengths and options were not checked; None: they were."""

    rows: tuple[ExplainedRow, ...] = ()
    notes: tuple[Note, ...] = ()
    refused: str | None = None
    mismatches: tuple[str, ...] = ()
    unchecked: str | None = None


def parse_resource(text: str, type_: str) -> FhirResource:
    """Parse one resource of this type. Raises Rejected, with a text that quotes nothing of it."""
    try:
        resource = decimal_json.decode(text.encode())
    except decimal_json.Malformed as error:
        raise Rejected(Issue("structure", f"This cannot be read: {error}.")) from None
    if not isinstance(resource, dict):
        raise Rejected(Issue("structure", "This is JSON, but no resource: it has to be an object."))
    if resource.get("resourceType") != type_:
        why = f"This is no {type_}: resourceType has to say so. Of a bundle, give one resource."
        raise Rejected(Issue("value", why))
    if decimal_json.is_too_deep(resource):
        why = f"This is nested more than {decimal_json.MAX_DEPTH} levels deep."
        raise Rejected(Issue("structure", why))
    return {"id": NO_ID, **resource}


async def try_resource(
    entity: EntityMap,
    resource: FhirResource,
    dataverse: Dataverse,
    base: str,
    route: Route,
    *,
    today: date,
) -> Trial:
    """Map the resource as this data route does. `base`: the address of the FHIR server; `today`:
    the day of the mapping."""
    entity = entity.select_route(route)
    is_virtual = route is Route.VIRTUAL
    # A virtual table has no child rows, and takes what the map says.
    entity = replace(entity, expands=()) if is_virtual else entity
    map_ = partial(_map, entity, resource, base=base, today=today)
    if is_virtual:
        return await map_(assume_columns(entity), Trial())
    try:
        async with asyncio.timeout(_TIMEOUT):
            names = entity.tables
            found = await asyncio.gather(*map(dataverse.get_columns, names))
    except TimeoutError:
        unchecked = Trial(unchecked=f"Dataverse: no answer in {_TIMEOUT:g} s")
        return await map_(assume_columns(entity), unchecked)
    except IntegrationError as error:
        return await map_(assume_columns(entity), Trial(unchecked=str(error)))
    tables = dict(zip(names, found, strict=True))
    if mismatches := find_schema_mismatches(entity, tables):
        return Trial(
            refused="the map does not fit the tables of the organisation, so it writes no row",
            mismatches=tuple(mismatches),
        )
    return await map_(tables, Trial())


async def _map(
    entity: EntityMap,
    resource: FhirResource,
    tables: Tables,
    trial: Trial,
    *,
    base: str,
    today: date,
) -> Trial:
    def make_rows() -> Trial:
        try:
            mapped = engine.map_resource(entity, resource, tables, base, today=today)
        except Unmappable as problem:
            return replace(trial, refused=str(problem))
        return replace(
            trial,
            rows=tuple(list_rows(entity, mapped)),
            notes=tuple(parse_note(note) for note in mapped.notes),
        )

    return await offload(_WORK * len(decimal_json.encode(resource)), make_rows)
