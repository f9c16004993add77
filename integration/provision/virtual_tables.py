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

_COPIED = {
    "string": "String",
    "memo": "Memo",
    "integer": "Integer",
    "decimal": "Decimal",
    "boolean": "Boolean",
}

# The longest text that is no memo.
_STRING = 4000


def virtual_tables(
    known: Mapping[str, EntityMap], used: Iterable[EntityMap], prefix: str
) -> tuple[VirtualTable, ...]:
    """Of every map in use that may be virtual; `known`: where lookups may lead."""
    shown = [entity for entity in used if Route.VIRTUAL in entity.routes]
    return tuple(virtual_table(entity, prefix, known) for entity in shown)


def virtual_table(entity: EntityMap, prefix: str, known: Mapping[str, EntityMap]) -> VirtualTable:
    """Raises Misconfigured where nothing can stand for a row."""
    attributes = [
        one for one in entity.select_route(Route.VIRTUAL).attributes if one.kind is not Kind.DEFAULT
    ]
    columns = [_column(one, prefix) for one in attributes if one.kind is not Kind.LOOKUP]
    named = [one for one in columns if one.external == entity.name_column]
    if not named or named[0].type != "String":
        raise Misconfigured(f"{entity.file}: row.name_column must be a column of text")
    lookups = tuple(_lookups(attributes, prefix, known))
    led = {one.external for one in lookups}
    lost = [
        one.column
        for one in attributes
        if one.kind is Kind.LOOKUP and f"_{one.column}_value" not in led
    ]
    return VirtualTable(
        name=build_table_name(entity.table, prefix),
        set=entity.entity_set,
        entity_type=entity.table,
        key=entity.key,
        label=_words(entity.resource),
        name_column=named[0],
        columns=(*(one for one in columns if one is not named[0]), *_books(entity, prefix)),
        lookups=lookups,
        left_out=tuple(lost),
    )


def _column(one: AttributeMap, prefix: str) -> VirtualColumn:
    name, text = (
        build_column_name(one.column, prefix),
        one.virtual_column.label or _label(one.column, prefix),
    )
    length = one.virtual_column.max_length
    match one.kind:
        case Kind.CHOICE:
            return VirtualColumn(name, one.column, text, "Picklist", options=_options(one))
        case Kind.DATE | Kind.DATETIME:
            whole = one.kind is Kind.DATE
            return VirtualColumn(name, one.column, text, "DateTime", whole_day=whole)
        case Kind.CONCEPT:
            return VirtualColumn(name, one.column, text, "String", length)
    kind = _COPIED[one.virtual_column.type]
    return VirtualColumn(name, one.column, text, kind, min(length, _STRING))


def _options(one: AttributeMap) -> tuple[tuple[int, str], ...]:
    """A code may have several options, and an option several codes, of which the first names it."""
    options: dict[int, str] = {}
    for code, values in one.choices.items():
        for value in values:
            options.setdefault(value, _words(code))
    if isinstance(one.default, int):
        options.setdefault(one.default, str(one.default))
    return tuple(sorted(options.items()))


def _lookups(
    attributes: Iterable[AttributeMap], prefix: str, known: Mapping[str, EntityMap]
) -> Iterator[VirtualLookup]:
    for one in attributes:
        target = known.get(one.virtual_column.target or "") if one.kind is Kind.LOOKUP else None
        if target is not None and target.routes[0] is Route.DATAVERSE:
            name = build_column_name(one.column, prefix)
            text = one.virtual_column.label or _label(one.column, prefix)
            yield VirtualLookup(name, f"_{one.column}_value", text, target.table)


def _books(entity: EntityMap, prefix: str) -> Iterator[VirtualColumn]:
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


def _label(column: str, prefix: str) -> str:
    return _words(build_column_name(column, prefix).removeprefix(f"{prefix}_"))


def _words(text: str) -> str:
    """`AllergyIntolerance`, `entered-in-error`: words with a capital at the beginning."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).replace("-", " ").replace("_", " ").strip()
    return (spaced[:1].upper() + spaced[1:]) or text
