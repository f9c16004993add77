"""An entity map in the feed: its entity type, and a resource as its row. Pure.

The provider knows neither days nor times alone: a day is its midnight in UTC.
https://learn.microsoft.com/power-apps/maker/data-platform/virtual-entity-odata-provider-requirements
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from integration.core.model import Column
from integration.mapping import engine
from integration.mapping.model import (
    AttributeMap,
    Concept,
    EntityMap,
    Kind,
    Lookup,
    MappedRows,
    Route,
    SearchType,
)
from integration.odata.model import EntityType, EntityValues, Property, Type, Value

# https://hl7.org/fhir/R4/datatypes.html#id
_LONGEST_ID = 64

_COLUMNS = {
    "string": "String",
    "memo": "Memo",
    "integer": "Integer",
    "decimal": "Decimal",
    "boolean": "Boolean",
}
_COPIED = {
    "string": Type.STRING,
    "memo": Type.STRING,
    "integer": Type.INT32,
    "decimal": Type.DECIMAL,
    "boolean": Type.BOOLEAN,
}
_TYPES = {
    Kind.DATE: Type.DATE_TIME_OFFSET,
    Kind.DATETIME: Type.DATE_TIME_OFFSET,
    Kind.CHOICE: Type.INT32,
    Kind.LOOKUP: Type.GUID,
    Kind.CONCEPT: Type.STRING,
}


@dataclass(frozen=True, slots=True)
class MappedEntityType:
    """A virtual table. `attributes` by the names of their properties."""

    entity: EntityMap
    type: EntityType
    columns: Mapping[str, Column]
    attributes: Mapping[str, AttributeMap] = field(repr=False)

    @property
    def resource(self) -> str:
        """The resource type."""
        return self.entity.resource

    def select(self, properties: Collection[str] | None) -> MappedEntityType:
        """The table with these properties alone, and those of every row; None: with all."""
        if properties is None:
            return self
        kept = {name: one for name, one in self.attributes.items() if name in properties}
        entity = replace(self.entity, attributes=tuple(kept.values()), unmapped_elements=())
        return replace(self, entity=entity, attributes=kept)


def build_entity_type(entity: EntityMap) -> MappedEntityType:
    """What the feed shows of an entity map: no children, no constants."""
    entity = entity.select_route(Route.VIRTUAL)
    shown = tuple(one for one in entity.attributes if one.kind is not Kind.DEFAULT)
    entity = replace(entity, attributes=shown, expands=(), unmapped_elements=(), kind_column=None)
    named = {format_property_name(one): one for one in shown}
    id_column, version_column, updated_column = entity.version_columns
    properties = (
        Property(entity.key, Type.GUID, nullable=False),
        *(_property(name, one) for name, one in named.items()),
        Property(id_column, max_length=_LONGEST_ID, case_sensitive=True),
        Property(version_column, max_length=_LONGEST_ID, case_sensitive=True),
        Property(updated_column, Type.DATE_TIME_OFFSET),
    )
    columns = {
        id_column: Column(id_column, "String", max_length=_LONGEST_ID),
        version_column: Column(version_column, "String", max_length=_LONGEST_ID),
        updated_column: Column(updated_column, "DateTime"),
        **{one.column: _column(one) for one in shown},
    }
    type_ = EntityType(entity.table, entity.entity_set, entity.key, properties)
    return MappedEntityType(entity, type_, columns, named)


def format_property_name(one: AttributeMap) -> str:
    """As Dataverse's own feed names lookups: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/web-api-properties#lookup-properties"""
    return f"_{one.column}_value" if one.kind is Kind.LOOKUP else one.column


def map_resource(it: MappedEntityType, resource: Mapping[str, Any], base: str) -> MappedRows:
    """What the map makes of a resource. Raises Unmappable for one without an id."""
    return engine.map_resource(it.entity, resource, {it.entity.table: it.columns}, base)


def list_lookups(it: MappedEntityType, found: MappedRows) -> set[str]:
    """Type/id of what its lookups point at."""
    values = (_link(one, found.values[one.column]) for one in it.attributes.values())
    return {value for value in values if value is not None}


def build_values(
    it: MappedEntityType, name: str, found: MappedRows, keys: Mapping[str, UUID]
) -> EntityValues:
    """The row that shows the resource Type/id; `keys` of it, and of what its lookups point at."""
    id_column, version_column, updated_column = it.entity.version_columns
    shown: dict[str, Value] = {
        it.entity.key: keys[name],
        id_column: name.partition("/")[2],
        version_column: found.values[version_column],
        updated_column: _moment(found.values[updated_column]),
    }
    for property_, one in it.attributes.items():
        shown[property_] = _value(one, found.values[one.column], keys)
    return shown


def _property(name: str, one: AttributeMap) -> Property:
    shown = one.virtual_column
    type_ = _COPIED[shown.type] if one.kind is Kind.COPY else _TYPES[one.kind]
    return Property(
        name,
        type_,
        max_length=shown.max_length if type_ is Type.STRING else None,
        case_sensitive=shown.search is not None and shown.search.type is SearchType.TOKEN,
        writable=shown.writable,
    )


def _column(one: AttributeMap) -> Column:
    match one.kind:
        case Kind.COPY:
            longest = (
                one.virtual_column.max_length
                if one.virtual_column.type in ("string", "memo")
                else None
            )
            return Column(one.column, _COLUMNS[one.virtual_column.type], max_length=longest)
        case Kind.CHOICE:
            return Column(one.column, "Picklist")
        case Kind.DATE | Kind.DATETIME:
            return Column(one.column, "DateTime")
    return Column(one.column, "Lookup")


def _value(one: AttributeMap, value: Any, keys: Mapping[str, UUID]) -> Value:
    match one.kind:
        case Kind.LOOKUP:
            link = _link(one, value)
            return None if link is None else keys[link]
        case Kind.DATE | Kind.DATETIME:
            return _moment(value)
        case Kind.CONCEPT:
            return value.name if isinstance(value, Concept) else None
    found: Value = value
    return found


def _link(one: AttributeMap, value: Any) -> str | None:
    """What the lookup points at, if it is of the type that the lookup is for."""
    if not isinstance(value, Lookup):
        return None
    target = one.virtual_column.target
    return value.resource if target in (None, value.resource.partition("/")[0]) else None


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
