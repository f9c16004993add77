"""Read related rows with a row: `$expand` of single-valued navigation properties.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/join-tables
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from local.dataverse import refusals
from local.dataverse.conditions import find_property
from local.dataverse.rows import Row, Store, Values
from local.dataverse.tables import Catalog, Column, Table

# A query may have no more:
# https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/join-tables#limitations
MAX_EXPANDED = 15

_ITEM = re.compile(r"(?P<name>\w+)(?:\(\$select=(?P<columns>[\w,]+)\))?(?:,|$)")


@dataclass(frozen=True, slots=True)
class Expanded:
    """A navigation property, the lookup that it belongs to, and what is read of the other row."""

    name: str
    column: Column
    table: Table
    selected: tuple[str, ...]


def parse_expand(catalog: Catalog, table: Table, options: Mapping[str, str]) -> list[Expanded]:
    text = options.get("$expand", "")
    expanded: list[Expanded] = []
    position = 0
    while position < len(text):
        match = _ITEM.match(text, position)
        if match is None:
            raise refusals.bad_query(f"Syntax error at position {position} in '$expand'.")
        position = match.end()
        expanded.append(_find_expanded(catalog, table, match["name"], match["columns"]))
    if len(expanded) > MAX_EXPANDED:
        raise refusals.bad_query(f"A query has up to {MAX_EXPANDED} expanded properties.")
    return expanded


def _find_expanded(catalog: Catalog, table: Table, name: str, columns: str | None) -> Expanded:
    if name not in table.navigations:
        raise refusals.no_property(name, table.name)
    column, target = table.navigations[name]
    if target not in catalog.by_name:
        raise refusals.not_offered(f"expanding {name}, whose table the stand-in lacks")
    other = catalog.by_name[target]
    names = other.properties if columns is None else columns.split(",")
    selected = tuple(find_property(other, item).property_name for item in names)
    return Expanded(name, column, other, selected)


def read_expanded(store: Store, row: Row, expanded: Sequence[Expanded]) -> Values:
    """Return the related rows by navigation property; null where the lookup is empty."""
    found: Values = {}
    for item in expanded:
        key = row.values.get(item.column.property_name)
        other = None if key is None else store.get(item.table, key)
        if other is None:
            found[item.name] = None
            continue
        names = sorted({*item.selected, item.table.primary_id})
        shown = {name: other.values.get(name) for name in names}
        found[item.name] = {"@odata.etag": other.etag, **shown}
    return found
