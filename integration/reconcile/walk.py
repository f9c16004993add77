"""Go through FHIR in the order of the last update, or through the rows, page by page.

A resource that changes meanwhile moves towards the end, so no page is missed: it is compared later,
or its own change has been mirrored by then.
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

# Ids in one address, which gets about 9,000 and 4,000 characters long.
_IDS_PER_FILTER = 200
_IDS_PER_SEARCH = 100

# Rows repaired at the same time. The rate limiters bound the requests.
_CONCURRENT_REPAIRS = 64

# Seconds to wait for an upstream that is down or throttling, before the run stops.
_MAX_WAIT = 3600.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileRun:
    """What a run works with. `id` is the delivery under which it is recorded in the journal."""

    mirror: Mirror
    fhir: FhirServer
    dataverse: Dataverse
    id: str
    sleep: Callable[[float], Awaitable[object]]
    dry_run: bool = False  # find differences, and change nothing
    page_size: int = _PAGE_SIZE
    ids_per_search: int = _IDS_PER_SEARCH


@dataclass(frozen=True, slots=True)
class Page:
    """How many resources or rows were compared, and what differed."""

    count: int
    repairs: Sequence[Repair]
    updated_until: str | None = None  # meta.lastUpdated of the last resource of the page


async def walk_resources(
    run: ReconcileRun, entity: EntityMap, since: str | None
) -> AsyncIterator[Page]:
    """Compare and repair every resource updated since then, a FHIR date or time.

    Raises Unavailable or Misconfigured.
    """
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
    """Find active rows whose resource FHIR no longer has, and repair them.

    Raises Unavailable or Misconfigured.
    """
    if entity.long_id is LongId.DIGEST:
        # A digest is no id of FHIR: its resource would look as if it had never existed.
        raise Misconfigured(
            f"{entity.file}: the rows keep digests of long ids (row.long_id), so --deleted cannot "
            "find their resources"
        )
    condition = f"{entity.id_column} ne null and statecode eq 0"
    first = requests.build_row_query(entity.entity_set, list_columns(entity), condition)
    request: Request | None = replace(
        first, headers={**first.headers, "prefer": f"odata.maxpagesize={run.page_size}"}
    )
    while request is not None:
        response = await _retry_while_unavailable(run, _prepare_send(run, request))
        page = row_pages.parse_page(run.dataverse, response)
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
    row_ids = (to_row_id(entity, resource["id"], columns) for resource in found)
    ids = list(dict.fromkeys(row_id for row_id in row_ids if row_id is not None))
    names = list_columns(entity)
    lookups = [
        requests.build_row_query(entity.entity_set, names, build_in_filter(entity.id_column, some))
        for some in _split(ids, _IDS_PER_FILTER)
    ]
    if not lookups:
        return list(compare(entity, found, (), columns))
    responses = await _retry_while_unavailable(run, lambda: run.dataverse.read(lookups, run.id))
    pages = [row_pages.parse_page(run.dataverse, response) for response in responses]
    return list(compare(entity, found, [row for page in pages for row in page["value"]], columns))


async def _find_left_over(
    run: ReconcileRun, entity: EntityMap, rows: Sequence[Row]
) -> list[Difference]:
    """Find the rows whose resource the FHIR server does not have."""
    ids = sorted({str(row[entity.id_column]) for row in rows})
    ids = [identifier for identifier in ids if ID.fullmatch(identifier)]
    query = f"{entity.resource}?_id={','.join(ids)}&_elements=id&_count={run.ids_per_search}"
    matched = list_matches(entity.resource, await _search(run, query)) if ids else ()
    existing = {resource["id"] for resource in matched}
    found = []
    for row in rows:
        identifier = str(row[entity.id_column])
        if identifier in existing:
            continue
        resource = f"{entity.resource}/{identifier}"
        kind: DifferenceKind | None = DifferenceKind.UNKNOWN
        if ID.fullmatch(identifier):
            kind = await _classify_missing(run, resource)
        if kind is not None:
            found.append(
                Difference(
                    resource=resource,
                    kind=kind,
                    row=row[entity.key],
                    row_version=row[entity.version_column],
                )
            )
    return found


async def _classify_missing(run: ReconcileRun, resource: str) -> DifferenceKind | None:
    """Tell a deleted resource (410) from one that never was here (404); None: it exists after all.

    https://hl7.org/fhir/R4/http.html#delete
    """
    response = await _retry_while_unavailable(
        run, lambda: run.fhir.send(Request("GET", resource), run.id)
    )
    kinds = {200: None, 404: DifferenceKind.UNKNOWN, 410: DifferenceKind.LEFT_OVER}
    if response.status not in kinds:
        raise Misconfigured(f"{run.fhir.upstream.name} answered a read with {response.status}")
    return kinds[response.status]


# -- repairing ------------------------------------------------------------------------------------


async def _repair_all(run: ReconcileRun, differences: Sequence[Difference]) -> list[Repair]:
    slots = asyncio.Semaphore(_CONCURRENT_REPAIRS)

    async def repair(difference: Difference) -> Repair:
        if run.dry_run or not difference.is_repairable:
            return Repair(difference)
        item = WorkItem(run.id, resource=difference.resource)
        async with slots:
            result = await _retry_while_unavailable(run, lambda: mirror_or_raise(run.mirror, item))
        return Repair(difference, result)

    return list(await asyncio.gather(*(repair(difference) for difference in differences)))


def _search(run: ReconcileRun, path: str) -> Awaitable[Searchset]:
    return _retry_while_unavailable(run, lambda: run.fhir.search(path, run.id))


def _prepare_send(run: ReconcileRun, request: Request) -> Callable[[], Awaitable[Response]]:
    return lambda: run.dataverse.send(request, run.id)


async def _retry_while_unavailable(run: ReconcileRun, work: Callable[[], Awaitable[T]]) -> T:
    """Do the work again while an upstream is unavailable, with the delays that the queue uses."""
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
