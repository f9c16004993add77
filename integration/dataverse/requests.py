"""Requests to the Dataverse Web API, built and not sent. Pure.

https://learn.microsoft.com/power-apps/developer/data-platform/webapi/overview
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from integration import exact_json
from integration.model import Request

API = "api/data/v9.2"

_HEADERS = {
    "accept": "application/json",
    "content-type": "application/json; charset=utf-8",
    "odata-version": "4.0",
    "odata-maxversion": "4.0",
}


def find(
    entity_set: str, key: str, row: str, column: str, value: str, columns: Iterable[str]
) -> Request:
    """The rows whose key is `row` or whose `column` is `value`: at most one should be there."""
    query = {
        "$select": ",".join(columns),
        "$filter": f"{key} eq {row} or {column} eq {literal(value)}",
        "$top": "3",
    }
    text = "&".join(f"{name}={quote(part, safe=',')}" for name, part in query.items())
    return Request("GET", f"{API}/{entity_set}?{text}", headers=_HEADERS)


def create(entity_set: str, row: str, columns: Mapping[str, Any]) -> Request:
    """A row with a primary key of ours; 412 when there is one already.

    https://learn.microsoft.com/power-apps/developer/data-platform/use-upsert-insert-update-record
    """
    headers = {**_HEADERS, "if-none-match": "*"}
    return Request("PATCH", _row(entity_set, row), exact_json.encode(columns), headers)


def update(entity_set: str, row: str, columns: Mapping[str, Any], etag: str) -> Request:
    """The row, unless somebody changed it since `etag`: then 412."""
    headers = {**_HEADERS, "if-match": etag}
    return Request("PATCH", _row(entity_set, row), exact_json.encode(columns), headers)


def columns_of(table: str, cast: str) -> Request:
    """The columns of a table of one kind, with what limits their values."""
    details = {
        "StringAttributeMetadata": "?$select=LogicalName,AttributeType,MaxLength",
        "MemoAttributeMetadata": "?$select=LogicalName,AttributeType,MaxLength",
        "PicklistAttributeMetadata": _OPTIONS,
        "StateAttributeMetadata": _OPTIONS,
    }
    path = f"{API}/EntityDefinitions(LogicalName='{table}')/Attributes"
    if not cast:
        return Request("GET", f"{path}?$select=LogicalName,AttributeType", headers=_HEADERS)
    return Request("GET", f"{path}/Microsoft.Dynamics.CRM.{cast}{details[cast]}", headers=_HEADERS)


CASTS = (
    "",
    "StringAttributeMetadata",
    "MemoAttributeMetadata",
    "PicklistAttributeMetadata",
    "StateAttributeMetadata",
)

_OPTIONS = "?$select=LogicalName,AttributeType&$expand=OptionSet($select=Options)"


def who_am_i() -> Request:
    """The cheapest request that proves address, token and application user."""
    return Request("GET", f"{API}/WhoAmI", headers=_HEADERS)


def literal(value: str) -> str:
    """https://docs.oasis-open.org/odata/odata/v4.01/odata-v4.01-part2-url-conventions.html#sec_PrimitiveLiterals"""
    doubled = value.replace("'", "''")
    return f"'{doubled}'"


def _row(entity_set: str, row: str) -> str:
    return f"{API}/{entity_set}({row})"
