"""Parse the row address in a URL or an `@odata.bind` value.

https://learn.microsoft.com/power-apps/developer/data-platform/use-alternate-key-reference-record
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from local.dataverse import refusals
from local.dataverse.rows import Store
from local.dataverse.tables import Catalog, Column, Key, Table
from local.dataverse.wire import Refusal

# Key values with one of these characters cannot be used in a URL, encoded or not:
# https://learn.microsoft.com/power-apps/developer/data-platform/define-alternate-keys-entity
UNUSABLE_IN_KEY = frozenset("/<>*%&:\\?+")

PAIR = re.compile(r"\s*(\w+)\s*=\s*('(?:[^']|'')*'|[^',]+)\s*(?:,|$)")
GUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True)
class Segment:
    """The parts of `contacts(msemr_azurefhirid='x')/rest`."""

    name: str
    key: str | None
    rest: str


@dataclass(frozen=True, slots=True)
class Address:
    """The primary key or alternate key of a row, which may not exist."""

    table: Table
    id: str | None
    key: Key | None
    key_values: dict[str, Any]

    def find(self, store: Store) -> str | None:
        if self.key is None:
            return self.id if self.id and store.get(self.table, self.id) else None
        return store.find_id(self.table, self.key, self.key_values)

    def build_not_found(self) -> Refusal:
        if self.key is None:
            return refusals.no_row(self.table.name, str(self.id))
        return refusals.no_row_with_key(self.table.name)


def parse_segment(resource: str) -> Segment:
    """Parse the first segment of a path. A bracket inside a quoted value does not close the key."""
    name = re.match(r"[^(/]*", resource)
    end = name.end() if name else 0
    if end == len(resource) or resource[end] == "/":
        return Segment(resource[:end], None, resource[end + 1 :])
    quoted = False
    for position in range(end + 1, len(resource)):
        character = resource[position]
        if character == "'":
            quoted = not quoted
        elif character == ")" and not quoted:
            rest = resource[position + 1 :]
            if rest and not rest.startswith("/"):
                break
            return Segment(resource[:end], resource[end + 1 : position], rest[1:])
    raise refusals.bad_query("Bad Request - Error in query syntax.")


def find_table(catalog: Catalog, entity_set: str) -> Table:
    table = catalog.by_set.get(entity_set)
    if table is None:
        raise refusals.no_resource(entity_set)
    return table


def parse_address(table: Table, text: str) -> Address:
    """Parse the key in brackets: a bare GUID, the primary key by name, or an alternate key."""
    if is_guid(text.strip()):
        return Address(table, normalize_guid(text.strip()), None, {})
    pairs = _parse_pairs(table, text)
    if set(pairs) == {table.primary_id} and is_guid(pairs[table.primary_id]):
        return Address(table, normalize_guid(pairs[table.primary_id]), None, {})
    for key in table.active_keys:
        if set(pairs) == set(table.key_properties(key)):
            values = {
                name: _parse_key_value(table, name, literal) for name, literal in pairs.items()
            }
            return Address(table, None, key, values)
    raise refusals.bad_key(table.name)


def is_guid(text: str) -> bool:
    return GUID.fullmatch(text) is not None


def normalize_guid(text: str) -> str:
    return str(UUID(text))


def _parse_pairs(table: Table, text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = PAIR.match(text, position)
        if match is None or match[1] in pairs:
            raise refusals.bad_key(table.name)
        pairs[match[1]] = match[2].strip()
        position = match.end()
    return pairs


def _parse_key_value(table: Table, name: str, literal: str) -> Any:
    column: Column = table.properties[name]
    if column.edm == "Edm.String" and len(literal) > 1 and literal[0] == literal[-1] == "'":
        value = literal[1:-1].replace("''", "'")
        if UNUSABLE_IN_KEY.intersection(value):
            raise refusals.bad_query("Bad Request - Error in query syntax.")
        return value
    if column.edm == "Edm.Guid" and is_guid(literal):
        return normalize_guid(literal)
    if column.edm in ("Edm.Int32", "Edm.Decimal") and re.fullmatch(r"-?\d+(\.\d+)?", literal):
        return float(literal) if "." in literal else int(literal)
    raise refusals.bad_key(table.name)
