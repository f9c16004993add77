"""Through FHIR by the time of the last update, or through the rows, a page at a time.

What changes on the way is met later or was changed by a mirror of its own; nothing is skipped,
since a later update moves a resource towards the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import quote

from integration.core.errors import Misconfigured, Unavailable
from integration.core.model import Request, Response, WorkItem
from integration.dataverse import requests
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.fhir.searchset import Searchset, find_next_path, list_matches
from integration.mapping.model import EntityMap, LongId
from integration.mirror.mirror import Mirror, mirror_or_raise
from integration.queues.retry import plan_retry
from integration.reconcile import row_pages
from integration.reconcile.differences import (
    ID,
    Difference,
    DifferenceKind,
    Repair,
    Row,
    build_in_filter,
    compare,
    list_columns,
    to_row_id,
)

# https://learn.microsoft.com/azure/healthcare-apis/fhir/fhir-features-supported
_PAGE_SIZE = 1000

# Ids in one address: about 9,000 and 4,000 characters.
_IDS_PER_FILTER = 200
_IDS_PER_SEARCH = 100

# Rows that are mirrored side by side; how many requests there are is the limiters' business.
_CONCURRENT_REPAIRS = 64

# Seconds that a neighbour's trouble may last, before the run ends.
_MAX_WAIT = 3600.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ReconcileRun:
    """What reconciling needs. `run`: the delivery under which its rows are noted; `dry`: look,
    and change nothing."""

    mirror: Mirror
    fhir: FhirServer
    dataverse: Dataverse
    id: str
    sleep: Callable[[float], Awaitable[object]]
    dry_run: bool = False
    page_size: int = _PAGE_SIZE
    ids_per_search: int = _IDS_PER_SEARCH


@dataclass(frozen=True, slots=True)
class Page:
    """How many were looked at, what differed, and up to which update FHIR has been seen."""

    count: int
    repairs: Sequence[Repair]
    updated_until: str | None = None


async def walk_resources(
    run: ReconcileRun, entity: EntityMap, since: str | None
) -> AsyncIterator[Page]:
    """Every resource that was updated since then. Raises Unavailable or Misconfigured."""
    after = f"_lastUpdated=ge{quote(since)}&" if since else ""
    path: str | None = (
        f"{entity.resource}?{after}_sort=_lastUpdated&_count={run.page_size}&_elements=id,meta"
    )
    while path is not None:
        searchset = await _search(run, path)
        found = list(list_matches(entity.resource, searchset))
        repairs = await _repair_all(run, await _find_differences(run, entity, found))
        last = found[-1].get("meta", {}).get("lastUpdated") if found else None
        yield Page(len(found), repairs, last)
        path = find_next_path(searchset, run.fhir.upstream.name, run.fhir.upstream.base)


async def walk_rows(run: ReconcileRun, entity: EntityMap) -> AsyncIterator[Page]:
    """Every active row that shows a resource. Raises Unavailable or Misconfigured."""
    if entity.long_id is LongId.DIGEST:
        # What such a row shows may be no id at all, and would be taken for that of nobody.
        raise Misconfigured(f"{entity.file}: rows that show digests of ids cannot be traced back")
    condition = f"{entity.id_column} ne null and statecode eq 0"
    first = requests.build_row_query(entity.entity_set, list_columns(entity), condition)
    request: Request | None = replace(
        first, headers={**first.headers, "prefer": f"odata.maxpagesize={run.page_size}"}
    )
    while request is not None:
        page = row_pages.parse_page(
            run.dataverse, await _retry_while_unavailable(run, _prepare_send(run, request))
        )
        rows = [row for row in page["value"] if entity.has_kind_of(row)]
        left_over = await asyncio.gather(
            *(_find_left_over(run, entity, some) for some in _split(rows, run.ids_per_search))
        )
        repairs = await _repair_all(run, [difference for some in left_over for difference in some])
        yield Page(len(rows), repairs)
        request = row_pages.build_next_request(run.dataverse, request, page)


# -- comparing ------------------------------------------------------------------------------------


async def _find_differences(
    run: ReconcileRun, entity: EntityMap, found: Sequence[dict[str, Any]]
) -> list[Difference]:
    columns = await _retry_while_unavailable(run, lambda: run.dataverse.get_columns(entity.table))
    row_ids = (to_row_id(entity, row_id["id"], columns) for row_id in found)
    ids = list(dict.fromkeys(row_id for row_id in row_ids if row_id is not None))
    lookups = [
        requests.build_row_query(
            entity.entity_set, list_columns(entity), build_in_filter(entity.id_column, some)
        )
        for some in _split(ids, _IDS_PER_FILTER)
    ]
    if not lookups:
        return list(compare(entity, found, (), columns))
    responses = await _retry_while_unavailable(run, lambda: run.dataverse.read(lookups, run.id))
    rows = [
        row for answer in responses for row in row_pages.parse_page(run.dataverse, answer)["value"]
    ]
    return list(compare(entity, found, rows, columns))


async def _find_left_over(
    run: ReconcileRun, entity: EntityMap, rows: Sequence[Row]
) -> list[Difference]:
    """The rows whose resource is not there any more."""
    ids = sorted({str(row[entity.id_column]) for row in rows})
    ids = [row_id for row_id in ids if ID.fullmatch(row_id)]
    query = f"{entity.resource}?_id={','.join(ids)}&_elements=id&_count={run.ids_per_search}"
    matched = list_matches(entity.resource, await _search(run, query)) if ids else ()
    existing = {row_id["id"] for row_id in matched}
    found = []
    for row in rows:
        identifier = str(row[entity.id_column])
        if identifier in existing:
            continue
        resource = f"{entity.resource}/{identifier}"
        kind = (
            await _classify_missing(run, resource)
            if ID.fullmatch(identifier)
            else DifferenceKind.UNKNOWN
        )
        if kind is not None:
            shown = row[entity.version_column]
            found.append(Difference(resource, kind, row[entity.key], None, shown))
    return found


async def _classify_missing(run: ReconcileRun, resource: str) -> DifferenceKind | None:
    """https://hl7.org/fhir/R4/http.html#delete: 410 says that it was here."""
    response = await _retry_while_unavailable(
        run, lambda: run.fhir.send(Request("GET", resource), run.id)
    )
    kinds = {200: None, 404: DifferenceKind.UNKNOWN, 410: DifferenceKind.LEFT_OVER}
    if response.status not in kinds:
        raise Misconfigured(f"{run.fhir.upstream.name}: a read was answered {response.status}")
    return kinds[response.status]


