"""Stream a list: the search is in its order, so its pages are read until a page of rows is full."""

from __future__ import annotations

from datetime import datetime
from typing import cast

from integration.core.errors import Misconfigured
from integration.odata import evaluate
from integration.odata.expressions import Order
from integration.odata.model import EntityValues
from integration.virtual_tables import fhir_pages
from integration.virtual_tables.date_window import Boundary, DateWindow, OutOfOrder
from integration.virtual_tables.feed_reader import (
    BATCH_SIZE,
    FeedReader,
    PageForgotten,
    RowPage,
    Start,
    build_chosen_page,
    build_forgotten_error,
    build_gone_error,
    build_search_path,
    build_too_broad_error,
    fetch_page,
    limit_rows,
)
from integration.virtual_tables.gathered_list import gather_page
from integration.virtual_tables.query_plan import QueryPlan
from integration.virtual_tables.resource_rows import Resource, build_rows
from integration.virtual_tables.skip_token import PageCursor


async def stream_page(
    reader: FeedReader, plan: QueryPlan, cursor: PageCursor | None, size: int, run_id: str
) -> RowPage:
    """Read a page of rows, from the cursor on, or as near before `$skip` as is known."""
    wanted = limit_rows(plan, size)
    if wanted == 0:
        return RowPage(())
    stream = _stream_sorted if plan.query.order_by else _stream_found
    known = None if cursor else reader.page_starts.find(plan.listing, plan.query.skip)
    start = Start(cursor, None) if cursor else Start(known[1], known[0]) if known else Start()
    try:
        return await stream(reader, plan, start, wanted, run_id)
    except PageForgotten:
        if cursor is not None:
            raise build_gone_error() from None
    reader.page_starts.forget(plan.listing)
    try:
        return await stream(reader, plan, Start(), wanted, run_id)
    except PageForgotten:
        raise build_forgotten_error(reader) from None


async def _stream_found(
    reader: FeedReader, plan: QueryPlan, begin: Start, wanted: int, run_id: str
) -> RowPage:
    """Read pages in the order in which FHIR finds the resources."""
    skip = 0 if begin.row is None else plan.query.skip - begin.row
    batch = wanted if plan.is_exact and not skip else max(wanted, BATCH_SIZE)
    path, start, is_issued = _begin(plan, begin, batch)
    row, scanned = begin.row, 0
    chosen: list[tuple[Resource, EntityValues]] = []
    matches = evaluate.build_test(plan.query.filter)

    def remember(next_cursor: PageCursor | None) -> None:
        if row is not None and next_cursor is not None:
            reader.page_starts.add(plan.listing, row, next_cursor)

    while True:
        page = await fetch_page(reader, plan, path, batch, run_id, is_issued=is_issued)
        found = page.resources[start:]
        if plan.is_exact and skip >= len(found):  # nothing of the page is shown
            skip, row = skip - len(found), None if row is None else row + len(found)
            found = []
        rows = await build_rows(reader, plan.scanned_type, found, reader.patients)
        for position, (resource, values) in enumerate(zip(found, rows, strict=True), start):
            scanned += 1
            if not matches(values):
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
                following = None if is_last else next_cursor
                return await build_chosen_page(reader, plan, chosen, following)
        if page.next_path is None:
            return await build_chosen_page(reader, plan, chosen, None)
        start = max(0, start - len(page.resources))
        next_cursor = PageCursor(page.next_path, start)
        remember(next_cursor)
        if page.is_shrunk or scanned > reader.max_scanned:
            if chosen:  # respond with what was found; the next page goes on behind it
                return await build_chosen_page(reader, plan, chosen, next_cursor)
            if scanned > reader.max_scanned:
                raise build_too_broad_error(reader, plan)
        path, is_issued = page.next_path, True


async def _stream_sorted(
    reader: FeedReader, plan: QueryPlan, begin: Start, wanted: int, run_id: str
) -> RowPage:
    """Read pages of a search that FHIR sorts, and put right what the column has in another order
    than FHIR's moments."""
    (order,) = plan.query.order_by
    cursor, boundary = begin.cursor, None
    if cursor is not None and cursor.shown is not None:
        boundary = Boundary(cursor.shown_until, cursor.shown)
    window = DateWindow[tuple[Resource, EntityValues]](order.descending, plan.slack, boundary)
    skip = 0 if begin.row is None else plan.query.skip - begin.row
    batch = wanted if plan.is_exact and not skip and not plan.slack else max(wanted, BATCH_SIZE)
    first_path, start, is_issued = _begin(plan, begin, batch)
    path: str | None = first_path
    row, scanned = begin.row, 0
    places: list[PageCursor | None] = []
    chosen: list[tuple[Resource, EntityValues]] = []
    matches = evaluate.build_test(plan.query.filter)
    while path is not None:
        page = await fetch_page(reader, plan, path, batch, run_id, is_issued=is_issued)
        rows = await build_rows(reader, plan.scanned_type, page.resources[start:], reader.patients)
        for position, values in enumerate(rows, start):
            value = cast("datetime | None", values[order.property.name])
            try:
                window.advance(value)
            except OutOfOrder:
                if begin.row is not None:
                    return await gather_page(reader, plan, None, wanted, run_id)
                raise _build_order_error(reader, order) from None
            if matches(values):
                window.add(len(places), value, (page.resources[position], values))
            places.append(page.find_cursor(position))
        scanned += len(rows)
        path, start, is_issued = page.next_path, max(0, start - len(page.resources)), True
        skipped = window.release(skip, is_last=path is None)
        skip, row = skip - len(skipped), None if row is None else row + len(skipped)
        if skipped:
            scanned = 0
        if not skip:
            released = window.release(wanted - len(chosen), is_last=path is None)
            chosen, row = [*chosen, *released], None if row is None else row + len(released)
        is_broad = path is not None and (page.is_shrunk or scanned > reader.max_scanned)
        if len(chosen) == wanted or (chosen and is_broad):
            first, boundary = window.find_resumption(len(places))
            places.append(None if path is None else PageCursor(path, start))
            place = places[first]
            next_cursor = place and _add_boundary(place, boundary)
            if row is not None and next_cursor is not None:
                reader.page_starts.add(plan.listing, row, next_cursor)
            is_end = wanted == plan.query.top and len(chosen) == wanted
            return await build_chosen_page(reader, plan, chosen, None if is_end else next_cursor)
        if is_broad and scanned > reader.max_scanned:
            raise build_too_broad_error(reader, plan)
    return await build_chosen_page(reader, plan, chosen, None)


def _begin(plan: QueryPlan, begin: Start, batch: int) -> tuple[str, int, bool]:
    """Return the path of the first page to read, the position in it, and whether the server has
    issued the path."""
    cursor = begin.cursor
    if cursor is None or cursor.path is None:
        return build_search_path(plan, batch), 0, False
    path = cursor.path
    if begin.row is not None and cursor.position == 0:
        path = fhir_pages.set_count(path, batch)  # it began after a page of another size
    return path, cursor.position, True


def _add_boundary(place: PageCursor, boundary: Boundary | None) -> PageCursor:
    if boundary is None:
        return place
    return PageCursor(place.path, place.position, boundary.value, boundary.count)


def _build_order_error(reader: FeedReader, order: Order) -> Misconfigured:
    return Misconfigured(
        f"{reader.fhir.upstream.name} does not sort by {order.property.name} as the map promises: "
        "remove sort from the attribute"
    )
