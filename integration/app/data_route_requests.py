"""Answer the requests that list data routes, say what a change would do, and change them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import azure.functions as func

from integration.app import responses
from integration.app.wiring import Parts
from integration.core.errors import MethodNotAllowed
from integration.operations.bringing import add_bringing_job
from integration.operations.jobs import JobParts, begin_job
from integration.virtual_tables.data_routes import (
    FUNCTION_KEY,
    BringingJobs,
    change_routes,
    describe_changes,
    list_routes,
)

PARAMETERS = ("dry-run", "bring")


async def answer_data_routes(
    parts: Parts, req: func.HttpRequest, query: Mapping[str, str]
) -> func.HttpResponse:
    """Answer a request. Raises Rejected for routes that are not valid."""
    match req.method:
        case "GET":
            return responses.build_data_routes(await list_routes(parts.data_routes))
        case "PATCH":
            requested = responses.parse_json_body(req)
            brings = responses.parse_flag(query, "bring", default=True)
            if responses.is_dry_run(query):
                meanings = await describe_changes(parts.data_routes, requested, brings=brings)
                return responses.build_changed_routes(meanings, await _count(parts, meanings))
            jobs = _build_bringing_jobs(parts.jobs) if brings else None
            changed = await change_routes(parts.data_routes, requested, FUNCTION_KEY, jobs)
            return responses.build_changed_routes(changed)
    raise MethodNotAllowed("GET", "PATCH")


def _build_bringing_jobs(jobs: JobParts) -> BringingJobs:
    return BringingJobs(add=partial(add_bringing_job, jobs), begin=partial(begin_job, jobs))


async def _count(parts: Parts, types: Mapping[str, str]) -> dict[str, Any]:
    """Count what each change concerns; None: the map of the type is broken."""
    from integration.mapping.model import Route  # slow to import
    from integration.virtual_tables.route_counts import count_affected

    maps = await asyncio.to_thread(parts.maps.load)
    counts: dict[str, Any] = {}
    for name in types:
        entity = maps.entities.get(name)
        if entity is None:
            counts[name] = None
            continue
        rows = entity.select_route(Route.DATAVERSE)
        counts[name] = asdict(await count_affected(rows, parts.fhir, parts.dataverse))
    return counts
