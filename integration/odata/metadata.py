"""The service document, and $metadata as CSDL XML 4.0 and CSDL JSON 4.01. Pure.

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
# Terms are named in full: there are clients that know no aliases.
_CORE, _CAPABILITIES = "Org.OData.Core.V1", "Org.OData.Capabilities.V1"
_VOCABULARY_ROOT = "https://oasis-tcs.github.io/odata-vocabularies/vocabularies/"

_OF_CONTAINER: Annotations = {
    f"{_CAPABILITIES}.BatchSupported": False,
    f"{_CAPABILITIES}.FilterFunctions": [
        "contains",
        "startswith",
        "endswith",
        "tolower",
        "toupper",
    ],
}


def build_service_document(types: Iterable[EntityType], root: str, form: Format) -> dict[str, Any]:
    """Which entity sets there are."""
    sets = [{"name": each.set, "kind": "EntitySet", "url": each.set} for each in types]
    head = {} if form.metadata == "none" else {"@odata.context": f"{root}$metadata"}
    return {**head, "value": sets}


def build_csdl_json(types: Sequence[EntityType]) -> dict[str, Any]:
    """What is the default there is left out. A container is not without entity sets."""
    container: dict[str, Any] = {"$Kind": "EntityContainer", **_as_json(_OF_CONTAINER)}
    for each in types:
        kind = {"$Collection": True, "$Type": f"{NAMESPACE}.{each.name}"}
        container[each.set] = {**kind, **_as_json(_of_set(each))}
    schema: dict[str, Any] = {each.name: _type_as_json(each) for each in types}
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
    edmx = Element("edmx:Edmx", Version="4.0")
    edmx.set("xmlns:edmx", "http://docs.oasis-open.org/odata/ns/edmx")
    for name in (_CORE, _CAPABILITIES):
        reference = SubElement(edmx, "edmx:Reference", Uri=f"{_VOCABULARY_ROOT}{name}.xml")
        SubElement(reference, "edmx:Include", Namespace=name)
    services = SubElement(edmx, "edmx:DataServices")
    schema = SubElement(services, "Schema", Namespace=NAMESPACE)
    schema.set("xmlns", "http://docs.oasis-open.org/odata/ns/edm")
    for each in types:
        _add_type(schema, each)
    if types:
        _add_container(schema, types)
    indent(edmx)
    return bytes(tostring(edmx, "utf-8", xml_declaration=True))


def _of_set(entity: EntityType) -> Annotations:
    return {
        # Entities have ETags; what goes into them is not among their properties.
        f"{_CORE}.OptimisticConcurrency": [],
        f"{_CAPABILITIES}.FilterRestrictions": {"Filterable": True},
        f"{_CAPABILITIES}.SortRestrictions": {"Sortable": True},
        f"{_CAPABILITIES}.ExpandRestrictions": {"Expandable": False},
        f"{_CAPABILITIES}.SearchRestrictions": {"Searchable": False},
        f"{_CAPABILITIES}.InsertRestrictions": {"Insertable": entity.is_writable},
        f"{_CAPABILITIES}.UpdateRestrictions": {"Updatable": entity.is_writable},
        f"{_CAPABILITIES}.DeleteRestrictions": {"Deletable": entity.is_writable},
    }


def _of_property(each: Property, entity: EntityType) -> Annotations:
    if each.name == entity.key:
        return {f"{_CORE}.Immutable": True}
    return {} if each.writable else {f"{_CORE}.Computed": True}


def _facets(each: Property) -> dict[str, int | str]:
    """Length and digits. A moment has none after its second by default, a decimal none at all."""
    if each.type == Type.STRING:
        return {} if each.max_length is None else {"MaxLength": each.max_length}
    if each.type == Type.DATE_TIME_OFFSET:
        return {"Precision": 6}
    if each.type == Type.DECIMAL:
        precision = {} if each.precision is None else {"Precision": each.precision}
        return {**precision, "Scale": "variable" if each.scale is None else each.scale}
    return {}


def _type_as_json(entity: EntityType) -> dict[str, Any]:
    return {
        "$Kind": "EntityType",
        "$Key": [entity.key],
        **{each.name: _property_as_json(each, entity) for each in entity.properties},
    }


def _property_as_json(each: Property, entity: EntityType) -> dict[str, Any]:
    return {
        **({} if each.type == Type.STRING else {"$Type": str(each.type)}),
        **({"$Nullable": True} if each.nullable else {}),
        **{f"${name}": value for name, value in _facets(each).items() if value != "variable"},
        **_as_json(_of_property(each, entity)),
    }


def _as_json(annotations: Annotations) -> dict[str, Any]:
    return {f"@{term}": value for term, value in annotations.items()}


def _add_type(schema: Element, entity: EntityType) -> None:
    shape = SubElement(schema, "EntityType", Name=entity.name)
    SubElement(SubElement(shape, "Key"), "PropertyRef", Name=entity.key)
    for each in entity.properties:
        facets = {name: str(value) for name, value in _facets(each).items()}
        nullable = {} if each.nullable else {"Nullable": "false"}
        attributes = {"Name": each.name, "Type": str(each.type), **nullable, **facets}
        _annotate(SubElement(shape, "Property", attributes), _of_property(each, entity))


def _add_container(schema: Element, types: Sequence[EntityType]) -> None:
    container = SubElement(schema, "EntityContainer", Name=_CONTAINER)
    for each in types:
        kind = f"{NAMESPACE}.{each.name}"
        _annotate(SubElement(container, "EntitySet", Name=each.set, EntityType=kind), _of_set(each))
    _annotate(container, _OF_CONTAINER)


def _annotate(element: Element, annotations: Annotations) -> None:
    for term, value in annotations.items():
        annotation = SubElement(element, "Annotation", Term=term)
        if isinstance(value, bool):
            annotation.set("Bool", _xml(value))
        elif isinstance(value, Mapping):
            record = SubElement(annotation, "Record")
            for name, inner in value.items():
                SubElement(record, "PropertyValue", Property=name, Bool=_xml(inner))
        else:
            items = SubElement(annotation, "Collection")
            for text in value:
                SubElement(items, "String").text = text


def _xml(value: bool) -> str:
    return "true" if value else "false"
