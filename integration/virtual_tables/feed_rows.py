"""The rows that resources are in the feed. Pure.

A table is compiled once for the properties that are asked for: docs/decisions/0048-maps-are-
compiled.md. Nobody asks the feed what could not be mapped, so nothing is noted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any
from uuid import UUID

from integration.core.errors import Unmappable
from integration.core.model import Column
from integration.mapping import engine
from integration.mapping.compiled_map import build_slow_mapper, split_attributes
from integration.mapping.fhirpath.fast_steps import UnsupportedValue, Values, drop_extensions_alone
from integration.mapping.fhirpath.path_tree import (
    Leaf,
    UnsupportedTree,
    Visitor,
    Walk,
    begin_walk,
    build_path_tree,
)
from integration.mapping.fhirpath.plain_values import PlainValues
from integration.mapping.interpreter import build_map_value, interpret_map, map_version_columns
from integration.mapping.model import AttributeMap, Kind
from integration.mapping.patient_columns import find_patient_lookup
from integration.mapping.same_object import SameObject
from integration.mapping.usual_values import UNUSUAL, parse_instant
from integration.mapping.values import convert_value
from integration.odata.model import EntityValues, Value
from integration.virtual_tables import feed_values
from integration.virtual_tables.entity_type import MappedEntityType, format_property_name

Resource = Mapping[str, Any]

# Tables, each with a selection of its properties, that are kept compiled.
_MAX_COMPILED = 256

# The properties of a row, without its key; lookups as `Type/id`.
_Extract = Callable[[Resource, str | None, date], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class FeedRows:
    """Rows of a table whose keys are not known yet. `names`: `Type/id` of each row's resource;
    `references`: of the resources that must have a key, each once."""

    entity_type: MappedEntityType
    names: Sequence[str]
    rows: Sequence[dict[str, Any]]
    references: frozenset[str]

    def set_keys(self, keys: Mapping[str, UUID]) -> list[EntityValues]:
        """Return the rows with these keys, by `Type/id`."""
        key_name, lookups = self.entity_type.entity.key, _list_lookups(self.entity_type)
        for name, row in zip(self.names, self.rows, strict=True):
            row[key_name] = keys[name]
            for lookup in lookups:
                target = row[lookup]
                if target is not None:
                    row[lookup] = keys[target]
        return list(self.rows)


def extract_rows(
    entity_type: MappedEntityType, resources: Iterable[Resource], base: str | None, today: date
) -> FeedRows:
    """Map resources to rows, as they are on a day. Raises Unmappable for one without an id."""
    extract = _get_extract(SameObject(entity_type))
    lookups = _list_lookups(entity_type)
    rows, names = [], []
    for resource in resources:
        row = extract(resource, base, today)
        rows.append(row)
        names.append(f"{entity_type.resource}/{row[entity_type.entity.id_column]}")
    targets = {row[lookup] for row in rows for lookup in lookups}
    return FeedRows(entity_type, names, rows, frozenset(names) | (targets - {None}))


def interpret_row(
    entity_type: MappedEntityType, resource: Resource, base: str | None, today: date
) -> dict[str, Value]:
    """Map a resource to a row with the interpreter, which says what a map means."""
    entity = entity_type.entity
    tables = {entity.table: entity_type.columns}
    mapped = interpret_map(entity, resource, tables, base, today=today).values
    _, version_column, updated_column = entity.version_columns
    updated = mapped[updated_column]
    return {
        entity.id_column: resource["id"],
        version_column: mapped[version_column],
        updated_column: None if updated is None else feed_values.parse_datetime(updated),
        **{
            name: feed_values.convert_mapped(attribute, mapped.get(attribute.column))
            for name, attribute in _list_properties(entity_type).items()
        },
    }


def find_patients(extracted: FeedRows) -> frozenset[str]:
    """Return `Patient/id` of the patients whose columns the rows need."""
    lookup = find_patient_lookup(extracted.entity_type.entity)
    if extracted.entity_type.patient is None or lookup is None:
        return frozenset()
    name = format_property_name(lookup)
    return frozenset(row[name] for row in extracted.rows if row[name] is not None)


def add_patients(extracted: FeedRows, patients: Mapping[str, Resource], today: date) -> None:
    """Set the columns of the patients of these rows, before the rows have their keys. `patients`:
    by `Patient/id`; of one that is not there, nothing is known."""
    patient_map = extracted.entity_type.patient
    lookup = find_patient_lookup(extracted.entity_type.entity)
    if patient_map is None or lookup is None:
        return
    tables = {patient_map.table: extracted.entity_type.columns}
    lookup_name = format_property_name(lookup)
    shown: dict[str, dict[str, Value]] = {}
    for row in extracted.rows:
        name = row[lookup_name]
        if name not in patients:
            continue
        if name not in shown:
            mapped = engine.map_resource(patient_map, patients[name], tables, today=today).values
            shown[name] = {
                item.column: feed_values.convert_mapped(item, mapped.get(item.column))
                for item in patient_map.attributes
            }
        row |= shown[name]


def _list_properties(entity_type: MappedEntityType) -> dict[str, AttributeMap]:
    """Return the attributes of a row by property, those of its patient among them."""
    needed = {format_property_name(item): item for item in entity_type.entity.attributes}
    return {**needed, **entity_type.attributes}


def _list_lookups(entity_type: MappedEntityType) -> list[str]:
    return [name for name, item in entity_type.attributes.items() if item.kind is Kind.LOOKUP]


@lru_cache(maxsize=_MAX_COMPILED)
def _get_extract(table: SameObject) -> _Extract:
    entity_type: MappedEntityType = table.value

    def interpret(resource: Resource, base: str | None, today: date) -> dict[str, Any]:
        return interpret_row(entity_type, resource, base, today)

    try:
        extract = compile_extract(entity_type)
    except UnsupportedTree:
        return interpret

    def extract_or_interpret(resource: Resource, base: str | None, today: date) -> dict[str, Any]:
        try:
            return extract(resource, base, today)
        except UnsupportedValue:
            return interpret(resource, base, today)

    return extract_or_interpret


def compile_extract(entity_type: MappedEntityType) -> _Extract:
    """Compile the map of a table. What is returned raises UnsupportedValue for a resource that only
    the interpreter can map. Raises UnsupportedTree for such a map."""
    entity, columns = entity_type.entity, entity_type.columns
    # The lookup to the patient is mapped where it is not shown, too.
    properties = {item.column: format_property_name(item) for item in entity.attributes}
    fast, slow = split_attributes(entity)
    map_slowly = build_slow_mapper(entity, columns, slow)
    leaves = [
        Leaf(item.path or "", _build_visitor(properties[item.column], item, columns[item.column]))
        for _, item in fast
    ]
    tree = build_path_tree(entity.resource, entity.variables, leaves, only_used=True)
    template = dict.fromkeys(entity.version_columns) | {
        name: feed_values.convert_mapped(attribute, attribute.default)
        for name, attribute in _list_properties(entity_type).items()
    }
    stamps = [item.column for item in entity.attributes if item.kind is Kind.MAP]
    set_version = _build_version_setter(entity_type)

    def extract(resource: Resource, base: str | None, today: date) -> dict[str, Any]:
        if resource.get("resourceType") != entity.resource:
            raise UnsupportedValue
        row = template.copy()
        set_version(resource, row)
        plain = PlainValues(today)
        start = [
            plain.copy(resource, is_resource=True)
            if tree.elements is None
            else plain.copy_elements(resource, tree.elements)
        ]
        if plain.has_inner_resources:
            raise UnsupportedValue
        walk = begin_walk(start, row, base, today)
        tree.walk(walk)
        if slow:
            for _, attribute, value, _ in map_slowly(resource, walk, today):
                row[properties[attribute.column]] = feed_values.convert_mapped(attribute, value)
        for column in stamps:
            row[properties[column]] = build_map_value(entity, resource, columns, column, today)
        return row

    return extract


def _build_version_setter(
    entity_type: MappedEntityType,
) -> Callable[[Resource, dict[str, Any]], None]:
    """Return what sets the columns that say which version of which resource a row shows."""
    entity, columns = entity_type.entity, entity_type.columns
    id_column, version_column, updated_column = entity.version_columns
    max_length = columns[id_column].max_length or 0

    def set_version(resource: Resource, row: dict[str, Any]) -> None:
        id_, meta = resource.get("id"), resource.get("meta")
        meta = meta if type(meta) is dict else {}
        version: Any = meta.get("versionId")
        updated: Any = parse_instant(meta.get("lastUpdated"))
        if (
            updated is UNUSUAL
            or type(id_) is not str
            or len(id_) > max_length
            or type(version) is not str
            or not version.isalnum()
            or not version.isascii()
            or len(version) > max_length
        ):
            mapped = map_version_columns(entity, resource, columns, [])
            version, updated = mapped[version_column], mapped[updated_column]
            if updated is not None:
                updated = feed_values.parse_datetime(updated)
        row[id_column], row[version_column], row[updated_column] = id_, version, updated

    return set_version


def _build_visitor(name: str, attribute: AttributeMap, column: Column) -> Visitor:
    """Return what writes the first value that an attribute's path finds into the row."""
    convert = feed_values.build_converter(attribute, column)

    def take_one(value: Any, walk: Walk) -> None:
        converted = convert(value, walk.base)
        if converted is UNUSUAL:
            take_unusual(value, walk)
        else:
            walk.row[name] = converted

    def take_many(values: Values, walk: Walk) -> None:
        values = drop_extensions_alone(values)
        if values:
            take_one(values[0], walk)

    def take_unusual(value: Any, walk: Walk) -> None:
        if not drop_extensions_alone([value]):
            return
        try:
            converted = convert_value(attribute, value, column, _note_nothing, walk.base)
        except Unmappable:
            return  # the column keeps its default
        walk.row[name] = feed_values.convert_mapped(attribute, converted)

    return Visitor(take_one, take_many)


def _note_nothing(why: str) -> None:
    return None
