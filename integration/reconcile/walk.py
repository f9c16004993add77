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
    Is,
    Row,
    Settled,
    among,
    asked,
    compare,
    id_in_row,
)

# https://learn.microsoft.com/azure/healthcare-apis/fhir/fhir-features-supported
_PAGE = 1000

# Ids in one address: about 9,000 and 4,000 characters.
_ROWS = 200
_RESOURCES = 100

# Rows that are mirrored side by side; how many requests there are is the limiters' business.
_SIDE_BY_SIDE = 64

# Seconds that a neighbour's trouble may last, before the run ends.
_PATIENCE = 3600.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reconcile:
    """What reconciling needs. `run`: the delivery under which its rows are noted; `dry`: look,
    and change nothing."""

    mirror: Mirror
    fhir: FhirServer
    dataverse: Dataverse
    run: str
    pause: Callable[[float], Awaitable[object]]
    dry: bool = False
    page: int = _PAGE
    resources: int = _RESOURCES


@dataclass(frozen=True, slots=True)
class Page:
    """How many were looked at, what differed, and up to which update FHIR has been seen."""

    looked: int
    settled: Sequence[Settled]
    until: str | None = None


async def resources(it: Reconcile, entity: EntityMap, since: str | None) -> AsyncIterator[Page]:
    """Every resource that was updated since then. Raises Unavailable or Misconfigured."""
    after = f"_lastUpdated=ge{quote(since)}&" if since else ""
    path: str | None = (
        f"{entity.resource}?{after}_sort=_lastUpdated&_count={it.page}&_elements=id,meta"
    )
    while path is not None:
        searchset = await _searched(it, path)
        found = list(list_matches(entity.resource, searchset))
        settled = await _settled(it, await _compared(it, entity, found))
        last = found[-1].get("meta", {}).get("lastUpdated") if found else None
        yield Page(len(found), settled, last)
        path = find_next_path(searchset, it.fhir.upstream.name, it.fhir.upstream.base)


async def left_over(it: Reconcile, entity: EntityMap) -> AsyncIterator[Page]:
    """Every active row that shows a resource. Raises Unavailable or Misconfigured."""
    if entity.long_id is LongId.DIGEST:
        # What such a row shows may be no id at all, and would be taken for that of nobody.
        raise Misconfigured(f"{entity.file}: rows that show digests of ids cannot be traced back")
    condition = f"{entity.id_column} ne null and statecode eq 0"
    first = requests.build_row_query(entity.entity_set, asked(entity), condition)
    request: Request | None = replace(
        first, headers={**first.headers, "prefer": f"odata.maxpagesize={it.page}"}
    )
    while request is not None:
        page = row_pages.rows(it.dataverse, await _patiently(it, _sending(it, request)))
        rows = [row for row in page["value"] if entity.has_kind_of(row)]
        gone = await asyncio.gather(
            *(_gone(it, entity, some) for some in _chunks(rows, it.resources))
        )
        settled = await _settled(it, [each for some in gone for each in some])
        yield Page(len(rows), settled)
        request = row_pages.next_rows(it.dataverse, request, page)


# -- comparing ------------------------------------------------------------------------------------


async def _compared(
    it: Reconcile, entity: EntityMap, found: Sequence[dict[str, Any]]
) -> list[Difference]:
    columns = await _patiently(it, lambda: it.dataverse.get_columns(entity.table))
    shown = (id_in_row(entity, each["id"], columns) for each in found)
    ids = list(dict.fromkeys(each for each in shown if each is not None))
    questions = [
        requests.build_row_query(entity.entity_set, asked(entity), among(entity.id_column, some))
        for some in _chunks(ids, _ROWS)
    ]
    if not questions:
        return list(compare(entity, found, (), columns))
    answers = await _patiently(it, lambda: it.dataverse.read(questions, it.run))
    rows = [row for answer in answers for row in row_pages.rows(it.dataverse, answer)["value"]]
    return list(compare(entity, found, rows, columns))


async def _gone(it: Reconcile, entity: EntityMap, rows: Sequence[Row]) -> list[Difference]:
    """The rows whose resource is not there any more."""
    ids = sorted({str(row[entity.id_column]) for row in rows})
    ids = [each for each in ids if ID.fullmatch(each)]
    query = f"{entity.resource}?_id={','.join(ids)}&_elements=id&_count={it.resources}"
    there = list_matches(entity.resource, await _searched(it, query)) if ids else ()
    known = {each["id"] for each in there}
    found = []
    for row in rows:
        identifier = str(row[entity.id_column])
        if identifier in known:
            continue
        resource = f"{entity.resource}/{identifier}"
        is_ = await _why(it, resource) if ID.fullmatch(identifier) else Is.UNKNOWN
        if is_ is not None:
            shown = row[entity.version_column]
            found.append(Difference(resource, is_, row[entity.key], None, shown))
    return found


async def _why(it: Reconcile, resource: str) -> Is | None:
    """https://hl7.org/fhir/R4/http.html#delete: 410 says that it was here."""
    answer = await _patiently(it, lambda: it.fhir.send(Request("GET", resource), it.run))
    gone = {200: None, 404: Is.UNKNOWN, 410: Is.LEFT_OVER}
    if answer.status not in gone:
        raise Misconfigured(f"{it.fhir.upstream.name}: a read was answered {answer.status}")
    return gone[answer.status]


# -- mending --------------------------------------------------------------------------------------


async def _settled(it: Reconcile, differences: Sequence[Difference]) -> list[Settled]:
    places = asyncio.Semaphore(_SIDE_BY_SIDE)

    async def settled(difference: Difference) -> Settled:
        if it.dry or not difference.mirrored:
            return Settled(difference)
        claim = WorkItem(it.run, resource=difference.resource)
        async with places:
            return Settled(
                difference, await _patiently(it, lambda: mirror_or_raise(it.mirror, claim))
            )

    return list(await asyncio.gather(*(settled(each) for each in differences)))


def _searched(it: Reconcile, path: str) -> Awaitable[Searchset]:
    return _patiently(it, lambda: it.fhir.search(path, it.run))


def _sending(it: Reconcile, request: Request) -> Callable[[], Awaitable[Response]]:
    return lambda: it.dataverse.send(request, it.run)


async def _patiently(it: Reconcile, work: Callable[[], Awaitable[T]]) -> T:
    """Again after a neighbour's trouble, as the queue would have done it."""
    claim = WorkItem(it.run)
    while True:
        try:
            return await work()
        except Unavailable as error:
            back = plan_retry(claim, error, it.mirror.now(), _PATIENCE)
            if back.delay is None:
                raise
            claim = back.item
            await it.pause(back.delay)


def _chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
