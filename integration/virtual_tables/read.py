"""Read entities, collections and counts of the feed from FHIR as it is now.

A collection is streamed where FHIR sorts it as requested, or no order is requested: the server's
pages are read until the page of rows is full. Otherwise everything that the search finds is
gathered, up to a limit, and sorted here. What would go beyond the limit is refused: a client would
take a part of the result, or a result in a wrong order, for the whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, cast
from uuid import UUID

from integration.core.errors import Misconfigured, Unavailable
from integration.fhir.client import FhirServer
from integration.fhir.search import build_path
from integration.fhir.searchset import find_next_path, list_matches
from integration.mapping.patient_columns import index_patients
from integration.odata import evaluate
from integration.odata.expressions import Order
from integration.odata.model import EntityValues
from integration.odata.query import Query
from integration.odata.refusals import NotSupported
from integration.virtual_tables import fhir_pages, skip_token
from integration.virtual_tables.date_window import Boundary, DateWindow, OutOfOrder
from integration.virtual_tables.entity_type import MappedEntityType
from integration.virtual_tables.feed_rows import add_patients, extract_rows, find_patients
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
    server, since a worker holds the pages of many requests at once.
    """

    fhir: FhirServer
    keys: RowKeyResolver
    max_scanned: int
    today: Callable[[], date]
    max_page_bytes: int = 16_000_000
    # Patients of the resources that one request has read, by `Patient/id`.
    patients: dict[str, Resource] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RowPage:
    """Rows, each with its version, and the names of their resources; `token` leads to the next
    page."""

    rows: Sequence[tuple[EntityValues, str | None]]
    names: tuple[str, ...] = ()
    count: int | None = None
    token: str | None = None


async def read_entity(
    reader: FeedReader, entity_type: MappedEntityType, key: UUID, run_id: str
) -> Resource | None:
    """Return the resource whose row has this key. None: there is no such resource."""
    ids = await reader.keys.resolve_ids(entity_type.resource, [key])
    return await reader.fhir.read(f"{entity_type.resource}/{ids[key]}", run_id)


async def build_row(
    reader: FeedReader, entity_type: MappedEntityType, resource: Resource, run_id: str
) -> EntityValues:
    """Map one resource to its row, with its patient where a column shows the patient."""
    base, today = reader.fhir.upstream.base, reader.today()
    names = find_patients(extract_rows(entity_type, [resource], base, today))
    found = {name: await reader.fhir.read(name, run_id) for name in names}
    known: dict[str, Resource] = {
        name: patient for name, patient in found.items() if patient is not None
    }
    (values,) = await build_rows(replace(reader, patients=known), entity_type, [resource])
    return values


async def build_rows(
    reader: FeedReader, entity_type: MappedEntityType, resources: Sequence[Resource]
) -> list[EntityValues]:
    """Map resources to their rows. Raises Unmappable for a resource without an id."""
    base, today = reader.fhir.upstream.base, reader.today()
    extracted = extract_rows(entity_type, resources, base, today)
    add_patients(extracted, reader.patients, today)
    return extracted.set_keys(await reader.keys.resolve_keys(extracted.references))


async def read_page(
    reader: FeedReader, entity_type: MappedEntityType, query: Query, size: int, run_id: str
) -> RowPage:
    """Read a page of up to `size` rows. Raises Rejected, Unavailable, Misconfigured."""
    reader = replace(reader, patients={})
    plan = await _plan(reader, entity_type, query)
    if plan.is_empty:
        return RowPage((), count=0 if query.count else None)
    cursor = skip_token.parse_token(query.skip_token, entity_type.resource)
    if plan.is_gathered or (cursor is not None and cursor.path is None):
        return await _gather_page(reader, plan, cursor, size, run_id)
    stream = _stream_sorted_page if query.order_by else _stream_page
    if not query.count:
        return await stream(reader, plan, cursor, size, run_id)
    page, count = await asyncio.gather(
        stream(reader, plan, cursor, size, run_id), _count_found(reader, plan, run_id)
    )
    return replace(page, count=count)


