"""Read one row by its address, or many by query options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from local.dataverse import filters, paging, refusals
from local.dataverse.addresses import Address
from local.dataverse.checks import TARGET
from local.dataverse.conditions import EVERYTHING, Sql, compile_condition, find_property
from local.dataverse.expand import parse_expand, read_expanded
from local.dataverse.organization import USER_NAMES
from local.dataverse.rows import Row, Slice, Values
from local.dataverse.tables import Catalog, Table
from local.dataverse.wire import Call, Reply
from local.dataverse.world import World

MAX_COUNT = 5000  # the highest $count
OPTIONS = frozenset({"$select", "$filter", "$top", "$orderby", "$count", "$skiptoken"})
NOT_OFFERED = frozenset(
    ("$apply", "$search", "fetchXml", "savedQuery", "userQuery", "sql", "partitionId")
)
FORMATTED = "@OData.Community.Display.V1.FormattedValue"


def read_row(world: World, call: Call, address: Address) -> Reply:
    check_options(call.options, frozenset({"$select", "$expand"}))
    store = world.store
    chosen = parse_select(address.table, call.options)
    expanded = parse_expand(world.catalog, address.table, call.options)
    row_id = address.find(store)
    row = store.get(address.table, row_id) if row_id else None
    if row is None:
        raise address.build_not_found()
    headers = {"ETag": row.etag}
    if call.headers.get("if-none-match") == row.etag:
        return Reply(304, headers=headers)
    entity = build_entity(call, address.table, row, chosen)
    return Reply(200, {**entity, **read_expanded(store, row, expanded)}, headers)


def read_rows(world: World, call: Call, table: Table) -> Reply:
    """Return a page of rows, with a link to the next page.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/page-results
    """
    options, store = call.options, world.store
    check_options(options, OPTIONS | {"$expand"})
    chosen = parse_select(table, options)
    expanded = parse_expand(world.catalog, table, options)
    where, parameters = _compile_where(world.catalog, table, options)
    order = paging.parse_order(table, options.get("$orderby", ""))
    page = paging.parse_page(call)
    top = parse_integer("$top", options["$top"]) if "$top" in options else None
    room = page.size if top is None else min(page.size, max(top - page.start, 0))
    later, positions = EVERYTHING if page.after is None else paging.compile_after(order, page.after)
    window = Slice(
        where=f"({where}) AND ({later})",
        parameters=[*parameters, *positions],
        order=order.sql,
        limit=room + 1,
        offset=page.start if page.after is None else 0,
    )
    matching = store.find(table, window)
    rows = matching[:room]
    document: dict[str, Any] = {"@odata.context": _build_context(call, table, chosen)}
    if options.get("$count") == "true":
        document["@odata.count"] = min(store.count(table, where, parameters), MAX_COUNT)
    annotations = find_annotations(call)
    document["value"] = [
        {
            **format_row(table, row, chosen, annotations),
            **read_expanded(store, row, expanded),
        }
        for row in rows
    ]
    if rows and len(matching) > room and (top is None or page.start + room < top):
        document["@odata.nextLink"] = paging.build_next_link(
            call, page, paging.mark_rows(order, rows)
        )
    applied = {"Preference-Applied": f"odata.maxpagesize={page.size}"}
    headers = applied if page.preferred else {}
    return Reply(200, document, headers)


def count_rows(world: World, call: Call, table: Table) -> Reply:
    check_options(call.options, frozenset({"$filter"}))
    where, parameters = _compile_where(world.catalog, table, call.options)
    total = min(world.store.count(table, where, parameters), MAX_COUNT)
    return Reply(200, raw=str(total).encode(), headers={"Content-Type": "text/plain"})


def build_entity(call: Call, table: Table, row: Row, chosen: list[str] | None) -> Values:
    context = f"{_build_context(call, table, chosen)}/$entity"
    return {"@odata.context": context, **format_row(table, row, chosen, find_annotations(call))}


def parse_select_only(call: Call, table: Table) -> list[str] | None:
    check_options(call.options, frozenset({"$select"}))
    return parse_select(table, call.options)


def parse_select(table: Table, options: Mapping[str, str]) -> list[str] | None:
    if not options.get("$select"):
        return None
    names = [name.strip() for name in options["$select"].split(",")]
    return [find_property(table, name).property_name for name in names]


def _compile_where(catalog: Catalog, table: Table, options: Mapping[str, str]) -> Sql:
    if "$filter" not in options:
        return EVERYTHING
    return compile_condition(catalog, table, filters.parse(options["$filter"]))


def parse_integer(name: str, text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text):
        raise refusals.bad_query(f"Invalid value '{text}' for {name} query option.")
    return int(text)


def check_options(options: Mapping[str, str], offered: frozenset[str]) -> None:
    for name in options:
        if name == "$skip":
            raise refusals.bad_query("The query option '$skip' is not supported.")
        if name in NOT_OFFERED or name.startswith("@"):
            raise refusals.not_offered(f"the query option '{name}'")
        if name not in offered and name != "tag":  # `tag` is for plug-ins and does nothing here
            raise refusals.bad_query(f"The query parameter '{name}' is not supported.")


def _build_context(call: Call, table: Table, chosen: list[str] | None) -> str:
    columns = f"({','.join(chosen)})" if chosen else ""
    return f"{call.root}/$metadata#{table.entity_set}{columns}"


def find_annotations(call: Call) -> frozenset[str]:
    """Return the requested annotations: by name, by `Some.Namespace.*`, or all by `*`.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/compose-http-requests-handle-errors#prefer-header
    """
    requested = call.preferences.get("odata.include-annotations", "").split(",")
    patterns = [pattern.strip() for pattern in requested]
    supported = (FORMATTED, TARGET)
    return frozenset(
        name for name in supported if any(fnmatchcase(name[1:], pattern) for pattern in patterns)
    )


def format_row(
    table: Table, row: Row, chosen: list[str] | None, annotations: frozenset[str]
) -> Values:
    """Return the row as JSON. It always has the id; annotations only if they are requested."""
    names = table.properties if chosen is None else {*chosen, table.primary_id}
    document: Values = {"@odata.etag": row.etag}
    for name in sorted(names):
        value = row.values.get(name)
        document[name] = value
        column = table.properties[name]
        if value is None:
            continue
        labels = {option.value: option.label for option in column.options}
        if FORMATTED in annotations and column.edm == "Edm.Int32" and value in labels:
            document[name + FORMATTED] = labels[value]
        if FORMATTED in annotations and (user := USER_NAMES.get(str(value))) and column.targets:
            document[name + FORMATTED] = user
        if TARGET in annotations and row.values.get(name + TARGET):
            document[name + TARGET] = row.values[name + TARGET]
    return document
