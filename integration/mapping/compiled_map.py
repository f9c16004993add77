"""An entity map, compiled for the columns of its tables into functions of a resource. Pure.

docs/decisions/0048-maps-are-compiled.md. The interpreter says what a map means: a compiled map
makes the same rows and notes, and raises UnsupportedValue for a resource that it leaves to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from functools import lru_cache
from typing import Any

from integration.core.errors import Unmappable
from integration.core.model import Column, Columns, Tables
from integration.mapping import usual_values
from integration.mapping.fhirpath.compile import compile_path
from integration.mapping.fhirpath.evaluate import Evaluation
from integration.mapping.fhirpath.fast_path import COMPUTED
from integration.mapping.fhirpath.fast_path_plan import get_plan
from integration.mapping.fhirpath.fast_steps import UnsupportedValue, Values, drop_extensions_alone
from integration.mapping.fhirpath.path_tree import (
    Leaf,
    UnsupportedTree,
    Visitor,
    Walk,
    begin_walk,
    build_item_visitor,
    build_path_tree,
)
from integration.mapping.fhirpath.plain_values import PlainValues
from integration.mapping.interpreter import (
    Mapper,
    build_map_value,
    format_attribute_note,
    format_children_note,
    map_version_columns,
)
from integration.mapping.model import (
    Absent,
    AttributeMap,
    ChildRow,
    EntityMap,
    ExpandMap,
    Kind,
    MappedRows,
    NotedElement,
)
from integration.mapping.same_object import SameObject
from integration.mapping.unmapped import find_contradictions, format_noted_element
from integration.mapping.usual_values import UNUSUAL
from integration.mapping.values import convert_value

CompiledMap = Callable[[Mapping[str, Any], str | None, date], MappedRows]

# Maps with the columns of a tenant that are kept: of every table, and a few versions of each.
_MAX_COMPILED = 128

_MANY = "more than one value; the first was taken"


def get_compiled_map(entity: EntityMap, tables: Tables) -> CompiledMap | None:
    """Return the compiled map; None where it has something that only the interpreter can do."""
    columns = tuple(SameObject(tables[name]) for name in entity.tables)
    return _compile(SameObject(entity), columns)


@lru_cache(maxsize=_MAX_COMPILED)
def _compile(entity: SameObject, columns: tuple[SameObject, ...]) -> CompiledMap | None:
    map_: EntityMap = entity.value
    tables = {name: held.value for name, held in zip(map_.tables, columns, strict=True)}
    try:
        return _compile_map(map_, tables)
    except UnsupportedTree:
        return None


def _compile_map(entity: EntityMap, tables: Tables) -> CompiledMap:
    columns = tables[entity.table]
    fast, slow = split_attributes(entity)
    map_slowly = build_slow_mapper(entity, columns, slow)
    noted = (*entity.unmapped_elements, *entity.expected_elements)
    expands = [
        _compile_expand(entity, number, expand, tables[expand.table])
        for number, expand in enumerate(entity.expands, len(noted))
    ]
    leaves = [
        *(
            Leaf(attribute.path or "", _build_visitor(number, attribute, columns[attribute.column]))
            for number, attribute in fast
        ),
        *(
            Leaf(path, _build_collector(number))
            for number, path in enumerate(
                [*(item.path for item in noted), *(item.path for item in entity.expands)]
            )
        ),
    ]
    tree = build_path_tree(entity.resource, entity.variables, leaves, only_used=False)
    template = dict.fromkeys(entity.version_columns) | {
        attribute.column: attribute.default
        for attribute in entity.attributes
        if attribute.default is not None or attribute.absent is Absent.CLEAR
    }
    map_columns = [item.column for item in entity.attributes if item.kind is Kind.MAP]
    enforced = [item for item in entity.attributes if columns[item.column].enforced]
    unmapped, expected = _number_elements(entity)

    def map_resource(resource: Mapping[str, Any], base: str | None, today: date) -> MappedRows:
        if resource.get("resourceType") != entity.resource:
            raise UnsupportedValue
        notes: list[str] = []
        row = template | map_version_columns(entity, resource, columns, notes)
        plain = PlainValues(today)
        start = [plain.copy(resource, is_resource=True)]
        if plain.missing or plain.has_inner_resources:
            raise UnsupportedValue
        walk = begin_walk(start, row, base, today)
        tree.walk(walk)
        for number, attribute, value, its_notes in map_slowly(resource, walk, today):
            walk.notes += [(number, note) for note in its_notes]
            if value is not None or attribute.absent is Absent.CLEAR:
                row[attribute.column] = value
        for name in map_columns:
            row[name] = build_map_value(entity, resource, columns, name, today)
        if walk.notes:
            notes += [note for _, note in sorted(walk.notes, key=_get_number)]
        children = [child for expand in expands for child in expand(walk, notes)]
        for item in enforced:
            if row.get(item.column) is None:
                why = "the column is required and has no value"
                notes.append(format_attribute_note(item, "", why))
        for number, element in unmapped:
            if found := walk.found.get(number):
                why = f"{len(found)} more than the map has columns for"
                notes.append(format_noted_element(element, why))
        notes += find_contradictions(entity.resource, resource)
        for number, element in expected:
            if not walk.found.get(number):
                notes.append(format_noted_element(element, "none that the row could show"))
        # What is noted of hundreds of children is noted once.
        once = tuple(dict.fromkeys(notes))
        return MappedRows(row, tuple(children), once, changes_on=plain.changes_on)

    return map_resource


def split_attributes(
    entity: EntityMap,
) -> tuple[list[tuple[int, AttributeMap]], list[tuple[int, AttributeMap]]]:
    """Return the attributes with a fast path, and those with another, each with its number."""
    fast_paths = get_plan(entity.resource, tuple(entity.variables.items()))[entity.resource]
    split: tuple[list[tuple[int, AttributeMap]], list[tuple[int, AttributeMap]]] = ([], [])
    for number, attribute in enumerate(entity.attributes):
        if attribute.path is not None and attribute.kind is not Kind.MAP:
            split[fast_paths[attribute.path] is None].append((number, attribute))
    return split


def _build_visitor(
    number: int, attribute: AttributeMap, column: Column, prefix: str = ""
) -> Visitor:
    """Return what writes the values that an attribute's path finds into the row. `number`: of the
    attribute, by which its notes are sorted; `prefix`: a child's table, in its notes."""
    convert = usual_values.build_converter(attribute, column)
    name, clears = attribute.column, attribute.absent is Absent.CLEAR or bool(prefix)

    def take_one(value: Any, walk: Walk) -> None:
        converted = convert(value)
        if converted is UNUSUAL:
            take_unusual(value, walk)
        elif converted is not None or clears:
            walk.row[name] = converted

    def take_many(values: Values, walk: Walk) -> None:
        values = drop_extensions_alone(values)
        if len(values) > 1:
            walk.notes.append((number, format_attribute_note(attribute, prefix, _MANY)))
        if values:
            take_one(values[0], walk)

    def take_unusual(value: Any, walk: Walk) -> None:
        def note(why: str) -> None:
            walk.notes.append((number, format_attribute_note(attribute, prefix, why)))

        if not drop_extensions_alone([value]):
            return
        try:
            converted = convert_value(attribute, value, column, note, walk.base)
        except Unmappable as problem:
            note(problem.why)
            return
        if converted is not None or clears:
            walk.row[name] = converted

    return Visitor(take_one, take_many)


