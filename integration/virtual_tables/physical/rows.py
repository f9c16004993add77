"""A row of the Web API as the values of an entity. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from integration.odata.model import EntityValues, Property, Type, Value
from integration.virtual_tables.physical.table import PhysicalColumn, PhysicalTable

# The table to which a lookup leads:
# https://learn.microsoft.com/power-apps/developer/data-platform/webapi/query-data-web-api#lookup-properties
_TARGET = "@Microsoft.Dynamics.CRM.lookuplogicalname"

# A day that somebody has entered is midnight where that person is: between UTC-10 and UTC+13, that
# is from 11:00 in UTC of the day before to 10:00 of that day. One that the mirror has written is
# 10:30 in UTC. So many hours later, all of them are on that day in UTC.
_DAY_OFFSET = timedelta(hours=13)

Row = Mapping[str, Any]


def parse_row(row: Row, table: PhysicalTable) -> EntityValues:
    """Return the values of the entity that a row shows. A column that was not selected is null."""
    return {
        property_.name: _parse_property(row, property_, table)
        for property_ in table.type.properties
    }


def get_version(row: Row) -> str:
    """Return the version of a row, of its ETag `W/"123"`."""
    etag = row.get("@odata.etag")
    return etag.removeprefix("W/").strip('"') if isinstance(etag, str) else ""


def get_name(row: Row, table: PhysicalTable) -> str:
    """Name what a row shows in the audit log: the resource, else the row."""
    return f"{table.entity_type.resource}/{row.get(table.id_column) or row[table.key]}"


def _parse_property(row: Row, property_: Property, table: PhysicalTable) -> Value:
    for column in table.columns[property_.name]:
        value = _get_value(row, property_, column, table)
        if value is not None:
            return _convert(value, property_, column)
    return None


def _get_value(row: Row, property_: Property, column: PhysicalColumn, table: PhysicalTable) -> Any:
    if column.navigation is not None:
        related = row.get(column.navigation)
        return related.get(column.name) if isinstance(related, Mapping) else None
    if property_.type is Type.GUID and len(column.column.targets) > 1:
        table_ = row.get(f"{column.name}{_TARGET}")
        if table_ != table.lookup_tables.get(property_.name, table_):
            return None
    return row.get(column.name)


def _convert(value: Any, property_: Property, column: PhysicalColumn) -> Value:
    match property_.type:
        case Type.STRING:
            return str(value)
        case Type.INT32 | Type.INT64:
            return int(value)
        case Type.DECIMAL:
            return value if isinstance(value, Decimal) else Decimal(str(value))
        case Type.BOOLEAN:
            return bool(value)
        case Type.GUID:
            return UUID(value)
        case Type.DATE_TIME_OFFSET:
            return _parse_day(value, column) if column.is_day else _parse_instant(value)


def _parse_instant(value: str) -> datetime:
    parsed = datetime.fromisoformat(value)
    return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _parse_day(value: str, column: PhysicalColumn) -> datetime:
    """Return the midnight in UTC of a day."""
    instant = _parse_instant(value)
    if column.column.behavior == "UserLocal":
        instant += _DAY_OFFSET
    return instant.replace(hour=0, minute=0, second=0, microsecond=0)
