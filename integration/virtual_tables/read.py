"""Read entities, collections and counts of the feed from FHIR as it is now.

A collection is streamed where FHIR sorts it as requested, or no order is requested: the server's
pages are read until the page of rows is full. Otherwise everything that the search finds is
gathered, up to a limit, and sorted here. What would go beyond the limit is refused: a client would
take a part of the result, or a result in a wrong order, for the whole.

The order of rows follows from $filter and $orderby alone: a client may ask for one page with
$count, and for the next without.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Protocol
from uuid import UUID

from integration.core.errors import IntegrationError, SearchRefused, Unavailable
from integration.fhir.client import FhirServer
from integration.fhir.search import Parameters, build_path
from integration.fhir.searchset import find_next_path, list_matches
from integration.odata import evaluate
from integration.odata.model import EntityValues
from integration.odata.query import Query
from integration.odata.refusals import Gone, NotSupported
from integration.virtual_tables import fhir_pages, refused_search, skip_token
from integration.virtual_tables.entity_type import (
    MappedEntityType,
    build_values,
    list_lookups,
    map_resource,
)
from integration.virtual_tables.page_starts import PageStarts
from integration.virtual_tables.pushdown import TargetIds
from integration.virtual_tables.query_plan import FilterPart, QueryPlan, plan_query, split_filter
from integration.virtual_tables.row_keys import RowKeyResolver
from integration.virtual_tables.skip_token import PageCursor

Resource = Mapping[str, Any]

# Resources that one search brings while rows are gathered; the FHIR service gives 1,000 at most.
_BATCH_SIZE = 250


@dataclass(frozen=True, slots=True)
class FeedReader:
    """What reading needs.

    `max_scanned`: resources that one request may look at. `max_page_bytes`: of a page of the FHIR
    server, since a worker holds the pages of many requests at once. `get_token_key`: returns what
    skip tokens are signed with, the same in every worker.
    """

    fhir: FhirServer
    keys: RowKeyResolver
    max_scanned: int
    today: Callable[[], date]
    get_token_key: Callable[[], Awaitable[bytes]]
    max_page_bytes: int = 16_000_000
    page_starts: PageStarts = field(default_factory=PageStarts)


class RowContext(Protocol):
    """What it takes to show resources as rows: what reading and writing have in common."""

    @property
    def fhir(self) -> FhirServer: ...
    @property
    def keys(self) -> RowKeyResolver: ...
    @property
    def today(self) -> Callable[[], date]: ...


@dataclass(frozen=True, slots=True)
class RowPage:
    """Rows, each with its version, and the names of their resources; `next_cursor`: where the next
    page begins, to which `token` leads a client."""

    rows: Sequence[tuple[EntityValues, str | None]]
    names: tuple[str, ...] = ()
    count: int | None = None
    next_cursor: PageCursor | None = None
    token: str | None = None


async def read_entity(
    reader: FeedReader, entity_type: MappedEntityType, key: UUID, run_id: str
) -> Resource | None:
    """Return the resource whose row has this key. None: there is no such resource."""
    ids = await reader.keys.resolve_ids(entity_type.resource, [key])
    return await reader.fhir.read(f"{entity_type.resource}/{ids[key]}", run_id)


async def build_rows(
    reader: RowContext, entity_type: MappedEntityType, resources: Sequence[Resource]
) -> list[EntityValues]:
    """Map resources to their rows. Raises Unmappable for a resource without an id."""
    base, today = reader.fhir.upstream.base, reader.today()
    mapped = {
        f"{entity_type.resource}/{resource['id']}": map_resource(entity_type, resource, base, today)
        for resource in resources
    }
    targets = (name for found in mapped.values() for name in list_lookups(entity_type, found))
    keys = await reader.keys.resolve_keys({*mapped, *targets})
    return [build_values(entity_type, name, found, keys) for name, found in mapped.items()]


async def read_page(
    reader: FeedReader, entity_type: MappedEntityType, query: Query, size: int, run_id: str
) -> RowPage:
    """Read a page of up to `size` rows. Raises Rejected, Unavailable, Misconfigured."""
    resource, cursor = entity_type.resource, None
    if query.skip_token is not None:
        cursor = skip_token.parse_token(query.skip_token, resource, await reader.get_token_key())
    plan = await _plan(reader, entity_type, query)
    if plan.is_empty:
        return RowPage((), count=0 if query.count else None)
    try:
        page = await _read_planned(reader, plan, cursor, size, run_id)
    except SearchRefused:
        raise await _explain_refusal(reader, plan, run_id) from None
    if page.next_cursor is None:
        return page
    key = await reader.get_token_key()
    return replace(page, token=skip_token.format_token(page.next_cursor, resource, key))


async def _read_planned(
    reader: FeedReader, plan: QueryPlan, cursor: PageCursor | None, size: int, run_id: str
) -> RowPage:
    if plan.is_gathered:
        return await _gather_page(reader, plan, cursor, size, run_id)
    page, count = await asyncio.gather(
        _stream_page(reader, plan, cursor, size, run_id),
        _count_found(reader, plan, run_id) if plan.query.count else _count_nothing(),
    )
    return replace(page, count=count)


async def count_rows(
    reader: FeedReader, entity_type: MappedEntityType, query: Query, run_id: str
) -> int:
    """Count the rows that satisfy the filter of `query`."""
    plan = await _plan(reader, entity_type, replace(query, count=True))
    if plan.is_empty:
        return 0
    try:
        if plan.is_exact:
            return await _count_found(reader, plan, run_id)
        return sum([1 async for _ in _gather_matches(reader, plan, run_id)])
    except SearchRefused:
        raise await _explain_refusal(reader, plan, run_id) from None


async def _plan(reader: FeedReader, entity_type: MappedEntityType, query: Query) -> QueryPlan:
    parts = split_filter(query.filter)
    target_ids = await _resolve_targets(reader, entity_type, parts)
    return plan_query(query, parts, entity_type, target_ids)


async def _resolve_targets(
    reader: FeedReader, entity_type: MappedEntityType, parts: Sequence[FilterPart]
) -> TargetIds:
    """Find the ids of the resources whose rows have the keys that a filter names."""
    pairs_by_type: dict[str, set[tuple[str, UUID]]] = {}
    for name, key in {pair for part in parts for pair in part.keys}:
        attribute = entity_type.attributes.get(name)
        type_ = entity_type.resource if attribute is None else attribute.virtual_column.target
        if type_ is not None:
            pairs_by_type.setdefault(type_, set()).add((name, key))
    target_ids: dict[tuple[str, UUID], str] = {}
    for type_, pairs in pairs_by_type.items():
        ids = await reader.keys.resolve_ids(type_, {key for _, key in pairs})
        target_ids |= {(name, key): ids[key] for name, key in pairs}
    return target_ids


# -- streamed: the search is in the order of the response ------------------------------------------


@dataclass(frozen=True, slots=True)
class _Start:
    """Where reading begins: at `cursor`, None for the first page of the search. `row`: how many
    rows of the list come before it; None: nobody knows."""

    cursor: PageCursor | None = None
    row: int | None = 0


class _PageForgotten(Exception):
    """The server does not take the address of a page any more that it has issued itself."""


async def _stream_page(
    reader: FeedReader, plan: QueryPlan, cursor: PageCursor | None, size: int, run_id: str
) -> RowPage:
    """Read pages of the search until the page of rows is full."""
    wanted = _limit_rows(plan, size)
    if wanted == 0:
        return RowPage(())
    known = None if cursor else reader.page_starts.find(plan.listing, plan.query.skip)
    start = _Start(cursor, None) if cursor else _Start(known[1], known[0]) if known else _Start()
    try:
        return await _stream_from(reader, plan, start, wanted, run_id)
    except _PageForgotten:
        if cursor is not None:
            text = "the FHIR server has forgotten this page: read the list from its beginning"
            raise Gone(text, "$skiptoken") from None
    reader.page_starts.forget(plan.listing)
    try:
        return await _stream_from(reader, plan, _Start(), wanted, run_id)
    except _PageForgotten:
        raise _build_forgotten_error(reader) from None


async def _stream_from(
    reader: FeedReader, plan: QueryPlan, begin: _Start, wanted: int, run_id: str
) -> RowPage:
    skip = 0 if begin.row is None else plan.query.skip - begin.row
    batch = wanted if plan.is_exact and not skip else max(wanted, _BATCH_SIZE)
    cursor = begin.cursor
    path = cursor.path if cursor and cursor.path else _build_path(plan, batch)
    is_issued = cursor is not None and cursor.path is not None
    if cursor is not None and begin.row is not None and cursor.position == 0:
        path = fhir_pages.set_count(path, batch)  # it began after a page of another size
    start = cursor.position if cursor else 0
    row, scanned = begin.row, 0
    chosen: list[tuple[Resource, EntityValues]] = []

    def remember(next_cursor: PageCursor | None) -> None:
        if row is not None and next_cursor is not None:
            reader.page_starts.add(plan.listing, row, next_cursor)

    while True:
        page = await _fetch_page(reader, plan, path, batch, run_id, is_issued=is_issued)
        found = page.resources[start:]
        if plan.is_exact and skip >= len(found):  # nothing of the page is shown
            skip, row = skip - len(found), None if row is None else row + len(found)
            found = []
        rows = await build_rows(reader, plan.scanned_type, found)
        for position, (resource, values) in enumerate(zip(found, rows, strict=True), start):
            scanned += 1
            if not evaluate.matches(plan.query.filter, values):
                continue
            row = None if row is None else row + 1
            if skip:
                skip, scanned = skip - 1, 0
                continue
            chosen.append((resource, values))
            if len(chosen) == wanted:
                next_cursor = page.find_cursor(position + 1)
                remember(next_cursor)
                is_last = wanted == plan.query.top
                return await _build_streamed(reader, plan, chosen, None if is_last else next_cursor)
        if page.next_path is None:
            return await _build_streamed(reader, plan, chosen, None)
        start = max(0, start - len(page.resources))
        next_cursor = PageCursor(page.next_path, start)
        remember(next_cursor)
        if page.is_shrunk or scanned > reader.max_scanned:
            if chosen:  # respond with what was found; the next page goes on behind it
                return await _build_streamed(reader, plan, chosen, next_cursor)
            if scanned > reader.max_scanned:
                raise _build_too_broad_error(reader, plan)
        path, is_issued = page.next_path, True


async def _build_streamed(
    reader: FeedReader,
    plan: QueryPlan,
    chosen: Sequence[tuple[Resource, EntityValues]],
    next_cursor: PageCursor | None,
) -> RowPage:
    resources = [resource for resource, _ in chosen]
    if plan.is_exact:  # what was scanned has all that is shown
        return _build_page(resources, [values for _, values in chosen], next_cursor)
    rows = await build_rows(reader, plan.shown_type, resources)
    return _build_page(resources, rows, next_cursor)


# -- gathered: everything is read before the first row is known ------------------------------------


async def _gather_page(
    reader: FeedReader, plan: QueryPlan, cursor: PageCursor | None, size: int, run_id: str
) -> RowPage:
    """Read everything that satisfies the filter, and sort it here unless FHIR does."""
    found = [pair async for pair in _gather_matches(reader, plan, run_id)]
    if plan.is_sorted_here:
        sort_key = evaluate.build_sort_key(plan.query.order_by, plan.scanned_type.entity.key)
        found.sort(key=lambda pair: sort_key(pair[1]))
    start = cursor.position if cursor else plan.query.skip
    wanted = _limit_rows(plan, size)
    end = start + wanted
    has_more = end < len(found) and wanted not in (0, plan.query.top)
    resources = [resource for resource, _ in found[start:end]]
    rows = await build_rows(reader, plan.shown_type, resources)
    page = _build_page(resources, rows, PageCursor(None, end) if has_more else None)
    return replace(page, count=len(found) if plan.query.count else None)


async def _gather_matches(
    reader: FeedReader, plan: QueryPlan, run_id: str
) -> AsyncIterator[tuple[Resource, EntityValues]]:
    """Yield every resource that satisfies the filter, with the values that were scanned.

    Raises Rejected, 501, where there are too many to look at, or they are too large.
    """
    path: str | None = _build_path(plan, _BATCH_SIZE)
    is_issued, scanned, shrunk = False, 0, 0
    while path is not None:
        try:
            page = await _fetch_page(reader, plan, path, _BATCH_SIZE, run_id, is_issued=is_issued)
        except _PageForgotten:
            raise _build_forgotten_error(reader) from None
        path, is_issued = page.next_path, True
        scanned, shrunk = scanned + len(page.resources), shrunk + page.is_shrunk
        if scanned > reader.max_scanned or (scanned == reader.max_scanned and path is not None):
            raise _build_too_broad_error(reader, plan)
        if shrunk >= fhir_pages.MAX_SHRUNK_PAGES and path is not None:
            raise fhir_pages.build_too_large_error()
        rows = await build_rows(reader, plan.scanned_type, page.resources)
        for resource, values in zip(page.resources, rows, strict=True):
            if evaluate.matches(plan.query.filter, values):
                yield resource, values


# -- both ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _FhirPage:
    """A page of a search; `is_shrunk`: it has few resources, because they are large."""

    path: str
    resources: Sequence[Resource]
    next_path: str | None
    is_shrunk: bool

    def find_cursor(self, position: int) -> PageCursor | None:
        """Find where the resource at `position`, or else the next page, begins."""
        if position < len(self.resources):
            return PageCursor(self.path, position)
        return None if self.next_path is None else PageCursor(self.next_path, 0)


def _build_path(plan: QueryPlan, batch: int) -> str:
    parameters = (*_list_parameters(plan), ("_count", str(batch)))
    return build_path(plan.scanned_type.resource, parameters)


def _list_parameters(plan: QueryPlan) -> Parameters:
    return (*plan.parameters, ("_sort", plan.sort)) if plan.sort else plan.parameters


async def _fetch_page(
    reader: FeedReader, plan: QueryPlan, path: str, batch: int, run_id: str, *, is_issued: bool
) -> _FhirPage:
    """Fetch a page. Raises SearchRefused, or _PageForgotten where the server has issued its
    address."""
    try:
        path, searchset, is_shrunk = await fhir_pages.fetch_page(
            reader.fhir, path, batch, reader.max_page_bytes, run_id
        )
    except SearchRefused:
        if is_issued:
            raise _PageForgotten from None
        raise
    upstream = reader.fhir.upstream
    resources = list(list_matches(plan.scanned_type.resource, searchset))
    return _FhirPage(
        path, resources, find_next_path(searchset, upstream.name, upstream.base), is_shrunk
    )


def _limit_rows(plan: QueryPlan, size: int) -> int:
    return size if plan.query.top is None else min(size, plan.query.top)


def _build_page(
    resources: Sequence[Resource], rows: Sequence[EntityValues], next_cursor: PageCursor | None
) -> RowPage:
    versions = (resource.get("meta", {}).get("versionId") for resource in resources)
    names = tuple(f"{resource['resourceType']}/{resource['id']}" for resource in resources)
    return RowPage(tuple(zip(rows, versions, strict=True)), names, next_cursor=next_cursor)


async def _count_found(reader: FeedReader, plan: QueryPlan, run_id: str) -> int:
    """Let the server count: https://hl7.org/fhir/R4/search.html#summary"""
    path = build_path(plan.scanned_type.resource, (*plan.parameters, ("_summary", "count")))
    searchset = await reader.fhir.search(path, run_id, fhir_pages.STRICT)
    total = searchset.get("total")
    if not isinstance(total, int):
        raise Unavailable(reader.fhir.upstream.name, "a count was answered without a number")
    return total


async def _explain_refusal(reader: FeedReader, plan: QueryPlan, run_id: str) -> IntegrationError:
    properties = {name for part in split_filter(plan.query.filter) for name in part.properties}
    return await refused_search.explain_refusal(
        reader.fhir, plan.scanned_type.resource, _list_parameters(plan), properties, run_id
    )


def _build_forgotten_error(reader: FeedReader) -> Unavailable:
    return Unavailable(reader.fhir.upstream.name, "it does not take the next page of its search")


async def _count_nothing() -> None:
    return None


def _build_too_broad_error(reader: FeedReader, plan: QueryPlan) -> NotSupported:
    return NotSupported(
        f"FHIR has no search that answers this ({', '.join(plan.cost_reasons)}), and there are "
        f"more than {reader.max_scanned:,} resources to look at: narrow it down, by the patient "
        "for example",
        plan.cost_target,
    )
