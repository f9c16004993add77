"""Requests to the Dataverse Web API. Pure: `client` sends them.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/overview
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from integration.core import decimal_json
from integration.core.model import Request

API = "api/data/v9.2"

HEADERS = {
    "accept": "application/json",
    "content-type": "application/json; charset=utf-8",
    "odata-version": "4.0",
    "odata-maxversion": "4.0",
}

# The name of what a lookup points at, beside its key.
FORMATTED = "OData.Community.Display.V1.FormattedValue"

# A lookup may point at one of several tables: only its annotation says which.
_TARGET = "Microsoft.Dynamics.CRM.lookuplogicalname"
_ANNOTATED = {"prefer": f'odata.include-annotations="{_TARGET}"'}
_NAMED = {"prefer": f'odata.include-annotations="{_TARGET},{FORMATTED}"'}


@dataclass(frozen=True, slots=True)
class Change:
    """A row to be written or deleted. `etag`: only if nobody has changed the row since. `only_new`:
    only if there is no such row. With neither, the row is updated, or created."""

    method: str  # PATCH or DELETE
    entity_set: str
    key: str
    columns: Mapping[str, Any] | None = None
    etag: str | None = None
    only_new: bool = False


def build_change(change: Change) -> Request:
    """Return the request of a change. Dataverse answers 412 when its condition does not hold, and
    404 when the row does not exist.

    https://learn.microsoft.com/power-apps/developer/data-platform/use-upsert-insert-update-record
    """
    condition = {"if-none-match": "*"} if change.only_new else {}
    if change.etag is not None:
        condition = {"if-match": change.etag}
    body = None if change.columns is None else decimal_json.encode(change.columns)
    path = f"{API}/{change.entity_set}({change.key})"
    return Request(change.method, path, body, {**HEADERS, **condition})


def build_action(name: str, parameters: Mapping[str, Any]) -> Request:
    """Return the call of an action.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/use-web-api-actions
    """
    return Request("POST", f"{API}/{name}", decimal_json.encode(parameters), HEADERS)


def build_row_query(
    entity_set: str,
    columns: Iterable[str],
    condition: str,
    top: int | None = None,
    order: Iterable[str] = (),
    *,
    is_named: bool = False,
) -> Request:
    """Return a query for the rows that meet `condition`, an OData filter, in the order of these
    columns. Lookups are annotated with the table that they point at, and with the name of its row
    if that is wanted: then every value comes with a text, too."""
    query = {"$select": ",".join(columns), "$filter": condition}
    if listed := ",".join(order):
        query["$orderby"] = listed
    if top is not None:
        query["$top"] = str(top)
    text = "&".join(f"{name}={quote(part, safe=',')}" for name, part in query.items())
    annotated = _NAMED if is_named else _ANNOTATED
    return Request("GET", f"{API}/{entity_set}?{text}", headers={**HEADERS, **annotated})


def build_count_query(entity_set: str, key: str, condition: str) -> Request:
    """Return a query for how many rows meet `condition`, with one of them. Dataverse counts up to
    5,000: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query/count-rows"""
    query = {"$select": key, "$filter": condition, "$count": "true"}
    text = "&".join(f"{name}={quote(part, safe=',')}" for name, part in query.items())
    headers = {**HEADERS, "prefer": "odata.maxpagesize=1"}
    return Request("GET", f"{API}/{entity_set}?{text}", headers=headers)


def build_columns_query(table: str, part: str) -> Request:
    """Return a query for the columns of a table. `part`: a key of CASTS.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query-metadata-web-api
    """
    path = f"{API}/EntityDefinitions(LogicalName='{table}')/{part}?{CASTS[part]}"
    return Request("GET", path, headers=HEADERS)


_OPTIONS = (
    "$select=LogicalName,AttributeType"
    "&$expand=OptionSet($select=Options),GlobalOptionSet($select=Options)"
)
_RANGE = "$select=LogicalName,AttributeType,MinValue,MaxValue"


def _build_cast(kind: str) -> str:
    return f"Attributes/Microsoft.Dynamics.CRM.{kind}AttributeMetadata"


# The queries that together describe the columns of a table, the general one first.
CASTS = {
    "Attributes": (
        "$select=LogicalName,AttributeType,RequiredLevel,IsValidForCreate,IsValidForUpdate,"
        "IsSecured"
    ),
    _build_cast("String"): "$select=LogicalName,AttributeType,MaxLength,Format",
    _build_cast("Memo"): "$select=LogicalName,AttributeType,MaxLength",
    _build_cast("Picklist"): _OPTIONS,
    _build_cast("State"): _OPTIONS,
    _build_cast("Status"): _OPTIONS,
    _build_cast("DateTime"): "$select=LogicalName,AttributeType,Format,DateTimeBehavior",
    _build_cast("Integer"): _RANGE,
    _build_cast("BigInt"): _RANGE,
    _build_cast("Decimal"): f"{_RANGE},Precision",
    _build_cast("Double"): f"{_RANGE},Precision",
    _build_cast("Money"): f"{_RANGE},Precision",
    "ManyToOneRelationships": (
        "$select=ReferencingAttribute,ReferencedEntity,ReferencingEntityNavigationPropertyName"
    ),
}


def build_who_am_i() -> Request:
    """Return the cheapest request that proves address, token and application user."""
    return Request("GET", f"{API}/WhoAmI", headers=HEADERS)


def quote_literal(value: str) -> str:
    """Return a text as an OData literal.

    https://docs.oasis-open.org/odata/odata/v4.01/odata-v4.01-part2-url-conventions.html#sec_PrimitiveLiterals
    """
    doubled = value.replace("'", "''")
    return f"'{doubled}'"