async def count_rows(
    reader: FeedReader, entity_type: MappedEntityType, query: Query, run_id: str
) -> int:
    """Count the rows that satisfy the filter of `query`."""
    reader = replace(reader, patients={})
    plan = await _plan(reader, entity_type, replace(query, count=True))
    if plan.is_empty:
        return 0
    if plan.is_exact:
        return await _count_found(reader, plan, run_id)
    unsorted = replace(plan, sort=None)
    return sum([1 async for _ in _gather_matches(reader, unsorted, run_id)])


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


async def _stream_page(
    reader: FeedReader, plan: QueryPlan, cursor: PageCursor | None, size: int, run_id: str
) -> RowPage:
    """Read pages of the search until the page of rows is full."""
    wanted = _limit_rows(plan, size)
    if wanted == 0:
        return RowPage(())
    skip = 0 if cursor else plan.query.skip
    batch = wanted if plan.is_exact and not skip else max(wanted, _BATCH_SIZE)
    path: str | None = cursor.path if cursor and cursor.path else _build_path(plan, batch)
    start = cursor.position if cursor else 0
    scanned = 0
    chosen: list[tuple[Resource, EntityValues]] = []
    matches = evaluate.build_test(plan.query.filter)
    while path is not None:
        page = await _fetch_page(reader, plan, path, batch, run_id)
        rows = await build_rows(reader, plan.scanned_type, page.resources)
        for position, values in enumerate(rows[start:], start):
            scanned += 1
            if not matches(values):
                continue
            if skip:
                skip -= 1
                continue
            chosen.append((page.resources[position], values))
            if len(chosen) == wanted:
                next_cursor = None if wanted == plan.query.top else page.find_cursor(position + 1)
                return await _build_streamed(reader, plan, chosen, next_cursor)
        if page.next_path is not None and (page.is_shrunk or scanned > reader.max_scanned):
            if chosen:  # respond with what was found; the next page goes on behind it
                return await _build_streamed(reader, plan, chosen, PageCursor(page.next_path, 0))
            if scanned > reader.max_scanned:
                raise _build_too_broad_error(reader, plan)
        path, start = page.next_path, max(0, start - len(page.resources))
    return await _build_streamed(reader, plan, chosen, None)


async def _stream_sorted_page(
    reader: FeedReader, plan: QueryPlan, cursor: PageCursor | None, size: int, run_id: str
) -> RowPage:
    """Read pages of a search that FHIR sorts, and put right what the column has in another order
    than FHIR's moments."""
    wanted = _limit_rows(plan, size)
    if wanted == 0:
        return RowPage(())
    (order,) = plan.query.order_by
    boundary = None
    if cursor is not None and cursor.shown is not None:
        boundary = Boundary(cursor.shown_until, cursor.shown)
    window = DateWindow[tuple[Resource, EntityValues]](order.descending, plan.slack, boundary)
    skip = 0 if cursor else plan.query.skip
    batch = wanted if plan.is_exact and not skip and not plan.slack else max(wanted, _BATCH_SIZE)
    path: str | None = cursor.path if cursor and cursor.path else _build_path(plan, batch)
    start = cursor.position if cursor else 0
    places: list[PageCursor | None] = []
    matches = evaluate.build_test(plan.query.filter)
    chosen: list[tuple[Resource, EntityValues]] = []
    while path is not None:
        page = await _fetch_page(reader, plan, path, batch, run_id)
        rows = await build_rows(reader, plan.scanned_type, page.resources)
        for position, values in enumerate(rows[start:], start):
            value = cast("datetime | None", values[order.property.name])
            try:
                window.advance(value)
            except OutOfOrder:
                if cursor is None:
                    return await _gather_page(reader, plan, None, size, run_id)
                raise _build_order_error(reader, order) from None
            if matches(values):
                window.add(len(places), value, (page.resources[position], values))
            places.append(page.find_cursor(position))
        path, start = page.next_path, max(0, start - len(page.resources))
        skip -= len(window.release(skip, is_last=path is None))
        if not skip:
            chosen += window.release(wanted - len(chosen), is_last=path is None)
        is_broad = path is not None and (page.is_shrunk or len(places) > reader.max_scanned)
        if len(chosen) == wanted or (chosen and is_broad):
            first, boundary = window.find_resumption(len(places))
            places.append(None if path is None else PageCursor(path, start))
            is_end = wanted == plan.query.top and len(chosen) == wanted
            place = None if is_end else places[first]
            next_cursor = place and _add_boundary(place, boundary)
            return await _build_streamed(reader, plan, chosen, next_cursor)
        if is_broad and len(places) > reader.max_scanned:
            raise _build_too_broad_error(reader, plan)
    return await _build_streamed(reader, plan, chosen, None)


