"""Gather a list: everything is read before the first row is known."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from integration.odata import evaluate
from integration.odata.model import EntityValues
from integration.virtual_tables import fhir_pages
from integration.virtual_tables.feed_reader import (
    BATCH_SIZE,
    FeedReader,
    PageForgotten,
    RowPage,
    build_chosen_page,
    build_forgotten_error,
    build_search_path,
    build_too_broad_error,
    fetch_page,
    limit_rows,
)
from integration.virtual_tables.query_plan import QueryPlan
from integration.virtual_tables.resource_rows import Resource, build_rows
from integration.virtual_tables.skip_token import PageCursor


async def gather_page(
    reader: FeedReader, plan: QueryPlan, cursor: PageCursor | None, size: int, run_id: str
) -> RowPage:
    """Read everything that satisfies the filter, and put it into the order of the query. Rows with
    equal values stay in the order in which they would be streamed."""
    plan = replace(plan, is_gathered=True)
    found = [pair async for pair in gather_matches(reader, plan, run_id)]
    if plan.query.order_by:
        key = None if plan.sort else plan.scanned_type.entity.key
        sort_key = evaluate.build_sort_key(plan.query.order_by, key)
        found.sort(key=lambda pair: sort_key(pair[1]))
    start = cursor.position if cursor else plan.query.skip
    wanted = limit_rows(plan, size)
    end = start + wanted
    has_more = end < len(found) and wanted not in (0, plan.query.top)
    next_cursor = PageCursor(None, end) if has_more else None
    page = await build_chosen_page(reader, plan, found[start:end], next_cursor)
    return replace(page, count=len(found) if plan.query.count else None)


async def gather_matches(
    reader: FeedReader, plan: QueryPlan, run_id: str
) -> AsyncIterator[tuple[Resource, EntityValues]]:
    """Yield every resource that satisfies the filter, with the values that were scanned.

    Raises Rejected, 501, where there are too many to look at, or they are too large.
    """
    path: str | None = build_search_path(plan, BATCH_SIZE)
    is_issued, scanned, shrunk = False, 0, 0
    matches = evaluate.build_test(plan.query.filter)
    while path is not None:
        try:
            page = await fetch_page(reader, plan, path, BATCH_SIZE, run_id, is_issued=is_issued)
        except PageForgotten:
            raise build_forgotten_error(reader) from None
        path, is_issued = page.next_path, True
        scanned, shrunk = scanned + len(page.resources), shrunk + page.is_shrunk
        if scanned > reader.max_scanned or (scanned == reader.max_scanned and path is not None):
            raise build_too_broad_error(reader, plan)
        if shrunk >= fhir_pages.MAX_SHRUNK_PAGES and path is not None:
            raise fhir_pages.build_too_large_error()
        rows = await build_rows(reader, plan.scanned_type, page.resources, reader.patients)
        for resource, values in zip(page.resources, rows, strict=True):
            if matches(values):
                yield resource, values
