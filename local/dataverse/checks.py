"""Check a payload against the table's columns, as the Web API does, and return stored values."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal
from math import isfinite
from typing import Any

from local.dataverse import refusals
from local.dataverse.addresses import is_guid, normalize_guid
from local.dataverse.rows import Values
from local.dataverse.tables import CHOICES, Column, Table
from local.dataverse.wire import Refusal

Resolve = Callable[[str], tuple[str, str]]  # a bind value -> (table name, row id)

INT32 = (-(2**31), 2**31 - 1)
INT64 = (-(2**63), 2**63 - 1)
EARLIEST = date(1753, 1, 1)  # SQL Server's datetime begins here
TARGET = "@Microsoft.Dynamics.CRM.lookuplogicalname"

DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})")


def parse_values(table: Table, payload: Values, resolve: Resolve) -> Values:
    """Parse the payload to values by property name. Raises Refusal if any part is wrong."""
    values: Values = {}
    for name, given in payload.items():
        if name.endswith("@odata.bind"):
            values.update(_parse_bind(table, name.removesuffix("@odata.bind"), given, resolve))
        elif "@" in name:
            continue  # other annotations, @odata.type among them, set nothing
        elif name in table.columns and not table.columns[name].is_lookup:
            values.update(_parse_column(table, table.columns[name], given))
        elif name in table.navigations:
            values.update(_parse_navigation(table, name, given))
        else:
            raise _refuse_unknown(table, name)
    return values


def _parse_column(table: Table, column: Column, given: Any) -> Values:
    if column.name not in table.properties:
        raise _refuse_undeclared(table, column.name)
    if column.read_only:
        # Columns that are not valid for create or update are ignored, not refused.
        return {}
    if given is None and column.type in ("State", "Status"):
        raise refusals.cannot_be_null(column.name)
    return {column.name: None if given is None else _check_value(table, column, given)}


def _parse_bind(table: Table, navigation: str, given: Any, resolve: Resolve) -> Values:
    """Parse `<navigation property>@odata.bind`: case sensitive; null disassociates.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/associate-disassociate-entities-using-web-api
    """
    if navigation not in table.navigations:
        raise refusals.bad_payload(
            table.entity_set,
            f"An undeclared property '{navigation}' which only has property annotations in the "
            "payload but no property value was found in the payload. In OData, only declared "
            "navigation properties and declared named streams can be represented as properties "
            "without values.",
        )
    column, target = table.navigations[navigation]
    if column.read_only:
        return {}
    if given is None:
        return _build_lookup(column, None, None)
    if not isinstance(given, str):
        raise refusals.bad_payload(
            table.entity_set, f"The annotation 'odata.bind' of '{navigation}' must be a URL."
        )
    found, row_id = resolve(given)
    if found != target:
        raise refusals.bad_payload(
            table.entity_set,
            f"The URL of '{navigation}' must name a row of type 'Microsoft.Dynamics.CRM.{target}'.",
        )
    return _build_lookup(column, target, row_id)


def _parse_navigation(table: Table, navigation: str, given: Any) -> Values:
    """Parse a navigation property without bind: null disassociates, a deep insert is refused."""
    if given is None:
        column, _ = table.navigations[navigation]
        return {} if column.read_only else _build_lookup(column, None, None)
    if isinstance(given, dict):
        raise refusals.not_offered("creating related rows in the same payload")
    raise refusals.lookup_as_column()


def _build_lookup(column: Column, target: str | None, row_id: str | None) -> Values:
    return {column.property_name: row_id, column.property_name + TARGET: target}


def _refuse_unknown(table: Table, name: str) -> Refusal:
    if name in table.properties or name in table.columns:
        return refusals.lookup_as_column()
    return _refuse_undeclared(table, name)


def _refuse_undeclared(table: Table, name: str) -> Refusal:
    return refusals.bad_payload(
        table.entity_set,
        f"The property '{name}' does not exist on type 'Microsoft.Dynamics.CRM.{table.name}'. "
        "Make sure to only use property names that are defined by the type.",
    )


def _check_value(table: Table, column: Column, given: Any) -> Any:
    edm = column.edm
    if edm == "Edm.String" and isinstance(given, str):
        return _check_text(table, column, given)
    if edm == "Edm.Boolean" and isinstance(given, bool):
        return given
    if edm in ("Edm.Int32", "Edm.Int64") and type(given) is int:
        return _check_integer(table, column, given)
    if edm in ("Edm.Double", "Edm.Decimal") and type(given) in (int, float) and isfinite(given):
        return _round_decimal(column, _check_range(table, column, given, whole=False))
    if edm == "Edm.Guid" and isinstance(given, str) and is_guid(given):
        return normalize_guid(given)
    if edm == "Edm.Binary" and isinstance(given, str):
        return given
    if edm == "Edm.Date" and isinstance(given, str) and DATE.fullmatch(given):
        return _check_date(table, column, given)
    if edm == "Edm.DateTimeOffset" and isinstance(given, str) and INSTANT.fullmatch(given):
        return _check_instant(table, column, given)
    raise _refuse_type(table, column, given)


def _refuse_type(table: Table, column: Column, given: Any) -> Refusal:
    return refusals.bad_payload(
        table.entity_set,
        f"Cannot convert the literal '{given}' of '{column.name}' to the expected type "
        f"'{column.edm}'.",
    )


def _check_text(table: Table, column: Column, given: str) -> str | None:
    try:
        # .NET counts UTF-16 code units, so a character outside the BMP takes two places.
        units = len(given.encode("utf-16-le")) // 2
    except UnicodeEncodeError as error:
        raise refusals.bad_payload(
            table.entity_set, f"The text of '{column.name}' is not valid Unicode."
        ) from error
    if column.max_length is not None and units > column.max_length:
        raise refusals.too_long(table.name, column.name, column.max_length)
    return given or None  # Dataverse keeps no empty text: it reads back as null


def _check_integer(table: Table, column: Column, given: int) -> int:
    low, high = INT64 if column.edm == "Edm.Int64" else INT32
    if not low <= given <= high:
        raise _refuse_type(table, column, given)
    if column.type == "Picklist":
        accepted = [option.value for option in column.options]
        if given not in accepted:
            raise refusals.outside_choice(table.name, column.name, given, accepted)
    if column.type not in CHOICES:
        _check_range(table, column, given, whole=True)
    return given


def _check_range(table: Table, column: Column, given: float, *, whole: bool) -> float:
    low, high = column.minimum, column.maximum
    if (low is not None and given < low) or (high is not None and given > high):
        raise refusals.outside_range(table.name, column.name, given, whole=whole)
    return given


def _round_decimal(column: Column, given: float) -> float:
    """Round to the column's precision, as Dataverse does silently."""
    if column.precision is None:
        return given
    place = Decimal(1).scaleb(-column.precision)
    return float(Decimal(str(given)).quantize(place, ROUND_HALF_UP))


def _check_date(table: Table, column: Column, given: str) -> str:
    try:
        day = date.fromisoformat(given)
    except ValueError as error:
        raise _refuse_type(table, column, given) from error
    if day < EARLIEST:
        raise refusals.date_too_early(given)
    return day.isoformat()


def _check_instant(table: Table, column: Column, given: str) -> str:
    try:
        instant = parse_instant(given)
    except (ValueError, OverflowError) as error:
        raise _refuse_type(table, column, given) from error
    if instant.date() < EARLIEST:
        raise refusals.date_too_early(given)
    return format_instant(instant)


def parse_instant(text: str) -> datetime:
    # Seven digits of a second are legal in OData; Python 3.11 reads six and drops the rest.
    return datetime.fromisoformat(text).astimezone(UTC)


def format_instant(instant: datetime) -> str:
    """Format an instant in whole seconds: Dataverse drops the fraction."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