def _build_collector(number: int) -> Visitor:
    """Return what keeps the values of a path, by this number."""

    def collect_many(values: Values, walk: Walk) -> None:
        walk.found[number] = drop_extensions_alone(values)

    return Visitor(lambda value, walk: collect_many([value], walk), collect_many)


def _may_find(path: str, resource: Mapping[str, Any], walk: Walk) -> bool:
    """Whether an element or a variable is there that the path needs."""
    needs = compile_path(path).needs
    return needs is None or any(
        bool(walk.variables.get(name[1:], [None]))
        if name.startswith("%")
        # `deceased` is deceasedBoolean or deceasedDateTime in JSON.
        else any(element.startswith(name) for element in resource)
        for name in needs
    )


SlowMapper = Callable[
    [Mapping[str, Any], Walk, date], Iterator[tuple[int, AttributeMap, Any, list[str]]]
]


def build_slow_mapper(
    entity: EntityMap, columns: Columns, slow: Sequence[tuple[int, AttributeMap]]
) -> SlowMapper:
    """Return what maps the attributes whose paths only fhirpathpy can evaluate: it yields the
    number of each that may have a value, the attribute, its value and its notes."""

    def map_slowly(
        resource: Mapping[str, Any], walk: Walk, today: date
    ) -> Iterator[tuple[int, AttributeMap, Any, list[str]]]:
        evaluation: Evaluation | None = None
        for number, attribute in slow:
            if not _may_find(attribute.path or "", resource, walk):
                continue
            if evaluation is None:
                evaluation = Evaluation(entity.variables, resource, [], today=today)
            notes: list[str] = []
            mapper = Mapper(evaluation, notes, walk.base)
            value = mapper.map_attribute(attribute, columns[attribute.column])
            yield number, attribute, value, notes

    return map_slowly


