"""Pages of rows by paging cookie: a page begins after the last row of the page before.

So rows that are created, deleted or changed between two pages move no other row from one page to
another. A cookie holds the order's values of the first and the last row of its page. Rows of
virtual tables have none: there a page is known by its number.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/page-results
https://learn.microsoft.com/power-apps/developer/data-platform/fetchxml/page-results#paging-cookies
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlencode

from local.dataverse import refusals
from local.dataverse.conditions import Sql, build_path, find_property
from local.dataverse.rows import Row, fold
from local.dataverse.tables import Table
from local.dataverse.wire import Call

MAX_SIZE = 5000  # the most rows in one response

_TOKEN = re.compile(
    r'<cookie pagenumber="(\d+)" pagingcookie="([^"]*)" istracking="False" />', re.ASCII
)
_COOKIE = re.compile(
    r'<cookie page="\d+" size="(\d+)">(?:<row last="([^"]*)" first="[^"]*" />)?</cookie>'
)


@dataclass(frozen=True, slots=True)
class Order:
    """The order of a query: (SQL expression, whether it descends), and the SQL of all of it."""

    parts: tuple[tuple[str, bool], ...]
    names: tuple[str, ...]
    texts: tuple[bool, ...]

    @property
    def sql(self) -> str:
        named = [f"{path} {'DESC' if down else 'ASC'}" for path, down in self.parts]
        return ", ".join([*named, "id ASC"])

    def read_position(self, row: Row) -> list[Any]:
        """Return the values of a row by which the query orders, and its id."""
        values = [row.values.get(name) for name in self.names]
        folded = [
            fold(value) if text else value for value, text in zip(values, self.texts, strict=True)
        ]
        return [*folded, row.id]


@dataclass(frozen=True, slots=True)
class Page:
    """Which page is asked for. `after`: the position of the last row before it, if it is known."""

    number: int
    size: int
    preferred: bool  # whether the caller requested the size
    after: list[Any] | None

    @property
    def start(self) -> int:
        """The number of rows before it."""
        return (self.number - 1) * self.size


def parse_order(table: Table, text: str) -> Order:
    columns, parts = [], []
    for item in text.split(","):
        words = item.split()
        if not words:
            continue
        direction = words[1] if len(words) == 2 else "asc"
        if len(words) > 2 or direction not in ("asc", "desc"):
            raise refusals.bad_query("Syntax error in '$orderby'.")
        column = find_property(table, words[0])
        columns.append(column)
        parts.append((build_path(column), direction == "desc"))
    names = tuple(column.property_name for column in columns)
    texts = tuple(column.edm == "Edm.String" for column in columns)
    return Order(tuple(parts), names, texts)


def parse_page(call: Call) -> Page:
    token = call.options.get("$skiptoken")
    size, preferred = _parse_size(call)
    if token is None:
        return Page(1, size, preferred, None)
    number, size, after = _parse_token(token)
    # The next link keeps its page size.
    return Page(number, size, preferred, after)


def parse_page_size(call: Call) -> int:
    """Return how many rows a page may have."""
    return _parse_size(call)[0]


def _parse_size(call: Call) -> tuple[int, bool]:
    """Return the size of a page, and whether the caller has asked for it."""
    requested = call.preferences.get("odata.maxpagesize")
    if requested is not None and requested.isdecimal() and 0 < int(requested) <= MAX_SIZE:
        return int(requested), True
    return MAX_SIZE, False


def _parse_token(token: str) -> tuple[int, int, list[Any] | None]:
    outer = _TOKEN.fullmatch(token)
    inner = _COOKIE.fullmatch(unquote(unquote(outer[2]))) if outer else None
    if outer is None or inner is None:
        raise refusals.bad_query("Malformed XML in the paging cookie.")
    try:
        after = None if inner[2] is None else json.loads(unquote(inner[2]))
    except ValueError as error:
        raise refusals.bad_query("Malformed XML in the paging cookie.") from error
    return max(int(outer[1]), 1), min(max(int(inner[1]), 1), MAX_SIZE), after


def build_next_link(call: Call, page: Page, marks: str = "") -> str:
    """Return the address of the page after this one. `marks`: what its cookie says of its rows."""
    cookie = f'<cookie page="{page.number}" size="{page.size}">{marks}</cookie>'
    encoded = quote(quote(cookie, safe=""), safe="")
    token = f'<cookie pagenumber="{page.number + 1}" pagingcookie="{encoded}" istracking="False" />'
    options = {name: value for name, value in call.options.items() if name != "$skiptoken"}
    query = urlencode({**options, "$skiptoken": token}, quote_via=quote, safe="$,")
    return f"{call.root}/{call.path}?{query}"


def mark_rows(order: Order, rows: list[Row]) -> str:
    """Return what a cookie says of the first and the last of these rows."""
    first, last = (quote(json.dumps(order.read_position(row))) for row in (rows[0], rows[-1]))
    return f'<row last="{last}" first="{first}" />'


def compile_after(order: Order, after: list[Any]) -> Sql:
    """Compile the condition that a row comes after this position.

    SQLite, like SQL Server, has null before every value.
    """
    if not isinstance(after, list) or len(after) != len(order.parts) + 1:
        raise refusals.bad_query("The paging cookie is of another query.")
    conditions: list[str] = []
    parameters: list[Any] = []
    equal: list[tuple[str, Any]] = []
    for (path, down), value in zip((*order.parts, ("id", False)), after, strict=True):
        later = _compile_later(path, value, down=down)
        if later is not None:
            same = "".join(f"{name} IS ? AND " for name, _ in equal)
            conditions.append(f"({same}{later[0]})")
            parameters += [*(known for _, known in equal), *later[1]]
        equal.append((path, value))
    return " OR ".join(conditions), parameters


def _compile_later(path: str, value: Any, *, down: bool) -> Sql | None:
    """Return the condition that the expression comes after this value; None if nothing does."""
    if value is None:
        return None if down else (f"{path} IS NOT NULL", [])
    if down:
        return f"({path} < ? OR {path} IS NULL)", [value]
    return f"{path} > ?", [value]
