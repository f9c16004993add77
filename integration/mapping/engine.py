"""From a FHIR resource to the columns of its row, by an entity map. Pure.

A value that does not fit its column is handled by rule and noted; it never costs the row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

from integration.errors import Unmappable
from integration.mapping.fhir_path import compiled
from integration.mapping.model import AttributeMap, EntityMap, Kind, Mapped, TooLong
from integration.model import Column

_DATE = re.compile(r"(\d{4}-\d{2}-\d{2})(T.*)?")
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_ABSENT = object()

# A namespace of our own; rows are found by it for ever, so it never changes.
_NAMESPACE = UUID("0b7a2f52-6a5c-5a0e-9d0c-2f4f2a7c6f10")


def apply(entity: EntityMap, resource: Mapping[str, Any], columns: Mapping[str, Column]) -> Mapped:
    """The row that shows `resource`: every mapped column, None where FHIR has nothing.

    Raises Unmappable when the row could not be found again, because its id does not fit.
    """
    row: dict[str, Any] = _bookkeeping(entity, resource, columns)
    resource = _without_extensions(resource)
    notes: list[str] = []
    variables: dict[str, Any] = {}
    for name, path in entity.variables.items():
        try:
            variables[name] = _found(path, resource, variables)
        except Unmappable as problem:
            notes.append(f"%{name}: {problem.why} @ {path}")
            variables[name] = []
    for attribute in entity.attributes:
        try:
            value = _value(attribute, resource, variables, notes)
            row[attribute.column] = _fitted(attribute, value, columns[attribute.column], notes)
        except Unmappable as problem:
            notes.append(f"{attribute.column}: {problem.why} @ {attribute.path}")
            row[attribute.column] = attribute.default
    return Mapped(row, tuple(notes))


def primary_key(resource: str, identifier: str) -> str:
    """The row's primary key: the FHIR id where it is a GUID, else a GUID derived from it."""
    if _GUID.fullmatch(identifier):
        return identifier.lower()
    return str(uuid5(_NAMESPACE, f"{resource}/{identifier}"))


def is_newer(entity: EntityMap, resource: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether `resource` is a later state than the one that `row` shows.

    Versions of the FHIR service are whole numbers that grow; where a server has other versions,
    the time of the last update decides.
    """
    meta = resource.get("meta", {})
    version, shown = meta.get("versionId"), row.get(entity.version_column)
    if shown is None:
        return True
    if str(version).isdigit() and str(shown).isdigit():
        return int(version) > int(shown)
    updated, last = meta.get("lastUpdated"), row.get(entity.updated_column)
    if updated is None or last is None:
        return bool(version != shown)
    # Dataverse keeps whole seconds.
    later = _instant(updated).replace(microsecond=0) - _instant(last).replace(microsecond=0)
    return later.total_seconds() > 0 or (later.total_seconds() == 0 and version != shown)


def _bookkeeping(
    entity: EntityMap, resource: Mapping[str, Any], columns: Mapping[str, Column]
) -> dict[str, Any]:
    meta = resource.get("meta", {})
    identifier = resource["id"]
    longest = columns[entity.id_column].max_length
    if longest is not None and len(identifier) > longest:
        raise Unmappable(f"the id is longer than the {longest} characters of {entity.id_column}")
    updated = meta.get("lastUpdated")
    return {
        entity.id_column: identifier,
        entity.version_column: meta.get("versionId"),
        entity.updated_column: _utc(_instant(updated)) if updated else None,
    }


def _value(
    attribute: AttributeMap,
    resource: Mapping[str, Any],
    variables: Mapping[str, Any],
    notes: list[str],
) -> Any:
    if attribute.path is None:
        return attribute.default
    found = _found(attribute.path, resource, variables)
    if not found:
        return _ABSENT
    if len(found) > 1:
        notes.append(f"{attribute.column}: more than one value, the first taken @ {attribute.path}")
    if isinstance(found[0], dict | list):
        raise Unmappable("the path ends at no primitive")
    return found[0]


def _found(path: str, resource: Mapping[str, Any], variables: Mapping[str, Any]) -> list[Any]:
    try:
        return compiled(path)(resource, variables)
    except Exception as error:
        # The evaluator raises what Python raises, and its text may quote a value.
        raise Unmappable(f"the path failed ({type(error).__name__})") from None


def _without_extensions(node: Any) -> Any:
    """The values alone: the evaluator would take `_line` for further lines, and null for text."""
    if isinstance(node, dict):
        return {k: _without_extensions(v) for k, v in node.items() if not k.startswith("_")}
    if isinstance(node, list):
        return [_without_extensions(value) for value in node if value is not None]
    return node


def _fitted(attribute: AttributeMap, value: Any, column: Column, notes: list[str]) -> Any:
    if value is _ABSENT:
        return attribute.default
    match attribute.kind:
        case Kind.DATE:
            return _day(value)
        case Kind.MOMENT:
            return _utc(_instant(value))
        case Kind.CHOICE:
            return _option(attribute, value, column)
        case _:
            return _text(attribute, value, column, notes) if _is_text(column) else value


def _is_text(column: Column) -> bool:
    return column.type in ("String", "Memo")


def _text(attribute: AttributeMap, value: Any, column: Column, notes: list[str]) -> str | None:
    text = str(value).strip()
    if not text:
        return None
    if column.max_length is None or len(text) <= column.max_length:
        return text
    kept = attribute.too_long is TooLong.CUT
    done = "cut" if kept else "left out"
    notes.append(f"{attribute.column}: longer than {column.max_length}, {done} @ {attribute.path}")
    return text[: column.max_length] if kept else None


def _option(attribute: AttributeMap, value: Any, column: Column) -> int:
    code = str(value).lower() if isinstance(value, bool) else str(value)
    for option in attribute.choices.get(code, ()):
        if column.options is None or option in column.options:
            return option
    raise Unmappable("the code has no option in this column")


def _day(value: Any) -> str:
    """A partial date (1980, 1980-05) has no form in Dataverse."""
    match = _DATE.fullmatch(str(value))
    if match is None:
        raise Unmappable("not a whole date")
    return match[1]


def _instant(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise Unmappable("not an instant") from None
    if moment.tzinfo is None:
        raise Unmappable("an instant without a time zone")
    return moment


def _utc(moment: datetime) -> str:
    try:
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError:
        raise Unmappable("an instant outside the calendar") from None
