"""The OData v4 data provider: read and write rows of virtual tables at their feed.

https://learn.microsoft.com/power-apps/maker/data-platform/virtual-entity-odata-provider-requirements
Microsoft documents neither its provider's requests nor its error texts. This one sends OData 4.0
requests and turns every error of the feed into one error without details.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from local.dataverse import addresses, filters, paging, queries, refusals, router, writes
from local.dataverse.checks import TARGET, format_instant, parse_instant, parse_values
from local.dataverse.conditions import find_property
from local.dataverse.external_filter import render_filter
from local.dataverse.feeds import Feed, Feeds
from local.dataverse.organization import parse_parameters
from local.dataverse.rows import Row, Values
from local.dataverse.tables import Column, Table
from local.dataverse.wire import Call, Refusal, Reply
from local.dataverse.world import World

# The most pages of a feed that are read for one page of Dataverse.
MAX_PAGES = 1000


def find_virtual_table(world: World, call: Call) -> Table | None:
    """Return the virtual table whose rows the call addresses, or None."""
    try:
        segment = addresses.parse_segment(call.resource)
    except Refusal:
        return None
    table = world.catalog.by_set.get(segment.name)
    if table is None or table.external is None or "OnExternal" in segment.rest:
        return None
    return table


async def answer(world: World, call: Call, table: Table, feeds: Feeds) -> Reply:
    try:
        parse_parameters(world.organization, call.headers)
        segment = addresses.parse_segment(call.resource)
        if segment.rest:
            raise refusals.no_resource(segment.rest)
        feed = feeds.open_feed(world, table)
        if segment.key is None:
            return await _answer_rows(world, call, table, feed)
        address = addresses.parse_address(table, segment.key)
        return await _answer_row(world, call, table, str(address.id), feed)
    except Refusal as refusal:
        return refusal.build_reply()


async def _answer_rows(world: World, call: Call, table: Table, feed: Feed) -> Reply:
    if call.method == "POST":
        values = parse_values(
            table, router.read_body(call, table.entity_set), writes.make_resolver(world)
        )
        response = await feed.send("POST", feed.collection, body=_to_feed(table, values))
        row = _from_feed(table, _read_document(response))
        return _reply_written(call, table, row, created=True)
    if call.method != "GET":
        raise refusals.no_method(call.method)
    options = call.options
    queries.check_options(options, queries.OPTIONS)
    chosen = queries.parse_select(table, options)
    page = paging.parse_page(call)
    top = queries.parse_integer("$top", options["$top"]) if "$top" in options else None
    room = page.size if top is None else min(page.size, max(top - page.start, 0))
    with_count = options.get("$count") == "true"
    rows, count = await _read_rows(
        table, feed, options, chosen, (page.start, room + 1), with_count=with_count
    )
    context = f"{call.root}/$metadata#{table.entity_set}"
    document: dict[str, Any] = {"@odata.context": context}
    if with_count and count is not None:
        document["@odata.count"] = min(count, queries.MAX_COUNT)
    annotations = queries.find_annotations(call)
    document["value"] = [queries.format_row(table, row, chosen, annotations) for row in rows[:room]]
    if len(rows) > room and (top is None or page.start + room < top):
        document["@odata.nextLink"] = paging.build_next_link(call, page)
    applied = {"Preference-Applied": f"odata.maxpagesize={page.size}"}
    headers = applied if page.preferred else {}
    return Reply(200, document, headers)


async def _read_rows(
    table: Table,
    feed: Feed,
    options: Mapping[str, str],
    chosen: list[str] | None,
    window: tuple[int, int],
    *,
    with_count: bool,
) -> tuple[list[Row], int | None]:
    """Read the rows of the window, over as many pages of the feed as needed."""
    start, number = window
    query = {"$select": _build_select(table, chosen), "$top": str(number)}
    if start:
        query["$skip"] = str(start)
    if "$filter" in options:
        query["$filter"] = render_filter(table, filters.parse(options["$filter"]))
    if options.get("$orderby"):
        query["$orderby"] = _build_order(table, options["$orderby"])
    if with_count:
        query["$count"] = "true"
    document = _read_document(await feed.send("GET", feed.collection, query))
    count, rows = document.get("@odata.count"), list(document["value"])
    for _ in range(MAX_PAGES):
        next_link = document.get("@odata.nextLink")
        if next_link is None or len(rows) >= number:
            break
        url = str(httpx.URL(f"{feed.address}/").join(next_link))
        if not url.startswith(f"{feed.address}/"):
            raise refusals.feed_failed()  # the function key is sent to no other address
        document = _read_document(await feed.send("GET", url))
        rows += document["value"]
    return [_from_feed(table, row) for row in rows[:number]], count


async def _answer_row(world: World, call: Call, table: Table, row_id: str, feed: Feed) -> Reply:
    address = f"{feed.collection}({row_id})"
    match call.method:
        case "GET":
            queries.check_options(call.options, frozenset({"$select"}))
            chosen = queries.parse_select(table, call.options)
            response = await feed.send("GET", address, {"$select": _build_select(table, chosen)})
            row = _from_feed(table, _read_existing(table, row_id, response))
            return Reply(200, queries.build_entity(call, table, row, chosen), {"ETag": row.etag})
        case "PATCH":
            body = router.read_body(call, table.entity_set)
            values = parse_values(table, body, writes.make_resolver(world))
            values.pop(table.primary_id, None)
            _check_exists(
                table, row_id, await feed.send("PATCH", address, body=_to_feed(table, values))
            )
            return _reply_written(call, table, Row(row_id, 0, values), created=False)
        case "DELETE":
            _check_exists(table, row_id, await feed.send("DELETE", address))
            return Reply(204)
    raise refusals.no_method(call.method)


def _reply_written(call: Call, table: Table, row: Row, *, created: bool) -> Reply:
    headers = {"OData-EntityId": f"{call.root}/{table.entity_set}({row.id})"}
    if created:
        headers["Location"] = headers["OData-EntityId"]
    return Reply(204, headers=headers)


def _check_exists(table: Table, row_id: str, response: httpx.Response) -> None:
    if response.status_code in (404, 410):
        raise refusals.no_row(table.name, row_id)


def _read_existing(table: Table, row_id: str, response: httpx.Response) -> Values:
    _check_exists(table, row_id, response)
    return _read_document(response)


def _read_document(response: httpx.Response) -> Values:
    try:
        document = response.json()
    except ValueError as error:
        raise refusals.feed_failed() from error
    if not isinstance(document, dict) or response.status_code >= 400:
        raise refusals.feed_failed()
    return document


def _map_columns(table: Table) -> dict[str, Column]:
    """Return the columns by external name. A column without one is never read."""
    return {column.external: column for column in table.columns.values() if column.external}


def _build_select(table: Table, chosen: list[str] | None) -> str:
    names = None if chosen is None else {*chosen, table.primary_id}
    columns = _map_columns(table).items()
    return ",".join(
        external for external, column in columns if names is None or column.property_name in names
    )


def _build_order(table: Table, text: str) -> str:
    parts = [part.split() for part in text.split(",") if part.strip()]
    if any(len(words) > 2 or words[1:] not in ([], ["asc"], ["desc"]) for words in parts):
        raise refusals.bad_query("Syntax error in '$orderby'.")
    return ",".join(" ".join([_find_external_name(table, words[0]), *words[1:]]) for words in parts)


def _find_external_name(table: Table, name: str) -> str:
    column = find_property(table, name)
    if column.external is None:
        raise refusals.feed_failed()
    return column.external


def _to_feed(table: Table, values: Values) -> Values:
    """Convert values from Dataverse's property names to the feed's."""
    return {
        column.external: values[column.property_name]
        for column in table.columns.values()
        if column.external and column.property_name in values
    }


def _from_feed(table: Table, document: Values) -> Row:
    """Convert a document of the feed to a row. Raises Refusal if its key is missing."""
    values: Values = {}
    for external, column in _map_columns(table).items():
        value = document.get(external)
        if column.type == "DateTime" and isinstance(value, str):
            value = format_instant(parse_instant(value))
        values[column.property_name] = value
        if column.is_lookup and value is not None:
            values[column.property_name + TARGET] = column.targets[0]
    key = values.get(table.primary_id)
    if not (isinstance(key, str) and addresses.is_guid(key)):
        raise refusals.feed_failed()
    return Row(addresses.normalize_guid(key), 0, values)
