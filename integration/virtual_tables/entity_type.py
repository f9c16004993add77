"""An entity map in the feed: its entity type. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from integration.core.model import Column
from integration.mapping.model import (
    COLUMN_TYPES,
    AttributeMap,
    EntityMap,
    Kind,
    Route,
    SearchType,
)
from integration.mapping.patient_columns import (
    build_patient_columns,
    build_patient_map,
    find_patient_lookup,
)
from integration.mapping.same_object import SameObject
from integration.mapping.values import KEPT_START
from integration.odata.model import EntityType, Property, Type

# https://hl7.org/fhir/R4/datatypes.html#id
_MAX_ID_LENGTH = 64

# Selections of properties that are kept, of all tables: each view of Dataverse has one.
_MAX_SELECTIONS = 512

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
        return self if properties is None else _select(SameObject(self), frozenset(properties))


@lru_cache(maxsize=_MAX_SELECTIONS)
def _select(table: SameObject, properties: frozenset[str]) -> MappedEntityType:
    """Return the same table each time, so that what is compiled for it is found again."""
    full: MappedEntityType = table.value
    selected = {name: item for name, item in full.attributes.items() if name in properties}
    of_patient = {item.column for item in full.patient.attributes} if full.patient else set()
    columns = [item for item in selected.values() if item.column in of_patient]
    patient = replace(full.patient, attributes=tuple(columns)) if full.patient else None
    of_resource = [item for item in selected.values() if item.column not in of_patient]
    lookup = find_patient_lookup(full.entity)
    if columns and lookup is not None and lookup not in of_resource:
        of_resource.append(lookup)  # it leads to the patient, shown or not
    entity = replace(full.entity, attributes=tuple(of_resource))
    return replace(full, entity=entity, attributes=selected, patient=patient if columns else None)


def build_entity_type(entity: EntityMap) -> MappedEntityType:
    """Build what the feed shows of an entity map: no child tables and no constants."""
    entity = entity.select_route(Route.VIRTUAL)
    attributes = tuple(
        attribute for attribute in entity.attributes if attribute.kind is not Kind.DEFAULT
    )
    entity = replace(
        entity,
        attributes=attributes,
        expands=(),
        unmapped_elements=(),
        expected_elements=(),
        kind_column=None,
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