def _add_boundary(place: PageCursor, boundary: Boundary | None) -> PageCursor:
    if boundary is None:
        return place
    return PageCursor(place.path, place.position, boundary.value, boundary.count)


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
    """Read everything that satisfies the filter, and sort it here."""
    found = [pair async for pair in _gather_matches(reader, plan, run_id)]
    # Rows with equal values are in the order in which they would be streamed.
    key = None if plan.sort else plan.scanned_type.entity.key
    sort_key = evaluate.build_sort_key(plan.query.order_by, key)
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
    scanned, shrunk = 0, 0
    matches = evaluate.build_test(plan.query.filter)
    while path is not None:
        page = await _fetch_page(reader, plan, path, _BATCH_SIZE, run_id)
        path = page.next_path
        scanned, shrunk = scanned + len(page.resources), shrunk + page.is_shrunk
        if scanned > reader.max_scanned or (scanned == reader.max_scanned and path is not None):
            raise _build_too_broad_error(reader, plan)
        if shrunk >= fhir_pages.MAX_SHRUNK_PAGES and path is not None:
            raise fhir_pages.build_too_large_error()
        rows = await build_rows(reader, plan.scanned_type, page.resources)
        for resource, values in zip(page.resources, rows, strict=True):
            if matches(values):
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
    sort = (("_sort", plan.sort),) if plan.sort else ()
    include = (("_include", plan.include),) if plan.include else ()
    parameters = (*plan.parameters, *sort, *include, ("_count", str(batch)))
    return build_path(plan.scanned_type.resource, parameters)


async def _fetch_page(
    reader: FeedReader, plan: QueryPlan, path: str, batch: int, run_id: str
) -> _FhirPage:
    path, searchset, is_shrunk = await fhir_pages.fetch_page(
        reader.fhir, path, batch, reader.max_page_bytes, run_id
    )
    upstream = reader.fhir.upstream
    resources = list(list_matches(plan.scanned_type.resource, searchset))
    if plan.include:
        reader.patients.update(index_patients(searchset))
    return _FhirPage(
        path, resources, find_next_path(searchset, upstream.name, upstream.base), is_shrunk
    )


def _limit_rows(plan: QueryPlan, size: int) -> int:
    return size if plan.query.top is None else min(size, plan.query.top)


def _build_page(
    resources: Sequence[Resource], rows: Sequence[EntityValues], next_cursor: PageCursor | None
) -> RowPage:
    versions = (resource.get("meta", {}).get("versionId") for resource in resources)
    token = None if next_cursor is None else skip_token.format_token(next_cursor)
    names = tuple(f"{resource['resourceType']}/{resource['id']}" for resource in resources)
    return RowPage(tuple(zip(rows, versions, strict=True)), names, token=token)


async def _count_found(reader: FeedReader, plan: QueryPlan, run_id: str) -> int:
    """Let the server count: https://hl7.org/fhir/R4/search.html#summary"""
    path = build_path(plan.scanned_type.resource, (*plan.parameters, ("_summary", "count")))
    searchset = await reader.fhir.search(path, run_id, fhir_pages.STRICT)
    total = searchset.get("total")
    if not isinstance(total, int):
        raise Unavailable(reader.fhir.upstream.name, "a count was answered without a number")
    return total


def _build_order_error(reader: FeedReader, order: Order) -> Misconfigured:
    return Misconfigured(
        f"{reader.fhir.upstream.name} does not sort by {order.property.name} as the map promises: "
        "remove sort from the attribute"
    )


def _build_too_broad_error(reader: FeedReader, plan: QueryPlan) -> NotSupported:
    return NotSupported(
        f"FHIR has no search that answers this ({', '.join(plan.cost_reasons)}), and there are "
        f"more than {reader.max_scanned:,} resources to look at: narrow it down, by the patient "
        "for example",
        "$filter",
    )
