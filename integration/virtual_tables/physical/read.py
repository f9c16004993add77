"""Read entities, collections and counts of the feed from Dataverse's own rows.

As from FHIR: a collection is streamed where Dataverse sorts and filters as requested, and gathered
up to a limit where it does not. What would go beyond the limit is refused.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from integration.core import decimal_json
from integration.core.activity_recorder import add_activity_context
from integration.core.errors import Misconfigured, Rejected, Unavailable
from integration.core.model import Request, Response
from integration.dataverse.client import Dataverse
from integration.dataverse.error_codes import describe_failure
from integration.dataverse.requests import API
from integration.odata import evaluate
from integration.odata.model import EntityValues
from integration.odata.query import Query
from integration.odata.refusals import NotFound, NotSupported
from integration.virtual_tables import skip_token
from integration.virtual_tables.feed_reader import RowPage
from integration.virtual_tables.physical import query as queries
from integration.virtual_tables.physical.query import MAX_COUNT, MAX_PAGE, RowPlan
from integration.virtual_tables.physical.rows import Row, get_name, get_version, parse_row
from integration.virtual_tables.physical.table import STATE, PhysicalTable
from integration.virtual_tables.skip_token import PageCursor

# Rows that one response brings while rows are gathered or looked at.
_BATCH_SIZE = 500

# Pages of keys that are read to count rows, at most: a count goes up to so many times MAX_PAGE.
_MAX_COUNTED_PAGES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RowAccess:
    """What one request of the feed needs to reach the rows of a table. `max_scanned`: rows that it
    may look at; `run_id`: by which Dataverse's own logs find its calls; `get_token_key`: see
    FeedReader."""

    dataverse: Dataverse
    table: PhysicalTable
    max_scanned: int
    run_id: str
    get_token_key: Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A row of Dataverse, and the entity that it shows."""

    row: Row
    values: EntityValues


async def read_row(access: RowAccess, key: UUID) -> FoundRow | None:
    """Return the row with a key. None: there is no such row, or it is inactive."""
    request = queries.build_row_request(access.table, key)
    with add_activity_context(action="read", table=access.table.table):
        response = await access.dataverse.send(request, access.run_id)
    if response.status == 404:
        return None
    row = _parse_object(access, response)
    if access.table.has_state and row.get(STATE) != 0:
        return None
    return FoundRow(row, parse_row(row, access.table))


async def read_page(access: RowAccess, query: Query, size: int) -> RowPage:
    """Read a page of up to `size` rows. Raises Rejected, Unavailable, Misconfigured."""
    plan = queries.plan_rows(query, access.table)
    cursor, set_ = None, access.table.entity_set
    if query.skip_token is not None:
        cursor = skip_token.parse_token(query.skip_token, set_, await access.get_token_key())
    if plan.is_gathered:
        page = await _gather_page(access, plan, cursor, size)
    else:
        page = await _stream_page(access, plan, cursor, size)
        if query.count:
            page = replace(page, count=await count_rows(access, query))
    if page.next_cursor is None:
        return page
    key = await access.get_token_key()
    return replace(page, token=skip_token.format_token(page.next_cursor, set_, key))


async def count_rows(access: RowAccess, query: Query) -> int:
    """Count the rows that satisfy the filter of `query`."""
    plan = queries.plan_rows(query, access.table)
    if not plan.is_exact:
        return sum([1 async for _ in _gather_matches(access, plan)])
    request = queries.build_count(query, access.table)
    found = _parse_object(access, await _send(access, request)).get("@odata.count")
    if type(found) is not int:
        raise Unavailable(access.dataverse.upstream.name, "a count was answered without a number")
    return found if found < MAX_COUNT else await _count_keys(access, query)


async def _count_keys(access: RowAccess, query: Query) -> int:
    """Count the keys: Dataverse's own count ends at MAX_COUNT."""
    path: str | None = queries.build_keys_path(query, access.table)
    counted = 0
    for _ in range(_MAX_COUNTED_PAGES):
        if path is None:
            return counted
        rows, path = await _fetch_page(access, path, MAX_PAGE)
        counted += len(rows)
    if path is None:
        return counted
    text = f"Dataverse counts no more than {counted:,} rows: narrow the query down"
    raise NotSupported(text, "$count")


# -- streamed --------------------------------------------------------------------------------------


