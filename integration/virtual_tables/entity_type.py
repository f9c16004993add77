"""An entity map in the feed: its entity type, and a resource as the values of its row. Pure.

Dataverse's provider has neither dates nor times alone: a date becomes its midnight in UTC.
https://learn.microsoft.com/power-apps/maker/data-platform/virtual-entity-odata-provider-requirements
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from integration.core.model import Column
from integration.mapping import engine
from integration.mapping.model import (
    COLUMN_TYPES,
    AttributeMap,
    Concept,
    EntityMap,
    Kind,
    Lookup,
    MappedRows,
    Route,
    SearchType,
)
from integration.mapping.patient_columns import (
    build_patient_columns,
    build_patient_map,
    find_patient_lookup,
)
from integration.mapping.values import KEPT_START
from integration.odata.model import EntityType, EntityValues, Property, Type, Value

# https://hl7.org/fhir/R4/datatypes.html#id
_MAX_ID_LENGTH = 64

_COPY_TYPES = {
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
    Kind.MAP: Type.STRING,
}


@dataclass(frozen=True, slots=True)
class MappedEntityType:
    """A virtual table: the entity type, and the map that fills it. `attributes` by property.
    `patient`: the map that fills columns from the patient of a row; None: no such column is
    needed."""

    entity: EntityMap
    type: EntityType
    columns: Mapping[str, Column]
    attributes: Mapping[str, AttributeMap] = field(repr=False)
    patient: EntityMap | None = None

    @property
    def resource(self) -> str:
        """The resource type."""
        return self.entity.resource

    def select(self, properties: Collection[str] | None) -> MappedEntityType:
        """Reduce the table to these properties and those that every row has. None: keep all."""
        if properties is None:
            return self
        selected = {
            name: attribute for name, attribute in self.attributes.items() if name in properties
        }
        of_patient = {item.column for item in self.patient.attributes} if self.patient else set()
        columns = [item for item in selected.values() if item.column in of_patient]
        patient = replace(self.patient, attributes=tuple(columns)) if self.patient else None
        of_resource = [item for item in selected.values() if item.column not in of_patient]
        lookup = find_patient_lookup(self.entity)
        if columns and lookup is not None and lookup not in of_resource:
            of_resource.append(lookup)  # it leads to the patient, shown or not
        entity = replace(self.entity, attributes=tuple(of_resource), unmapped_elements=())
        return replace(
            self, entity=entity, attributes=selected, patient=patient if columns else None
        )


def build_entity_type(entity: EntityMap) -> MappedEntityType:
    """Build what the feed shows of an entity map: no child tables and no constants."""
    entity = entity.select_route(Route.VIRTUAL)
    attributes = tuple(
        attribute for attribute in entity.attributes if attribute.kind is not Kind.DEFAULT
    )
    entity = replace(
        entity, attributes=attributes, expands=(), unmapped_elements=(), kind_column=None
    )
    of_patient = build_patient_columns(entity)
    every = (*attributes, *of_patient)
    by_property = {format_property_name(attribute): attribute for attribute in every}
    id_column, version_column, updated_column = entity.version_columns
    properties = (
        Property(entity.key, Type.GUID, nullable=False),
        *(_build_property(name, attribute) for name, attribute in by_property.items()),
        Property(id_column, max_length=_MAX_ID_LENGTH, case_sensitive=True),
        Property(version_column, max_length=_MAX_ID_LENGTH, case_sensitive=True),
        Property(updated_column, Type.DATE_TIME_OFFSET),
    )
    columns = {
        id_column: Column(id_column, "String", max_length=_MAX_ID_LENGTH),
        version_column: Column(version_column, "String", max_length=_MAX_ID_LENGTH),
        updated_column: Column(updated_column, "DateTime"),
        **{attribute.column: _build_column(attribute) for attribute in every},
    }
    type_ = EntityType(entity.table, entity.entity_set, entity.key, properties)
    patient = build_patient_map(entity, of_patient) if of_patient else None
    return MappedEntityType(entity, type_, columns, by_property, patient)


def format_property_name(attribute: AttributeMap) -> str:
    """Name the property as Dataverse's own feed does: https://learn.microsoft.com/power-apps/developer/data-platform/webapi/web-api-properties#lookup-properties"""
    return f"_{attribute.column}_value" if attribute.kind is Kind.LOOKUP else attribute.column