def _get_number(note: tuple[int, str]) -> int:
    return note[0]


def _number_elements(
    entity: EntityMap,
) -> tuple[Sequence[tuple[int, NotedElement]], Sequence[tuple[int, NotedElement]]]:
    """Return the elements without columns, and those that are expected, by their numbers."""
    unmapped = [*enumerate(entity.unmapped_elements)]
    return unmapped, [*enumerate(entity.expected_elements, len(unmapped))]


# -- children --------------------------------------------------------------------------------------


def _compile_expand(
    entity: EntityMap, number: int, expand: ExpandMap, columns: Columns
) -> Callable[[Walk, list[str]], list[ChildRow]]:
    """Return what makes the child rows of the items that were found, by this number."""
    plan = get_plan(entity.resource, tuple(entity.variables.items()))
    found = plan[entity.resource][expand.path]
    if found is None or len(found.types) != 1 or COMPUTED in found.types:
        raise UnsupportedTree
    (item_type,) = found.types
    prefix = f"{expand.table}."
    walk_item = build_item_visitor(
        entity.resource,
        entity.variables,
        item_type,
        [
            Leaf(attribute.path, _build_visitor(n, attribute, columns[attribute.column], prefix))
            for n, attribute in enumerate(expand.attributes)
            if attribute.path is not None
        ],
    )
    template = {attribute.column: attribute.default for attribute in expand.attributes}
    required = [name for name in template if columns[name].required]

    def map_children(walk: Walk, notes: list[str]) -> list[ChildRow]:
        children: dict[tuple[Any, ...], ChildRow] = {}
        for item in walk.found.get(number, ()):
            row = template.copy()
            inner = Walk([item], walk.variables, row, walk.base)
            walk_item(inner)
            if inner.notes:
                notes += [note for _, note in sorted(inner.notes, key=_get_number)]
            missing = [name for name in required if row[name] is None]
            key = tuple([row[name] for name in expand.match])
            if missing:
                why = f"a row without {', '.join(missing)} was left out"
            elif all(part is None for part in key):
                why = f"a row without {', '.join(expand.match)} was left out"
            elif key in children:
                why = "more than one item has the same key; the first was taken"
            else:
                children[key] = ChildRow(expand, row)
                continue
            notes.append(format_children_note(expand, why))
        return list(children.values())

    return map_children
