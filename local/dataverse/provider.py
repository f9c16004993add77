"""The OData v4 data provider: rows of virtual tables, read and written at their feed.

https://learn.microsoft.com/power-apps/maker/data-platform/virtual-entity-odata-provider-requirements
Microsoft publishes neither the requests that its provider sends nor how it words errors. This one
sends what OData 4.0 says; what the feed answers to a mistake becomes one error without details.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from local.dataverse import addresses, filters, queries, refusals, router, writes
from local.dataverse.checks import TARGET, stamp, stamp_of, values_of
from local.dataverse.conditions import property_of
from local.dataverse.external_filter import rendered
from local.dataverse.feeds import Feed, Feeds
from local.dataverse.organization import wishes_of
from local.dataverse.rows import Row, Values
from local.dataverse.tables import Column, Table
from local.dataverse.wire import Call, Refusal, Reply
from local.dataverse.world import World

# Whatever a feed says of its size, so many pages are read for one of Dataverse's.
MOST_PAGES = 1000


def virtual_of(world: World, call: Call) -> Table | None:
    """The virtual table whose rows a call is about; None where another part answers it."""
    try:
        segment = addresses.split(call.resource)
    except Refusal:
        return None
    table = world.catalog.by_set.get(segment.name)
    if table is None or table.external is None or "OnExternal" in segment.rest:
        return None
    return table


async def answer(world: World, call: Call, table: Table, feeds: Feeds) -> Reply:
    try:
        wishes_of(world.organization, call.headers)
        segment = addresses.split(call.resource)
        if segment.rest:
            raise refusals.no_resource(segment.rest)
        feed = feeds.of(world, table)
        if segment.key is None:
            return await _rows(world, call, table, feed)
        at = addresses.address(table, segment.key)
        return await _row(world, call, table, str(at.id), feed)
    except Refusal as refusal:
        return refusal.reply()


async def _rows(world: World, call: Call, table: Table, feed: Feed) -> Reply:
    if call.method == "POST":
        values = values_of(table, router.body_of(call, table.entity_set), writes.resolver(world))
        answer = await feed.ask("POST", feed.collection, body=_outward(table, values))
        row = _inward(table, _document(answer))
        return _written(call, table, row, created=True)
    if call.method != "GET":
        raise refusals.no_method(call.method)
    options = call.options
    queries.check_options(options, queries.OPTIONS)
    chosen = queries.selection(table, options)
    size, page, preferred = queries.page(call)
    top = queries.whole("$top", options["$top"]) if "$top" in options else None
    start = (page - 1) * size
    room = size if top is None else min(size, max(top - start, 0))
    counted = options.get("$count") == "true"
    found, count = await _found(table, feed, options, chosen, (start, room + 1), counted=counted)
    context = f"{call.root}/$metadata#{table.entity_set}"
    document: dict[str, Any] = {"@odata.context": context}
    if counted and count is not None:
        document["@odata.count"] = min(count, queries.PAGE)
    shown = queries.annotations_of(call)
    document["value"] = [queries.shape(table, row, chosen, shown) for row in found[:room]]
    if len(found) > room and (top is None or start + room < top):
        document["@odata.nextLink"] = queries.next_link(call, page + 1, size)
    headers = {"Preference-Applied": f"odata.maxpagesize={size}"} if preferred else {}
    return Reply(200, document, headers)


async def _found(
    table: Table,
    feed: Feed,
    options: Mapping[str, str],
    chosen: list[str] | None,
    window: tuple[int, int],
    *,
    counted: bool,
) -> tuple[list[Row], int | None]:
    """What is in the window, however the feed cuts it into pages."""
    start, wanted = window
    query = {"$select": _select(table, chosen), "$top": str(wanted)}
    if start:
        query["$skip"] = str(start)
    if "$filter" in options:
        query["$filter"] = rendered(table, filters.parse(options["$filter"]))
    if options.get("$orderby"):
        query["$orderby"] = _order(table, options["$orderby"])
    if counted:
        query["$count"] = "true"
    document = _document(await feed.ask("GET", feed.collection, query))
    count, found = document.get("@odata.count"), list(document["value"])
    for _ in range(MOST_PAGES):
        following = document.get("@odata.nextLink")
        if following is None or len(found) >= wanted:
            break
        url = str(httpx.URL(f"{feed.address}/").join(following))
        if not url.startswith(f"{feed.address}/"):
            raise refusals.feed_failed()  # the key goes nowhere else
        document = _document(await feed.ask("GET", url))
        found += document["value"]
    return [_inward(table, each) for each in found[:wanted]], count


async def _row(world: World, call: Call, table: Table, row_id: str, feed: Feed) -> Reply:
    address = f"{feed.collection}({row_id})"
    match call.method:
        case "GET":
            queries.check_options(call.options, frozenset({"$select"}))
            chosen = queries.selection(table, call.options)
            answer = await feed.ask("GET", address, {"$select": _select(table, chosen)})
            row = _inward(table, _there(table, row_id, answer))
            return Reply(200, queries.entity(call, table, row, chosen), {"ETag": row.etag})
        case "PATCH":
            body = router.body_of(call, table.entity_set)
            values = values_of(table, body, writes.resolver(world))
            values.pop(table.primary_id, None)
            _gone(table, row_id, await feed.ask("PATCH", address, body=_outward(table, values)))
            return _written(call, table, Row(row_id, 0, values), created=False)
        case "DELETE":
            _gone(table, row_id, await feed.ask("DELETE", address))
            return Reply(204)
    raise refusals.no_method(call.method)


def _written(call: Call, table: Table, row: Row, *, created: bool) -> Reply:
    headers = {"OData-EntityId": f"{call.root}/{table.entity_set}({row.id})"}
    if created:
        headers["Location"] = headers["OData-EntityId"]
    return Reply(204, headers=headers)


def _gone(table: Table, row_id: str, answer: httpx.Response) -> None:
    if answer.status_code in (404, 410):
        raise refusals.no_row(table.name, row_id)


def _there(table: Table, row_id: str, answer: httpx.Response) -> Values:
    _gone(table, row_id, answer)
    return _document(answer)


def _document(answer: httpx.Response) -> Values:
    try:
        document = answer.json()
    except ValueError as error:
        raise refusals.feed_failed() from error
    if not isinstance(document, dict) or answer.status_code >= 400:
        raise refusals.feed_failed()
    return document


def _mapped(table: Table) -> dict[str, Column]:
    """By the feed's names. A column without one is never asked for."""
    return {each.external: each for each in table.columns.values() if each.external}