def map_resource(
    entity_type: MappedEntityType, resource: Mapping[str, Any], base: str, today: date
) -> MappedRows:
    """Map a resource to columns, as it is on a day. Raises Unmappable where it has no id."""
    entity = entity_type.entity
    tables = {entity.table: entity_type.columns}
    return engine.map_resource(entity, resource, tables, base, today=today)


def find_patient(entity_type: MappedEntityType, mapped: MappedRows) -> str | None:
    """Return `Patient/id` of the patient whose columns a row needs."""
    lookup = find_patient_lookup(entity_type.entity)
    if entity_type.patient is None or lookup is None:
        return None
    return _find_target(lookup, mapped.values.get(lookup.column))


def add_patient(
    entity_type: MappedEntityType, mapped: MappedRows, patient: Mapping[str, Any], today: date
) -> MappedRows:
    """Add the columns of the patient to a row."""
    assert entity_type.patient is not None
    tables = {entity_type.entity.table: entity_type.columns}
    found = engine.map_resource(entity_type.patient, patient, tables, today=today).values
    columns = [attribute.column for attribute in entity_type.patient.attributes]
    values = {**mapped.values, **{column: found[column] for column in columns}}
    return replace(mapped, values=values)


def list_lookups(entity_type: MappedEntityType, mapped: MappedRows) -> set[str]:
    """Return `Type/id` of each resource that a lookup of the row refers to."""
    targets = (
        _find_target(attribute, mapped.values.get(attribute.column))
        for attribute in entity_type.attributes.values()
    )
    return {target for target in targets if target is not None}


def build_values(
    entity_type: MappedEntityType, name: str, mapped: MappedRows, keys: Mapping[str, UUID]
) -> EntityValues:
    """Build the row of the resource `name`, `Type/id`.

    `keys`: by `Type/id`, the key of its own row and of the row of each resource in its lookups.
    """
    id_column, version_column, updated_column = entity_type.entity.version_columns
    values: dict[str, Value] = {
        entity_type.entity.key: keys[name],
        id_column: name.partition("/")[2],
        version_column: mapped.values[version_column],
        updated_column: _parse_datetime(mapped.values[updated_column]),
    }
    for property_, attribute in entity_type.attributes.items():
        values[property_] = _convert_value(attribute, mapped.values.get(attribute.column), keys)
    return values


def _build_property(name: str, attribute: AttributeMap) -> Property:
    shown = attribute.virtual_column
    type_ = _COPY_TYPES[shown.type] if attribute.kind is Kind.COPY else _TYPES[attribute.kind]
    return Property(
        name,
        type_,
        max_length=shown.max_length if type_ is Type.STRING else None,
        case_sensitive=shown.search is not None and shown.search.type is SearchType.TOKEN,
        writable=shown.writable,
    )


def _build_column(attribute: AttributeMap) -> Column:
    match attribute.kind:
        case Kind.COPY:
            is_text = attribute.virtual_column.type in ("string", "memo")
            max_length = attribute.virtual_column.max_length if is_text else None
            search = attribute.virtual_column.search
            # FHIR's :text compares the beginning of what FHIR has.
            has_start = search is not None and search.type is SearchType.TEXT
            format_ = KEPT_START if has_start else "TextArea"
            return Column(
                attribute.column,
                COLUMN_TYPES[attribute.virtual_column.type],
                max_length=max_length,
                format=format_ if is_text else None,  # it returns what FHIR has
            )
        case Kind.CHOICE:
            return Column(attribute.column, "Picklist")
        case Kind.DATE | Kind.DATETIME:
            return Column(attribute.column, "DateTime")
    return Column(attribute.column, "Lookup")


def _convert_value(attribute: AttributeMap, value: Any, keys: Mapping[str, UUID]) -> Value:
    match attribute.kind:
        case Kind.LOOKUP:
            target = _find_target(attribute, value)
            return None if target is None else keys[target]
        case Kind.DATE | Kind.DATETIME:
            return _parse_datetime(value)
        case Kind.CONCEPT:
            return value.name if isinstance(value, Concept) else None
    converted: Value = value
    return converted


def _find_target(attribute: AttributeMap, value: Any) -> str | None:
    """Return `Type/id` that a lookup refers to, if the lookup is for resources of that type."""
    if not isinstance(value, Lookup):
        return None
    type_ = attribute.virtual_column.target
    return value.resource if type_ in (None, value.resource.partition("/")[0]) else None


def _parse_datetime(text: str | None) -> datetime | None:
    if text is None:
        return None
    parsed = datetime.fromisoformat(text)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
