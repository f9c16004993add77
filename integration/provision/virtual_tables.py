"""Build the virtual table of an entity map: a column for each property of the feed. Pure.

The provider does not know Edm.Date, so days and instants are DateTimeOffset. Whether Dataverse
allows lookups between two virtual tables, its pages do not agree on: they are tried.
https://learn.microsoft.com/power-apps/maker/data-platform/virtual-entity-odata-provider-requirements
https://learn.microsoft.com/power-apps/developer/data-platform/virtual-entities/api-considerations-ve
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from integration.core.errors import Misconfigured
from integration.dataverse.virtual_table_names import build_column_name, build_table_name
from integration.mapping.model import COLUMN_TYPES, AttributeMap, EntityMap, Kind, Route
from integration.mapping.patient_columns import build_patient_columns
from integration.provision.model import VirtualColumn, VirtualLookup, VirtualTable

# The longest text of a column that is no memo.
_MAX_STRING = 4000


def build_virtual_tables(
    maps: Mapping[str, EntityMap], used: Iterable[EntityMap], prefix: str
) -> tuple[VirtualTable, ...]:
    """Build the virtual table of every map in use that may have one.

    `maps`: all maps by resource type, the targets of lookups.
    """
    shown = [entity for entity in used if Route.VIRTUAL in entity.routes]
    return tuple(build_virtual_table(entity, prefix, maps) for entity in shown)


def build_virtual_table(
    entity: EntityMap, prefix: str, maps: Mapping[str, EntityMap]
) -> VirtualTable:
    """Build a virtual table. Raises Misconfigured if no column can be its primary name."""
    attributes = [
        attribute
        for attribute in entity.select_route(Route.VIRTUAL).attributes
        if attribute.kind is not Kind.DEFAULT
    ]
    attributes += build_patient_columns(entity)
    columns = [
        _build_column(attribute, prefix)
        for attribute in attributes
        if attribute.kind is not Kind.LOOKUP
    ]
    name_column = next(
        (column for column in columns if column.external_name == entity.name_column), None
    )
    if name_column is None or name_column.type != "String":
        raise Misconfigured(f"{entity.file}: row.name_column must be a column of text")
    return VirtualTable(
        name=build_table_name(entity.table, prefix),
        entity_set=entity.entity_set,
        entity_type=entity.table,
        key=entity.key,
        label=_split_words(entity.resource),
        name_column=name_column,
        columns=(
            *(column for column in columns if column is not name_column),
            *_build_version_columns(entity, prefix),
        ),
        lookups=tuple(_build_lookups(attributes, prefix, maps, Route.DATAVERSE)),
        tried_lookups=tuple(_build_lookups(attributes, prefix, maps, Route.VIRTUAL)),
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
                name=name,
                external_name=attribute.column,
                label=text,
                type="Picklist",
                options=_build_options(attribute),
            )
        case Kind.DATE | Kind.DATETIME:
            whole = attribute.kind is Kind.DATE
            return VirtualColumn(
                name=name,
                external_name=attribute.column,
                label=text,
                type="DateTime",
                is_date_only=whole,
            )
        case Kind.CONCEPT:
            return VirtualColumn(
                name=name,
                external_name=attribute.column,
                label=text,
                type="String",
                max_length=length,
            )
    kind = COLUMN_TYPES[attribute.virtual_column.type]
    return VirtualColumn(
        name=name,
        external_name=attribute.column,
        label=text,
        type=kind,
        max_length=min(length, _MAX_STRING),
    )


def _build_options(attribute: AttributeMap) -> tuple[tuple[int, str], ...]:
    """List options and labels. If several codes mean an option, the first gives its label."""
    options: dict[int, str] = {}
    for code, values in attribute.choices.items():
        for value in values:
            options.setdefault(value, _split_words(code))
    if isinstance(attribute.default, int):
        options.setdefault(attribute.default, str(attribute.default))
    return tuple(sorted(options.items()))


def _build_lookups(
    attributes: Iterable[AttributeMap], prefix: str, maps: Mapping[str, EntityMap], route: Route
) -> Iterator[VirtualLookup]:
    """Yield the lookups to the tables that are of this route by default."""
    for attribute in attributes:
        target = (
            maps.get(attribute.virtual_column.target or "")
            if attribute.kind is Kind.LOOKUP
            else None
        )
        if target is not None and target.routes[0] is route:
            name = build_column_name(attribute.column, prefix)
            text = attribute.virtual_column.label or _make_label(attribute.column, prefix)
            is_virtual = route is Route.VIRTUAL
            table = build_table_name(target.table, prefix) if is_virtual else target.table
            yield VirtualLookup(name, f"_{attribute.column}_value", text, table)


def _build_version_columns(entity: EntityMap, prefix: str) -> Iterator[VirtualColumn]:
    """Build the columns that say which resource a row shows, and which version: read-only."""
    if entity.id_column:
        yield VirtualColumn(
            name=build_column_name(entity.id_column, prefix),
            external_name=entity.id_column,
            label="FHIR ID",
            max_length=64,
        )
    if entity.version_column:
        yield VirtualColumn(
            name=build_column_name(entity.version_column, prefix),
            external_name=entity.version_column,
            label="FHIR Version",
            max_length=64,
        )
    if entity.updated_column:
        name = build_column_name(entity.updated_column, prefix)
        yield VirtualColumn(
            name=name,
            external_name=entity.updated_column,
            label="FHIR Last Updated",
            type="DateTime",
        )


def _make_label(column: str, prefix: str) -> str:
    return _split_words(build_column_name(column, prefix).removeprefix(f"{prefix}_"))


def _split_words(text: str) -> str:
    """Make a label of a name, as `Entered in error` of `entered-in-error`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).replace("-", " ").replace("_", " ").strip()
    return (spaced[:1].upper() + spaced[1:]) or text
