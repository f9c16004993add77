"""VERB count_affected: how many resources, and how many rows, a change of a data route concerns.

It is to be shown before the change, so it waits for no slow server: what cannot be counted in time
is unknown. It costs one request to the FHIR server and two to Dataverse.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

from integration.core import decimal_json
from integration.core.activity_recorder import add_activity_context
from integration.core.errors import IntegrationError, Unavailable
from integration.dataverse import requests
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.mapping.model import EntityMap

# Seconds that each server has for its answer.
PATIENCE = 8.0

# Dataverse counts no further: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/count-rows
MAX_ROWS = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """So many. `number` None: unknown, and `reason` says why. `is_more`: there may be more."""

    number: int | None
    is_more: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteCounts:
    """The resources of the type in the FHIR server, the rows of Dataverse that show one, and the
    active rows that show none: somebody has made them in Dataverse."""

    resources: Count
    rows: Count
    others: Count = Count(number=0)


async def count_affected(
    entity: EntityMap, fhir: FhirServer, dataverse: Dataverse, patience: float = PATIENCE
) -> RouteCounts:
    """Count both. Whatever a server does, there is an answer."""
    async with fhir.upstream.activities.track():
        resources, rows, others = await asyncio.gather(
            _wait(_count_resources(entity.resource, fhir), patience),
            _wait(_count_rows(entity, dataverse, f"{entity.id_column} ne null"), patience),
            _wait(_count_rows(entity, dataverse, f"{entity.id_column} eq null"), patience),
        )
    return RouteCounts(resources=resources, rows=rows, others=others)


async def _wait(work: Awaitable[Count], patience: float) -> Count:
    try:
        async with asyncio.timeout(patience):
            return await work
    except TimeoutError:
        return Count(number=None, reason=f"no answer in {patience:g} s")
    except IntegrationError as error:
        return Count(number=None, reason=str(error))


async def _count_resources(type_: str, fhir: FhirServer) -> Count:
    """https://hl7.org/fhir/R4/search.html#summary"""
    with add_activity_context(action="count"):
        found = await fhir.search(f"{type_}?_summary=count", "data-routes")
    total = found.get("total")
    if type(total) is not int:
        return Count(number=None, reason="the FHIR server does not say how many")
    return Count(number=total)


async def _count_rows(entity: EntityMap, dataverse: Dataverse, condition: str) -> Count:
    """Several resource types may share a table: only the rows of this one count."""
    if entity.kind_column is not None:
        condition += f" and {entity.kind_column} eq {_quote(entity.kind_value)}"
    query = requests.build_count_query(entity.entity_set, entity.key, condition)
    with add_activity_context(action="count", table=entity.table):
        response = await dataverse.send(query, "data-routes")
    if response.status == 404:
        return Count(number=None, reason=f"Dataverse has no table {entity.table}")
    if response.status != 200:
        return Count(number=None, reason=f"Dataverse answered {response.status}")
    body = decimal_json.decode_object(response.body) or {}
    number = body.get("@odata.count")
    if type(number) is not int:
        raise Unavailable("Dataverse", "the answer has no count")
    return Count(number=number, is_more=number >= MAX_ROWS)


def _quote(value: Any) -> str:
    return requests.quote_literal(value) if isinstance(value, str) else str(value).lower()
