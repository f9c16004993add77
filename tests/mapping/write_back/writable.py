"""Maps whose columns can be written, for tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from integration.core.model import Column
from integration.mapping.model import AttributeMap, EntityMap, Kind, LongId, VirtualColumnOptions

_TYPES = {
    Kind.CHOICE: "Picklist",
    Kind.DATE: "DateTime",
    Kind.DATETIME: "DateTime",
    Kind.LOOKUP: "Lookup",
    Kind.CONCEPT: "Lookup",
}


def build_attribute(
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
    shown = VirtualColumnOptions(type=type_, max_length=max_length, target=target, writable=write)
    return AttributeMap(column=name, kind=kind, path=path, virtual_column=shown, **more)


def build_entity(
    resource: str,
    attributes: Iterable[AttributeMap],
    *,
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
        attributes=tuple(attributes),
        expands=(),
        enabled=True,
        file="map.toml",
        create=create or {},
    )


def build_columns(map_: EntityMap) -> dict[str, Column]:
    return {attribute.column: _build_column(attribute) for attribute in map_.attributes}


def _build_column(attribute: AttributeMap) -> Column:
    if attribute.kind is not Kind.COPY:
        return Column(attribute.column, _TYPES.get(attribute.kind, "String"))
    is_text = attribute.virtual_column.type in ("string", "memo")
    return Column(
        attribute.column,
        attribute.virtual_column.type.capitalize(),
        max_length=attribute.virtual_column.max_length if is_text else None,
        precision=2 if attribute.virtual_column.type == "decimal" else None,
    )
