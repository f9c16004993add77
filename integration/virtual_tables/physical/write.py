"""Create, change and delete rows of Dataverse's own table, for a client of the feed.

FHIR learns nothing of it: on this route the row in Dataverse is what people work with. The next
version of its resource that reaches FHIR is mirrored over it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, time
from typing import Any
from uuid import UUID

from integration.core import decimal_json
from integration.core.activity_recorder import add_activity_context
from integration.core.errors import Issue, Rejected, Unavailable
from integration.core.model import Request, Response
from integration.dataverse.error_codes import Meaning, describe_failure, read_meaning
from integration.dataverse.requests import API, HEADERS
from integration.mapping.values import format_day
from integration.odata.bodies import EntityChanges, build_read_only_error
from integration.odata.headers import Preconditions
from integration.odata.model import Property, Type, Value
from integration.virtual_tables.physical.read import (
    FoundRow,
    RowAccess,
    build_not_found_error,
    read_row,
)
from integration.virtual_tables.physical.rows import get_name, get_version
from integration.virtual_tables.physical.table import PhysicalColumn, PhysicalTable

_Columns = dict[str, Any]


async def create_row(
    access: RowAccess, new_key: Callable[[], UUID], values: Mapping[str, Value]
) -> FoundRow:
    """Create a row, and return it. Its key is among the values, or it gets a new one.

    Raises Rejected: 409 where the key is in use, 422.
    """
    key_property = access.table.type.key
    requested = values.get(key_property)
    key = requested if isinstance(requested, UUID) else new_key()
    given = {name: value for name, value in values.items() if name != key_property}
    columns = {access.table.key: str(key), **convert_values(access.table, given)}
    body = decimal_json.encode(columns)
    request = Request("POST", f"{API}/{access.table.entity_set}", body, HEADERS)
    response = await _send(access, request, "create")
    if response.status >= 400:
        raise _build_write_error(response, is_create=True)
    return await _read_written(access, key)


async def change_row(
    access: RowAccess, key: UUID, body: EntityChanges, condition: Preconditions
) -> FoundRow:
    """Change the properties of `body`, and return the row.

    Raises Rejected: 404, 409, 412, 422.
    """
    current = await _read_current(access, key, condition)
    for name, value in body.read_only.items():
        if current.values[name] != value:
            raise build_read_only_error(name)
    _check_fixed(access.table, body.values, current)
    changed = {name: value for name, value in body.values.items() if current.values[name] != value}
    columns = convert_values(access.table, changed)
    if not columns:
        return current
    # Without the header Dataverse creates a row that is not there.
    match = str(current.row["@odata.etag"]) if condition.names_version else "*"
    path = f"{API}/{access.table.entity_set}({key})"
    request = Request("PATCH", path, decimal_json.encode(columns), {**HEADERS, "if-match": match})
    response = await _send(access, request, "change")
    if response.status >= 400:
        raise _build_write_error(response)
    return await _read_written(access, key)


async def delete_row(access: RowAccess, key: UUID, condition: Preconditions) -> str:
    """Delete a row. Return what it showed, by its name in the audit log. Raises Rejected: 404,
    412."""
    current = await _read_current(access, key, condition)
    match = {"if-match": str(current.row["@odata.etag"])} if condition.names_version else {}
    path = f"{API}/{access.table.entity_set}({key})"
    request = Request("DELETE", path, headers={**HEADERS, **match})
    response = await _send(access, request, "delete")
    if response.status >= 400:
        raise _build_write_error(response)
    return get_name(current.row, access.table)


async def _send(access: RowAccess, request: Request, action: str) -> Response:
    with add_activity_context(action=action, table=access.table.table):
        return await access.dataverse.send(request, access.run_id)


async def _read_current(access: RowAccess, key: UUID, condition: Preconditions) -> FoundRow:
    current = await read_row(access, key)
    if current is None:
        raise build_not_found_error()
    if not condition.allow(get_version(current.row)):
        raise _build_conflict_error()
    return current


async def _read_written(access: RowAccess, key: UUID) -> FoundRow:
    found = await read_row(access, key)
    if found is None:
        why = "a row that was written is not there: a plug-in may have deactivated it"
        raise Unavailable(access.dataverse.upstream.name, why)
    return found


def _check_fixed(table: PhysicalTable, values: Mapping[str, Value], current: FoundRow) -> None:
    """Raise Rejected for another value of what can be set only at first."""
    changed = [
        name
        for name, value in values.items()
        if (attribute := table.entity_type.attributes.get(name)) is not None
        and attribute.virtual_column.create_only
        and current.values[name] != value
    ]
    if changed:
        text = f"{', '.join(changed)}: can be set only when the row is created"
        raise Rejected(Issue("business-rule", text), status=422)


# -- values ----------------------------------------------------------------------------------------


def convert_values(table: PhysicalTable, values: Mapping[str, Value]) -> _Columns:
    """Return the columns of a request by name. Raises Rejected, 422, for what the table cannot
    hold."""
    found: _Columns = {}
    for name, value in values.items():
        columns = table.columns[name]
        if len(columns) != 1 or columns[0].lookup is not None or columns[0].is_part:
            raise _build_no_column_error(table, name)
        for column in (columns[0].column, *columns[0].copies):
            written = replace(columns[0], column=column)
            found |= _convert_value(table, table.type.by_name[name], written, value)
    return found


def _convert_value(
    table: PhysicalTable, property_: Property, column: PhysicalColumn, value: Value
) -> _Columns:
    name = column.column.name
    if property_.type is Type.GUID:
        target = table.lookup_tables.get(property_.name, "")
        navigation = column.column.targets.get(target)
        if navigation is None:
            raise _build_no_column_error(table, property_.name)
        bound = None if value is None else f"/{table.lookup_sets[property_.name]}({value})"
        return {f"{navigation}@odata.bind": bound}
    if isinstance(value, datetime):
        if column.is_day:
            if value.timetz().replace(tzinfo=None) != time.min:
                text = f"{property_.name} is a day: it takes a midnight in UTC"
                raise Rejected(Issue("value", text, property_.name), status=422)
            return {name: format_day(value.date(), column.column)}
        return {name: value.strftime("%Y-%m-%dT%H:%M:%SZ")}
    if column.column.type == "Boolean" and value is not None:
        return {name: bool(value)}
    return {name: value}


# -- errors ----------------------------------------------------------------------------------------


def _build_no_column_error(table: PhysicalTable, name: str) -> Rejected:
    text = (
        f"{name} cannot be written while the data route of {table.entity_type.resource} is "
        f"dataverse: the table {table.table} has no column for it"
    )
    return Rejected(Issue("business-rule", text, name), status=422)


def _build_conflict_error() -> Rejected:
    return Rejected(Issue("conflict", "somebody has changed the row since"), status=412)


def _build_write_error(response: Response, *, is_create: bool = False) -> Rejected:
    meaning = read_meaning(response)
    if meaning is Meaning.GONE and not is_create:
        return build_not_found_error()
    if meaning is Meaning.CHANGED and not is_create:
        return _build_conflict_error()
    if meaning in (Meaning.CHANGED, Meaning.KEY_TAKEN, Meaning.DUPLICATE):
        return Rejected(Issue("duplicate", f"Dataverse {describe_failure(response)}"), status=409)
    text = f"Dataverse {describe_failure(response)}: it does not take these values"
    return Rejected(Issue("business-rule", text), status=422)
