"""Reading rows: one by its address, or many by query options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote, urlencode

from local.dataverse import filters, refusals
from local.dataverse.addresses import Address
from local.dataverse.checks import TARGET
from local.dataverse.conditions import EVERYTHING, Sql, condition, path, property_of
from local.dataverse.rows import Row, Slice, Store, Values
from local.dataverse.tables import Table
from local.dataverse.wire import Call, Reply

PAGE = 5000  # most rows in one answer, and the most that $count tells
OPTIONS = frozenset({"$select", "$filter", "$top", "$orderby", "$count", "$skiptoken"})
UNOFFERED = frozenset(
    ("$expand", "$apply", "$search", "fetchXml", "savedQuery", "userQuery", "sql", "partitionId")
)
FORMATTED = "@OData.Community.Display.V1.FormattedValue"
COOKIE = re.compile(r'<cookie pagenumber="(\d+)" size="(\d+)" />')


def read_row(store: Store, call: Call, at: Address) -> Reply:
    check_options(call.options, frozenset({"$select"}))
    chosen = selection(at.table, call.options)
    row_id = at.find(store)
    row = store.get(at.table, row_id) if row_id else None
    if row is None:
        raise at.absent()
    headers = {"ETag": row.etag}
    if call.headers.get("if-none-match") == row.etag:
        return Reply(304, headers=headers)
    return Reply(200, entity(call, at.table, row, chosen), headers)


def read_rows(store: Store, call: Call, table: Table) -> Reply:
    """A page of rows, with a link to the next one.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/page-results
    """
    options = call.options
    check_options(options, OPTIONS)
    chosen = selection(table, options)
    where = _where(table, options)
    size, number, preferred = page(call)
    top = whole("$top", options["$top"]) if "$top" in options else None
    start = (number - 1) * size
    room = size if top is None else min(size, max(top - start, 0))
    found = store.find(table, Slice(*where, _order(table, options), room + 1, start))
    rows = found[:room]
    document: dict[str, Any] = {"@odata.context": _context(call, table, chosen)}
    if options.get("$count") == "true":
        document["@odata.count"] = min(store.count(table, *where), PAGE)
    shown = annotations_of(call)
    document["value"] = [shape(table, row, chosen, shown) for row in rows]
    if len(found) > room and (top is None or start + room < top):
        document["@odata.nextLink"] = next_link(call, number + 1, size)
    headers = {"Preference-Applied": f"odata.maxpagesize={size}"} if preferred else {}
    return Reply(200, document, headers)


def count_rows(store: Store, call: Call, table: Table) -> Reply:
    check_options(call.options, frozenset({"$filter"}))
    total = min(store.count(table, *_where(table, call.options)), PAGE)
    return Reply(200, raw=str(total).encode(), headers={"Content-Type": "text/plain"})


def entity(call: Call, table: Table, row: Row, chosen: list[str] | None) -> Values:
    context = f"{_context(call, table, chosen)}/$entity"
    return {"@odata.context": context, **shape(table, row, chosen, annotations_of(call))}


def selection_of(call: Call, table: Table) -> list[str] | None:
    check_options(call.options, frozenset({"$select"}))
    return selection(table, call.options)


def selection(table: Table, options: Mapping[str, str]) -> list[str] | None:
    if not options.get("$select"):
        return None
    names = [name.strip() for name in options["$select"].split(",")]
    return [property_of(table, name).property_name for name in names]


def _where(table: Table, options: Mapping[str, str]) -> Sql:
    if "$filter" not in options:
        return EVERYTHING
    return condition(table, filters.parse(options["$filter"]))


def _order(table: Table, options: Mapping[str, str]) -> str:
    parts = []
    for item in options.get("$orderby", "").split(","):
        words = item.split()
        if not words:
            continue
        direction = words[1] if len(words) == 2 else "asc"
        if len(words) > 2 or direction not in ("asc", "desc"):
            raise refusals.bad_query("Syntax error in '$orderby'.")
        parts.append(f"{path(property_of(table, words[0]))} {direction.upper()}")
    return ", ".join([*parts, "id ASC"])


def page(call: Call) -> tuple[int, int, bool]:
    """Page size, page number, and whether the caller asked for a size."""
    cookie = COOKIE.fullmatch(call.options.get("$skiptoken", ""))
    if "$skiptoken" in call.options and cookie is None:
        raise refusals.bad_query("Malformed XML in the paging cookie.")
    wish = call.preferences.get("odata.maxpagesize")
    preferred = wish is not None and wish.isdecimal() and 0 < int(wish) <= PAGE
    size = int(wish) if preferred and wish else PAGE
    if cookie is None:
        return size, 1, preferred
    # The link keeps its page size, so a page is never cut anew in the middle of a reading.
    return min(max(int(cookie[2]), 1), PAGE), max(int(cookie[1]), 1), preferred


def next_link(call: Call, page: int, size: int) -> str:
    kept = {name: value for name, value in call.options.items() if name != "$skiptoken"}
    token = {"$skiptoken": f'<cookie pagenumber="{page}" size="{size}" />'}
    query = urlencode({**kept, **token}, quote_via=quote, safe="$,")
    return f"{call.root}/{call.path}?{query}"


def whole(name: str, text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text):
        raise refusals.bad_query(f"Invalid value '{text}' for {name} query option.")
    return int(text)


def check_options(options: Mapping[str, str], offered: frozenset[str]) -> None:
    for name in options:
        if name == "$skip":
            raise refusals.bad_query("The query option '$skip' is not supported.")
        if name in UNOFFERED or name.startswith("@"):
            raise refusals.not_offered(f"the query option '{name}'")
        if name not in offered and name != "tag":  # `tag` is for plug-ins and does nothing here
            raise refusals.bad_query(f"The query parameter '{name}' is not supported.")


def _context(call: Call, table: Table, chosen: list[str] | None) -> str:
    columns = f"({','.join(chosen)})" if chosen else ""
    return f"{call.root}/$metadata#{table.entity_set}{columns}"


def annotations_of(call: Call) -> frozenset[str]:
    """Which are preferred: by name, by `Some.Namespace.*`, or all by `*`.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/compose-http-requests-handle-errors#prefer-header
    """
    wished = call.preferences.get("odata.include-annotations", "").split(",")
    patterns = [pattern.strip() for pattern in wished]
    known = (FORMATTED, TARGET)
    return frozenset(
        name for name in known if any(fnmatchcase(name[1:], pattern) for pattern in patterns)
    )


def shape(table: Table, row: Row, chosen: list[str] | None, shown: frozenset[str]) -> Values:
    """The id always comes along. Annotations of lookups and choices only when preferred."""
    names = table.properties if chosen is None else {*chosen, table.primary_id}
    shown_row: Values = {"@odata.etag": row.etag}
    for name in sorted(names):
        value = row.values.get(name)
        shown_row[name] = value
        column = table.properties[name]
        if value is None:
            continue
        labels = {option.value: option.label for option in column.options}
        if FORMATTED in shown and column.edm == "Edm.Int32" and value in labels:
            shown_row[name + FORMATTED] = labels[value]
        if TARGET in shown and row.values.get(name + TARGET):
            shown_row[name + TARGET] = row.values[name + TARGET]
    return shown_row
