"""Maps whose columns can be written, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from integration.core.model import Column
from integration.mapping.model import AttributeMap, EntityMap, Kind, LongId, VirtualColumn

_TYPES = {
    Kind.CHOICE: "Picklist",
    Kind.DATE: "DateTime",
    Kind.DATETIME: "DateTime",
    Kind.LOOKUP: "Lookup",
    Kind.CONCEPT: "Lookup",
}


def column(
    name: str,
    path: str | None,
    kind: Kind = Kind.COPY,
    *,
    type_: str = "string",
    max_length: int = 100,
    target: str | None = None,
    write: bool = True,
    **more: Any,
) -> AttributeMap:
    shown = VirtualColumn(type_, max_length, target=target, writable=write)
    return AttributeMap(name, kind, path, virtual_column=shown, **more)


def entity(
    resource: str,
    *attributes: AttributeMap,
    variables: Mapping[str, str] | None = None,
    create: Mapping[str, Any] | None = None,
) -> EntityMap:
    return EntityMap(
        resource=resource,
        table="table",
        entity_set="tables",
        key="key",
        id_column="fhirid",
        version_column="version",
        updated_column="updated",
        kind_column=None,
        long_id=LongId.REFUSE,
        variables=variables or {},
        attributes=attributes,
        expands=(),
        enabled=True,
        file="map.toml",
        create=create or {},
    )


def columns(map_: EntityMap) -> dict[str, Column]:
    return {one.column: _column(one) for one in map_.attributes}


def _column(one: AttributeMap) -> Column:
    if one.kind is not Kind.COPY:
        return Column(one.column, _TYPES.get(one.kind, "String"))
    is_text = one.virtual_column.type in ("string", "memo")
    return Column(
        one.column,
        one.virtual_column.type.capitalize(),
        max_length=one.virtual_column.max_length if is_text else None,
        precision=2 if one.virtual_column.type == "decimal" else None,
    )