def _select(table: Table, chosen: list[str] | None) -> str:
    names = None if chosen is None else {*chosen, table.primary_id}
    mapped = _mapped(table).items()
    return ",".join(
        external for external, each in mapped if names is None or each.property_name in names
    )


def _order(table: Table, text: str) -> str:
    parts = [part.split() for part in text.split(",") if part.strip()]
    if any(len(words) > 2 or words[1:] not in ([], ["asc"], ["desc"]) for words in parts):
        raise refusals.bad_query("Syntax error in '$orderby'.")
    return ",".join(" ".join([_external(table, words[0]), *words[1:]]) for words in parts)


def _external(table: Table, name: str) -> str:
    column = property_of(table, name)
    if column.external is None:
        raise refusals.feed_failed()
    return column.external


def _outward(table: Table, values: Values) -> Values:
    """Dataverse's names become the feed's."""
    return {
        column.external: values[column.property_name]
        for column in table.columns.values()
        if column.external and column.property_name in values
    }


def _inward(table: Table, document: Values) -> Row:
    """A row as Dataverse shows it. Only a row with its key is one."""
    values: Values = {}
    for external, column in _mapped(table).items():
        value = document.get(external)
        if column.type == "DateTime" and isinstance(value, str):
            value = stamp(stamp_of(value))
        values[column.property_name] = value
        if column.is_lookup and value is not None:
            values[column.property_name + TARGET] = column.targets[0]
    key = values.get(table.primary_id)
    if not (isinstance(key, str) and addresses.is_guid(key)):
        raise refusals.feed_failed()
    return Row(addresses.guid(key), 0, values)
