"""Build the service document, and $metadata as CSDL XML 4.0 and CSDL JSON 4.01. Pure.

https://docs.oasis-open.org/odata/odata-csdl-xml/v4.01/odata-csdl-xml-v4.01.html
https://docs.oasis-open.org/odata/odata-csdl-json/v4.01/odata-csdl-json-v4.01.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from integration.odata.headers import Format
from integration.odata.model import NAMESPACE, EntityType, Property, Type

# An annotation's value: true or false, a list of texts, or a record of these.
Annotations = Mapping[str, Any]

_CONTAINER = "Container"
# Terms have their full names, because some clients do not support aliases.
_CORE, _CAPABILITIES = "Org.OData.Core.V1", "Org.OData.Capabilities.V1"
_VOCABULARY_ROOT = "https://oasis-tcs.github.io/odata-vocabularies/vocabularies/"

_CONTAINER_ANNOTATIONS: Annotations = {
    f"{_CAPABILITIES}.BatchSupported": False,
    f"{_CAPABILITIES}.FilterFunctions": [
        "contains",
        "startswith",
        "endswith",
        "tolower",
        "toupper",
    ],
}


def build_service_document(
    types: Iterable[EntityType], root: str, format_: Format
) -> dict[str, Any]:
    """Build the list of entity sets."""
    sets = [{"name": type_.set, "kind": "EntitySet", "url": type_.set} for type_ in types]
    head = {} if format_.metadata == "none" else {"@odata.context": f"{root}$metadata"}
    return {**head, "value": sets}


def build_csdl_json(types: Sequence[EntityType]) -> dict[str, Any]:
    """Build CSDL JSON without default values. There is no container without entity sets."""
    container: dict[str, Any] = {
        "$Kind": "EntityContainer",
        **_build_annotations(_CONTAINER_ANNOTATIONS),
    }
    for type_ in types:
        kind = {"$Collection": True, "$Type": f"{NAMESPACE}.{type_.name}"}
        container[type_.set] = {**kind, **_build_annotations(_list_set_annotations(type_))}
    schema: dict[str, Any] = {type_.name: _build_type(type_) for type_ in types}
    return {
        "$Version": "4.01",
        **({"$EntityContainer": f"{NAMESPACE}.{_CONTAINER}"} if types else {}),
        "$Reference": {
            f"{_VOCABULARY_ROOT}{name}.json": {"$Include": [{"$Namespace": name}]}
            for name in (_CORE, _CAPABILITIES)
        },
        NAMESPACE: {**schema, _CONTAINER: container} if types else schema,
    }


def build_csdl_xml(types: Sequence[EntityType]) -> bytes:
    """Build CSDL XML."""
    edmx = Element("edmx:Edmx", Version="4.0")
    edmx.set("xmlns:edmx", "http://docs.oasis-open.org/odata/ns/edmx")
    for name in (_CORE, _CAPABILITIES):
        reference = SubElement(edmx, "edmx:Reference", Uri=f"{_VOCABULARY_ROOT}{name}.xml")
        SubElement(reference, "edmx:Include", Namespace=name)
    services = SubElement(edmx, "edmx:DataServices")
    schema = SubElement(services, "Schema", Namespace=NAMESPACE)
    schema.set("xmlns", "http://docs.oasis-open.org/odata/ns/edm")
    for type_ in types:
        _add_type(schema, type_)
    if types:
        _add_container(schema, types)
    indent(edmx)
    return bytes(tostring(edmx, "utf-8", xml_declaration=True))


def _list_set_annotations(entity: EntityType) -> Annotations:
    return {
        # Entities have ETags, which are not made of their properties.
        f"{_CORE}.OptimisticConcurrency": [],
        f"{_CAPABILITIES}.FilterRestrictions": {"Filterable": True},
        f"{_CAPABILITIES}.SortRestrictions": {"Sortable": True},
        f"{_CAPABILITIES}.ExpandRestrictions": {"Expandable": False},
        f"{_CAPABILITIES}.SearchRestrictions": {"Searchable": False},
        f"{_CAPABILITIES}.InsertRestrictions": {"Insertable": entity.is_writable},
        f"{_CAPABILITIES}.UpdateRestrictions": {"Updatable": entity.is_writable},
        f"{_CAPABILITIES}.DeleteRestrictions": {"Deletable": entity.is_writable},
    }


def _list_property_annotations(property_: Property, entity: EntityType) -> Annotations:
    if property_.name == entity.key:
        return {f"{_CORE}.Immutable": True}
    return {} if property_.writable else {f"{_CORE}.Computed": True}


def _list_facets(property_: Property) -> dict[str, int | str]:
    """List length and digits. By default a datetime has no fractional seconds, a decimal no
    fractional digits."""
    if property_.type == Type.STRING:
        return {} if property_.max_length is None else {"MaxLength": property_.max_length}
    if property_.type == Type.DATE_TIME_OFFSET:
        return {"Precision": 6}
    if property_.type == Type.DECIMAL:
        precision = {} if property_.precision is None else {"Precision": property_.precision}
        return {**precision, "Scale": "variable" if property_.scale is None else property_.scale}
    return {}


def _build_type(entity: EntityType) -> dict[str, Any]:
    return {
        "$Kind": "EntityType",
        "$Key": [entity.key],
        **{property_.name: _build_property(property_, entity) for property_ in entity.properties},
    }


def _build_property(property_: Property, entity: EntityType) -> dict[str, Any]:
    return {
        **({} if property_.type == Type.STRING else {"$Type": str(property_.type)}),
        **({"$Nullable": True} if property_.nullable else {}),
        **{
            f"${name}": value
            for name, value in _list_facets(property_).items()
            if value != "variable"
        },
        **_build_annotations(_list_property_annotations(property_, entity)),
    }


def _build_annotations(annotations: Annotations) -> dict[str, Any]:
    return {f"@{term}": value for term, value in annotations.items()}


def _add_type(schema: Element, entity: EntityType) -> None:
    element = SubElement(schema, "EntityType", Name=entity.name)
    SubElement(SubElement(element, "Key"), "PropertyRef", Name=entity.key)
    for property_ in entity.properties:
        facets = {name: str(value) for name, value in _list_facets(property_).items()}
        nullable = {} if property_.nullable else {"Nullable": "false"}
        attributes = {"Name": property_.name, "Type": str(property_.type), **nullable, **facets}
        _annotate(
            SubElement(element, "Property", attributes),
            _list_property_annotations(property_, entity),
        )


def _add_container(schema: Element, types: Sequence[EntityType]) -> None:
    container = SubElement(schema, "EntityContainer", Name=_CONTAINER)
    for type_ in types:
        kind = f"{NAMESPACE}.{type_.name}"
        _annotate(
            SubElement(container, "EntitySet", Name=type_.set, EntityType=kind),
            _list_set_annotations(type_),
        )
    _annotate(container, _CONTAINER_ANNOTATIONS)


def _annotate(element: Element, annotations: Annotations) -> None:
    for term, value in annotations.items():
        annotation = SubElement(element, "Annotation", Term=term)
        if isinstance(value, bool):
            annotation.set("Bool", _format_boolean(value))
        elif isinstance(value, Mapping):
            record = SubElement(annotation, "Record")
            for name, inner in value.items():
                SubElement(record, "PropertyValue", Property=name, Bool=_format_boolean(inner))
        else:
            items = SubElement(annotation, "Collection")
            for text in value:
                SubElement(items, "String").text = text


def _format_boolean(value: bool) -> str:
    return "true" if value else "false"
