"""Pages of rows: by the next link that Dataverse gives, or by the id that they show."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from integration.core import decimal_json
from integration.core.errors import Misconfigured, Unavailable
from integration.core.model import Request, Response, Row
from integration.dataverse import requests
from integration.dataverse.client import Dataverse
from integration.mapping.model import EntityMap
from integration.reconcile.run import Position

RowPage = Mapping[str, Any]


def parse_page(dataverse: Dataverse, response: Response) -> RowPage:
    """Return a page of rows. Raises Misconfigured or Unavailable if the response is none."""
    name = dataverse.upstream.name
    if response.status != 200:
        raise Misconfigured(f"{name} answered a request for rows with {response.status}")
    page = decimal_json.decode_object(response.body)
    if page is None:
        raise Unavailable(name, "answered a request for rows with something else than JSON")
    return page


def build_next_request(dataverse: Dataverse, request: Request, page: RowPage) -> Request | None:
    """Build the request for the page after `page`; None if it is the last one.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/page-results
    Raises Misconfigured for an address elsewhere: the token would go there, too.
    """
    url = page.get("@odata.nextLink")
    if url is None:
        return None
    name, base = dataverse.upstream.name, dataverse.upstream.base
    if not str(url).startswith((f"{base}/", f"{base}?")):
        raise Misconfigured(f"{name} gave a next page whose address is not below its own")
    return replace(request, path=str(url)[len(base) :].removeprefix("/"))


async def read_by_id(
    send: Callable[[Request], Awaitable[Response]],
    dataverse: Dataverse,
    entity: EntityMap,
    columns: Sequence[str],
    *,
    size: int,
    begin: Position,
) -> AsyncIterator[tuple[Sequence[Row], Position, bool]]:
    """Yield the active rows that show a resource, in pages of up to `size`, in the order of the ids
    that they show, from a position on; with each page the position behind it, and whether it is the
    last one.

    A page begins at the last id of the page before, not at a number of rows: rows that leave the
    filter meanwhile, because they are deactivated, move no other row past the page. The primary key
    would do as well, but only text, numbers and times may be compared by `gt`:
    https://learn.microsoft.com/power-apps/developer/data-platform/fetchxml/reference/operators
    """
    seen: set[str] = set()
    after, operator = begin.at, "gt" if begin.is_behind else "ge"
    while True:
        condition = f"{entity.id_column} ne null and statecode eq 0"
        if after is not None:
            condition += f" and {entity.id_column} {operator} {requests.quote_literal(after)}"
        order = (entity.id_column, entity.key)
        query = requests.build_row_query(entity.entity_set, columns, condition, size, order)
        rows: list[Row] = parse_page(dataverse, await send(query))["value"]
        # Several rows may show the last id, in whatever case of letters.
        fresh = [row for row in rows if row[entity.key] not in seen]
        is_last = len(rows) < size
        last = str(rows[-1][entity.id_column]) if rows else after
        if fresh:
            # Whoever goes on from here knows no row: a page of one id would come forever.
            is_stuck = operator == "ge" and _is_only(rows, entity.id_column, after)
            yield fresh, Position(last, is_behind=is_stuck), is_last
        if is_last:
            return
        # A page of nothing but rows that were seen: go on behind their id.
        after, operator = last, "ge" if fresh else "gt"
        seen = {row[entity.key] for row in rows}


def _is_only(rows: Sequence[Row], column: str, id_: str | None) -> bool:
    """Whether all rows show this id, in whatever case of letters."""
    return id_ is not None and all(str(row[column]).casefold() == id_.casefold() for row in rows)
