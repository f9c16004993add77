"""A query of the feed as requests to the Web API. Pure.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/overview
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from urllib.parse import quote
from uuid import UUID

from integration.core.model import Request
from integration.dataverse.requests import API, HEADERS
from integration.odata.expressions import Order
from integration.odata.model import Type
from integration.odata.query import Query
from integration.virtual_tables.physical.filter import RowFilter, build_filter
from integration.virtual_tables.physical.table import STATE, PhysicalTable
from integration.virtual_tables.query_plan import split_filter

# Rows in one response, at most:
# https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/page-results
MAX_PAGE = 5000

# Dataverse counts no further:
# https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/count-rows
MAX_COUNT = 5000

_LOOKUP_TABLES = "Microsoft.Dynamics.CRM.lookuplogicalname"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPlan:
    """How the rows of a query are read.

    `path`: of the first page, in the order of the query if it `is_sorted`. `is_exact`: the
    filter finds the rows that satisfy the condition, and no others. `is_gathered`: everything that
    it finds must be read before the first row is known. `is_sorted`: Dataverse brings the rows into
    the order of the query.
    """

    query: Query
    path: str
    is_exact: bool
    is_gathered: bool
    is_sorted: bool


def plan_rows(query: Query, table: PhysicalTable) -> RowPlan:
    """Plan how to read the rows that a query asks for."""
    found = build_filter(query.filter, table)
    order = _build_order(query.order_by, table)
    is_gathered = order is None or (query.count and not found.is_exact)
    needed = None if query.select is None else {property_.name for property_ in query.select}
    if needed is not None:
        needed |= {order.property.name for order in query.order_by}
        for part in split_filter(query.filter):
            needed |= part.properties
    options = _build_options(table, needed)
    options |= _build_filter_option(found, table)
    if not query.order_by:
        order = [f"{column.name} desc" for column in table.newest]
    options["$orderby"] = _join_order(order or [], table)
    return RowPlan(
        query=query,
        path=_build_path(table.entity_set, options),
        is_exact=found.is_exact,
        is_gathered=is_gathered,
        is_sorted=order is not None,
    )


def build_count(query: Query, table: PhysicalTable) -> Request:
    """Build the request that counts the rows of an exact filter, up to MAX_COUNT."""
    options = {"$select": table.key, "$count": "true"}
    options |= _build_filter_option(build_filter(query.filter, table), table)
    return build_page_request(_build_path(table.entity_set, options), 1)


def build_keys_path(query: Query, table: PhysicalTable) -> str:
    """Build the path of the keys of the rows of an exact filter."""
    options = {"$select": table.key}
    options |= _build_filter_option(build_filter(query.filter, table), table)
    return _build_path(table.entity_set, options)


def build_page_request(path: str, size: int) -> Request:
    """Build the request for a page. `path`: without the address of the API."""
    preferences = f'odata.maxpagesize={size},odata.include-annotations="{_LOOKUP_TABLES}"'
    return Request("GET", f"{API}/{path}", headers={**HEADERS, "prefer": preferences})


def build_row_request(
    table: PhysicalTable, key: UUID, selected: Collection[str] | None = None
) -> Request:
    """Build the request for one row, with the columns of these properties; None: of all."""
    path = _build_path(f"{table.entity_set}({key})", _build_options(table, selected))
    preferences = f'odata.include-annotations="{_LOOKUP_TABLES}"'
    return Request("GET", f"{API}/{path}", headers={**HEADERS, "prefer": preferences})


def _build_options(table: PhysicalTable, needed: Collection[str] | None) -> dict[str, str]:
    """Return the options that have the columns of these properties, and of what names a row."""
    always = (table.type.key, table.entity_type.entity.id_column)
    names = table.columns if needed is None else {*needed, *always}
    selected: dict[str, None] = {table.key: None}
    expanded: dict[str, dict[str, None]] = {}
    for name in sorted(names):
        for column in table.columns.get(name, ()):
            if column.navigation is None:
                selected[column.name] = None
            else:
                expanded.setdefault(column.navigation, {})[column.name] = None
    if table.has_state:
        selected[STATE] = None
    options = {"$select": ",".join(selected)}
    if expanded:
        parts = (f"{name}($select={','.join(parts)})" for name, parts in expanded.items())
        options["$expand"] = ",".join(parts)
    return options


def _build_filter_option(found: RowFilter, table: PhysicalTable) -> dict[str, str]:
    """Leave out inactive rows: the mirror deactivates those of deleted resources, and the feed of
    FHIR shows none of them."""
    parts = [f"{STATE} eq 0"] if table.has_state else []
    if found.text is not None:
        parts.append(f"({found.text})" if parts else found.text)
    return {"$filter": " and ".join(parts)} if parts else {}


def _build_order(orders: Iterable[Order], table: PhysicalTable) -> list[str] | None:
    """Return the items of $orderby. None: Dataverse cannot bring rows into this order.

    It sorts GUIDs otherwise than people read them, and text that differs in case alone as equal.
    """
    items = []
    for order in orders:
        columns = table.columns[order.property.name]
        is_sortable = order.property.type is not Type.GUID and not order.property.case_sensitive
        if len(columns) != 1 or columns[0].lookup is not None or not is_sortable:
            return None
        items.append(f"{columns[0].name} {'desc' if order.descending else 'asc'}")
    return items


def _join_order(items: Iterable[str], table: PhysicalTable) -> str:
    return ",".join([*items, f"{table.key} asc"])


def _build_path(resource: str, options: dict[str, str]) -> str:
    text = "&".join(f"{name}={quote(value, safe=',()=$/')}" for name, value in options.items())
    return f"{resource}?{text}"
