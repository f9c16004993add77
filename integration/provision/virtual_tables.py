"""The virtual table of an entity map: what the feed shows, as columns. Pure.

The provider knows no Edm.Date: days and instants are DateTimeOffset. Between two virtual tables
there are no lookups.
https://learn.microsoft.com/power-apps/maker/data-platform/virtual-entity-odata-provider-requirements
https://learn.microsoft.com/power-apps/developer/data-platform/virtual-entities/api-considerations-ve
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from integration.core.errors import Misconfigured
from integration.dataverse.virtual import build_column_name, build_table_name
from integration.mapping.model import AttributeMap, EntityMap, Kind, Route
from integration.provision.model import VirtualColumn, VirtualLookup, VirtualTable

_COLUMN_TYPES = {
    "string": "String",
    "memo": "Memo",
    "integer": "Integer",
    "decimal": "Decimal",
    "boolean": "Boolean",
}

# The longest text that is no memo.
_MAX_STRING = 4000


def build_virtual_tables(
    maps: Mapping[str, EntityMap], used: Iterable[EntityMap], prefix: str
) -> tuple[VirtualTable, ...]:
    """Of every map in use that may be virtual; `known`: where lookups may lead."""
    shown = [entity for entity in used if Route.VIRTUAL in entity.routes]
    return tuple(build_virtual_table(entity, prefix, maps) for entity in shown)


def build_virtual_table(
    entity: EntityMap, prefix: str, maps: Mapping[str, EntityMap]
) -> VirtualTable:
    """Raises Misconfigured where nothing can stand for a row."""
    attributes = [
        one for one in entity.select_route(Route.VIRTUAL).attributes if one.kind is not Kind.DEFAULT
    ]
    columns = [_build_column(one, prefix) for one in attributes if one.kind is not Kind.LOOKUP]
    named = [one for one in columns if one.external_name == entity.name_column]
    if not named or named[0].type != "String":
        raise Misconfigured(f"{entity.file}: row.name_column must be a column of text")
    lookups = tuple(_build_lookups(attributes, prefix, maps))
    led = {one.external_name for one in lookups}
    lost = [
        one.column
        for one in attributes
        if one.kind is Kind.LOOKUP and f"_{one.column}_value" not in led
    ]
    return VirtualTable(
        name=build_table_name(entity.table, prefix),
        entity_set=entity.entity_set,
        entity_type=entity.table,
        key=entity.key,
        label=_split_words(entity.resource),
        name_column=named[0],
        columns=(
            *(one for one in columns if one is not named[0]),
            *_build_version_columns(entity, prefix),
        ),
        lookups=lookups,
        dropped_lookups=tuple(lost),
    )


def _build_column(attribute: AttributeMap, prefix: str) -> VirtualColumn:
    name, text = (
        build_column_name(attribute.column, prefix),
        attribute.virtual_column.label or _make_label(attribute.column, prefix),
    )
    length = attribute.virtual_column.max_length
    match attribute.kind:
        case Kind.CHOICE:
            return VirtualColumn(
                name, attribute.column, text, "Picklist", options=_build_options(attribute)
            )
        case Kind.DATE | Kind.DATETIME:
            whole = attribute.kind is Kind.DATE
            return VirtualColumn(name, attribute.column, text, "DateTime", is_date_only=whole)
        case Kind.CONCEPT:
            return VirtualColumn(name, attribute.column, text, "String", length)
    kind = _COLUMN_TYPES[attribute.virtual_column.type]
    return VirtualColumn(name, attribute.column, text, kind, min(length, _MAX_STRING))


def _build_options(attribute: AttributeMap) -> tuple[tuple[int, str], ...]:
    """A code may have several options, and an option several codes, of which the first names it."""
    options: dict[int, str] = {}
    for code, values in attribute.choices.items():
        for value in values:
            options.setdefault(value, _split_words(code))
    if isinstance(attribute.default, int):
        options.setdefault(attribute.default, str(attribute.default))
    return tuple(sorted(options.items()))


def _build_lookups(
    attributes: Iterable[AttributeMap], prefix: str, maps: Mapping[str, EntityMap]
) -> Iterator[VirtualLookup]:
    for attribute in attributes:
        target = (
            maps.get(attribute.virtual_column.target or "")
            if attribute.kind is Kind.LOOKUP
            else None
        )
        if target is not None and target.routes[0] is Route.DATAVERSE:
            name = build_column_name(attribute.column, prefix)
            text = attribute.virtual_column.label or _make_label(attribute.column, prefix)
            yield VirtualLookup(name, f"_{attribute.column}_value", text, target.table)


def _build_version_columns(entity: EntityMap, prefix: str) -> Iterator[VirtualColumn]:
    """Which resource a row shows, and which version of it; read only in the feed."""
    if entity.id_column:
        yield VirtualColumn(
            build_column_name(entity.id_column, prefix), entity.id_column, "FHIR ID", max_length=64
        )
    if entity.version_column:
        yield VirtualColumn(
            build_column_name(entity.version_column, prefix), entity.version_column, "FHIR Version",
            max_length=64,
        )  # fmt: skip
    if entity.updated_column:
        name = build_column_name(entity.updated_column, prefix)
        yield VirtualColumn(name, entity.updated_column, "FHIR Last Updated", "DateTime")


def _make_label(column: str, prefix: str) -> str:
    return _split_words(build_column_name(column, prefix).removeprefix(f"{prefix}_"))


def _split_words(text: str) -> str:
    """`AllergyIntolerance`, `entered-in-error`: words with a capital at the beginning."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).replace("-", " ").replace("_", " ").strip()
    return (spaced[:1].upper() + spaced[1:]) or text
