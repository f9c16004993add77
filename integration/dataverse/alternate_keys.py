"""The alternate keys of a table, and a query for the row that has their values. Pure.

https://learn.microsoft.com/power-apps/developer/data-platform/define-alternate-keys-entity
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from integration.core import decimal_json
from integration.core.model import Columns, Request, Response, Row
from integration.dataverse.requests import API, HEADERS, Change, quote_literal

_LOOKUPS = frozenset({"Lookup", "Customer", "Owner"})
_NUMBERS = frozenset({"Integer", "BigInt", "Decimal", "Double", "Money", "Picklist"})
_BIND = "@odata.bind"


@dataclass(frozen=True, slots=True)
class AlternateKey:
    """An alternate key that Dataverse enforces: its logical name, and those of its columns."""

    name: str
    columns: tuple[str, ...]


def build_keys_query(table: str) -> Request:
    """Return a query for the alternate keys of a table."""
    selected = "$select=LogicalName,KeyAttributes,EntityKeyIndexStatus"
    path = f"{API}/EntityDefinitions(LogicalName='{table}')/Keys?{selected}"
    return Request("GET", path, headers=HEADERS)


def parse_keys(response: Response) -> list[AlternateKey]:
    """Return the alternate keys that are enforced. One whose index is being built, or could not
    be, is not."""
    found = (decimal_json.decode_object(response.body) or {}).get("value", [])
    return [
        AlternateKey(str(key["LogicalName"]), tuple(key["KeyAttributes"]))
        for key in found
        if key.get("EntityKeyIndexStatus") == "Active"
    ]


def name_property(column: str, columns: Columns) -> str:
    """Return the name by which a row has a column: a lookup's has its key."""
    is_lookup = column in columns and columns[column].type in _LOOKUPS
    return f"_{column}_value" if is_lookup else column


def merge_values(columns: Columns, row: Row | None, change: Change) -> dict[str, Any]:
    """Return the values that a row would have after a change, by the names that rows have."""
    values = dict(row or {})
    for name, value in (change.columns or {}).items():
        if name.endswith(_BIND):
            # A navigation property: its column is the one with this property among its targets.
            navigation = name.removesuffix(_BIND)
            for column in columns.values():
                if navigation in column.targets.values():
                    key = None if value is None else str(value).rpartition("(")[2].rstrip(")")
                    values[name_property(column.name, columns)] = key
        else:
            values[name] = value
    return values


def build_condition(key: AlternateKey, columns: Columns, values: Mapping[str, Any]) -> str | None:
    """Return the OData filter of the rows that have these values in the columns of a key. None: it
    has no value in one of them, so the key does not hold for it, or the value cannot be told."""
    conditions = []
    for column in key.columns:
        name = name_property(column, columns)
        literal = _write_literal(
            columns[column].type if column in columns else "", values.get(name)
        )
        if literal is None:
            return None
        conditions.append(f"{name} eq {literal}")
    return " and ".join(conditions)


def _write_literal(type_: str, value: Any) -> str | None:
    """Write a value as its column has it. `type_`: "": the value alone tells."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float | Decimal):
        return str(value) if type_ in ("", *_NUMBERS) else None
    if type_ in _LOOKUPS or type_ == "DateTime":
        return str(value)
    return quote_literal(value) if isinstance(value, str) else None