async def _stream_page(
    access: RowAccess, plan: RowPlan, cursor: PageCursor | None, size: int
) -> RowPage:
    """Read pages of Dataverse until the page of rows is full."""
    top = plan.query.top
    wanted = size if top is None else min(size, top)
    if wanted == 0:
        return RowPage(())
    skip = 0 if cursor else plan.query.skip
    batch = min(skip + wanted if plan.is_exact else max(skip + wanted, _BATCH_SIZE), MAX_PAGE)
    path: str | None = plan.path if cursor is None or cursor.path is None else cursor.path
    start = cursor.position if cursor else 0
    scanned = 0
    chosen: list[FoundRow] = []
    matches = evaluate.build_test(plan.query.filter)
    while path is not None:
        rows, next_path = await _fetch_page(access, path, batch)
        for position, row in enumerate(rows[start:], start):
            scanned += 1
            values = parse_row(row, access.table)
            if not matches(values):
                continue
            if skip:
                skip -= 1
                continue
            chosen.append(FoundRow(row, values))
            if len(chosen) == wanted:
                is_last = wanted == top or (position + 1 == len(rows) and next_path is None)
                token = None if is_last else _find_cursor(path, position + 1, rows, next_path)
                return _build_page(access, chosen, token)
        if scanned > access.max_scanned and next_path is not None and not plan.is_exact:
            if not chosen:
                raise _build_too_broad_error(access)
            return _build_page(access, chosen, PageCursor(next_path, 0))
        path, start = next_path, max(0, start - len(rows))
    return _build_page(access, chosen, None)


def _find_cursor(
    path: str, position: int, rows: Sequence[Row], next_path: str | None
) -> PageCursor | None:
    if position < len(rows):
        return PageCursor(path, position)
    return None if next_path is None else PageCursor(next_path, 0)


# -- gathered --------------------------------------------------------------------------------------


async def _gather_page(
    access: RowAccess, plan: RowPlan, cursor: PageCursor | None, size: int
) -> RowPage:
    """Read everything that satisfies the filter. It is sorted here only where Dataverse does not:
    so the order is the same whether a count is wanted or not."""
    query = plan.query
    found = [row async for row in _gather_matches(access, plan)]
    if not plan.is_sorted:
        sort_key = evaluate.build_sort_key(query.order_by, access.table.type.key)
        found.sort(key=lambda row: sort_key(row.values))
    start = cursor.position if cursor else query.skip
    wanted = size if query.top is None else min(size, query.top)
    end = start + wanted
    has_more = end < len(found) and wanted not in (0, query.top)
    page = _build_page(access, found[start:end], PageCursor(None, end) if has_more else None)
    return replace(page, count=len(found) if query.count else None)


async def _gather_matches(access: RowAccess, plan: RowPlan) -> AsyncIterator[FoundRow]:
    path: str | None = plan.path
    scanned = 0
    matches = evaluate.build_test(plan.query.filter)
    while path is not None:
        rows, path = await _fetch_page(access, path, _BATCH_SIZE)
        scanned += len(rows)
        if scanned > access.max_scanned or (scanned == access.max_scanned and path is not None):
            raise _build_too_broad_error(access)
        for row in rows:
            values = parse_row(row, access.table)
            if matches(values):
                yield FoundRow(row, values)


# -- both ------------------------------------------------------------------------------------------


async def _fetch_page(access: RowAccess, path: str, size: int) -> tuple[list[Row], str | None]:
    """Return the rows of a page, and the path of the next one."""
    response = await _send(access, queries.build_page_request(path, size))
    body = _parse_object(access, response)
    rows = body.get("value")
    if not isinstance(rows, list):
        raise Unavailable(access.dataverse.upstream.name, "the response is not a collection")
    return rows, _find_next_path(access, body.get("@odata.nextLink"))


async def _send(access: RowAccess, request: Request) -> Response:
    """Its address may hold values that somebody filters by, or those of a row, where the next page
    begins: servers on the way log addresses, so it goes in the body of a batch."""
    with add_activity_context(action="search", table=access.table.table):
        (response,) = await access.dataverse.read([request], access.run_id, in_body=True)
    return response


def _parse_object(access: RowAccess, response: Response) -> dict[str, Any]:
    if response.status != 200:
        name = access.dataverse.upstream.name
        raise Misconfigured(f"{name} {describe_failure(response)} to a query of the feed")
    body = decimal_json.decode_object(response.body)
    if body is None:
        raise Unavailable(access.dataverse.upstream.name, "the response is not a JSON object")
    return body


def _find_next_path(access: RowAccess, link: Any) -> str | None:
    """Return the path below the API. A link that leads elsewhere gets no token of this app."""
    if link is None:
        return None
    upstream = access.dataverse.upstream
    prefix = f"{upstream.base.rstrip('/')}/{API}/"
    if not isinstance(link, str) or not link.startswith(prefix):
        raise Unavailable(upstream.name, "a link to the next page leads elsewhere")
    return link.removeprefix(prefix)


def _build_page(
    access: RowAccess, found: Sequence[FoundRow], next_cursor: PageCursor | None
) -> RowPage:
    return RowPage(
        tuple((row.values, get_version(row.row)) for row in found),
        tuple(get_name(row.row, access.table) for row in found),
        next_cursor=next_cursor,
    )


def build_not_found_error() -> Rejected:
    """Build the refusal of a key that no row has."""
    return NotFound("there is no entity with this key")


def _build_too_broad_error(access: RowAccess) -> NotSupported:
    text = (
        "Dataverse has no query that answers this, and there are more than "
        f"{access.max_scanned:,} rows to look at: narrow it down, by the patient for example"
    )
    return NotSupported(text, "$filter")