# -- mending --------------------------------------------------------------------------------------


async def _repair_all(run: ReconcileRun, differences: Sequence[Difference]) -> list[Repair]:
    slots = asyncio.Semaphore(_CONCURRENT_REPAIRS)

    async def repair(difference: Difference) -> Repair:
        if run.dry_run or not difference.is_repairable:
            return Repair(difference)
        item = WorkItem(run.id, resource=difference.resource)
        async with slots:
            return Repair(
                difference,
                await _retry_while_unavailable(run, lambda: mirror_or_raise(run.mirror, item)),
            )

    return list(await asyncio.gather(*(repair(difference) for difference in differences)))


def _search(run: ReconcileRun, path: str) -> Awaitable[Searchset]:
    return _retry_while_unavailable(run, lambda: run.fhir.search(path, run.id))


def _prepare_send(run: ReconcileRun, request: Request) -> Callable[[], Awaitable[Response]]:
    return lambda: run.dataverse.send(request, run.id)


async def _retry_while_unavailable(run: ReconcileRun, work: Callable[[], Awaitable[T]]) -> T:
    """Again after a neighbour's trouble, as the queue would have done it."""
    item = WorkItem(run.id)
    while True:
        try:
            return await work()
        except Unavailable as error:
            retry = plan_retry(item, error, run.mirror.now(), _MAX_WAIT)
            if retry.delay is None:
                raise
            item = retry.item
            await run.sleep(retry.delay)


def _split(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
