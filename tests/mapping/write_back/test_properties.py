"""What holds whatever is written into whatever resource, by the maps of the clinical tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from random import Random
from typing import Any

import pytest

from integration.core import decimal_json
from integration.core.errors import Rejected
from integration.mapping import engine, load, r4_elements
from integration.mapping.fhirpath.library import R4_MODEL
from integration.mapping.model import AttributeMap, Kind, Lookup
from integration.mapping.write_back.apply import write_columns
from integration.mapping.write_back.inverse_paths import PathPredicate, Steps, invert_path
from integration.virtual_tables.entity_type import MappedEntityType, build_entity_type
from local.processes import PROJECT
from tests.builders import TODAY
from tests.mapping import real
from tests.randomness import make_random, scale

MAPS = sorted((PROJECT / "integration/mapping/maps/clinical").glob("*.toml"))
SHAPES = {
    made.resource: made
    for path in MAPS
    for made in [build_entity_type(load.parse_map(path.read_text(), path.name))]
}

Resource = dict[str, Any]
Path = tuple[str, ...]
Leaf = tuple[Path, bytes]

CASES = scale(25)  # of each table

each_table = pytest.mark.parametrize("kind", sorted(SHAPES))

# -- resources and changes -----------------------------------------------------------------------


def _draw_text(chance: Random) -> str:
    return "".join(chance.choices("aä \n<", k=chance.randint(1, 3)))


def _draw_datetime(chance: Random) -> datetime:
    return datetime(1800, 1, 1, tzinfo=UTC) + timedelta(seconds=chance.randrange(10**10))


def _draw_date_time_text(chance: Random) -> str:
    return _draw_datetime(chance).isoformat()[: chance.choice((7, 10, None))]


def _draw_decimal(chance: Random) -> Decimal:
    return Decimal(chance.randint(-999, 999)).scaleb(-2)


_VALUES: dict[str, Callable[[Random], Any]] = {
    "boolean": lambda chance: chance.random() < 0.5,
    "integer": lambda chance: chance.randint(-5, 5),
    "positiveInt": lambda chance: chance.randint(1, 5),
    "unsignedInt": lambda chance: chance.randint(0, 5),
    "decimal": _draw_decimal,
    "date": lambda chance: _draw_datetime(chance).date().isoformat(),
    "dateTime": _draw_date_time_text,
    "instant": lambda chance: _draw_datetime(chance).isoformat(),
}


@cache
def _list_types() -> dict[str, dict[str, str]]:
    """The elements of each type with their types, by the names that JSON has for them."""
    found: dict[str, dict[str, str]] = {}
    for path, type_ in R4_MODEL["path2Type"].items():
        parent, _, name = path.rpartition(".")
        if not type_.startswith("System."):
            found.setdefault(parent, {})[name] = type_
    for parent in list(found):
        outer, _, name = parent.rpartition(".")
        if outer:
            found.setdefault(outer, {})[name] = parent
    return found


@cache
def _list_literals(resource: str) -> tuple[str, ...]:
    """What conditions of the map ask for, and the codes that have options."""
    attributes = SHAPES[resource].entity.attributes
    codes = {code for attribute in attributes for code in attribute.choices}
    return tuple(
        sorted(
            codes
            | {str(c.literal) for attribute in attributes for c in _list_predicates(attribute)}
        )
    )


def _list_predicates(attribute: AttributeMap) -> list[PathPredicate]:
    steps = invert_path(attribute.path or "", "")
    return [condition for step in steps or () for condition in step.predicates]


def _draw_object(
    chance: Random, kind: str, type_: str, depth: int = 0, names: Iterable[str] = ()
) -> Resource:
    """Some elements of a type, mostly that the map knows; and those of `names`."""
    types = _list_types().get(type_, {})
    likely = sorted(types.keys() & _list_mapped_names(kind)) or sorted(types)
    some = chance.sample(likely, k=min(len(likely), chance.randint(0, 5))) if depth < 4 else ()
    found: Resource = {}
    for name in (*names, *some):
        rule = r4_elements.find_rule(type_, name)
        forms = next((f for f in _list_choices(type_) if name in f), (name,))
        if rule is None or any(form in found for form in forms):
            continue
        items = [
            _draw_value(chance, kind, types[name], depth + 1) for _ in range(chance.randint(1, 2))
        ]
        found[name] = items if rule.repeats else items[0]
    return found


@cache
def _list_choices(type_: str) -> list[tuple[str, ...]]:
    return [names for _, names in r4_elements.list_choices(type_)]


@cache
def _list_mapped_names(resource: str) -> frozenset[str]:
    map_ = SHAPES[resource].entity
    steps = (_find_steps(map_.resource, attribute) for attribute in map_.attributes)
    names = {step.name for chain in steps for step in chain}
    return frozenset(names | {"period", "system", "display", "code", "unit", "extension"})


def _draw_value(chance: Random, kind: str, type_: str, depth: int) -> Any:
    if type_ == "Reference":
        id_ = chance.choice(["Patient/1", "Practitioner/1", "Group/1", "Organization/1", "#1"])
        return {"reference": id_, **({"display": "x"} if chance.random() < 0.5 else {})}
    if not r4_elements.is_primitive(type_):
        return _draw_object(chance, kind, type_, depth)
    if type_ in ("code", "uri"):
        return chance.choice([*_list_literals(kind), "a", "b"])
    return _VALUES.get(type_, _draw_text)(chance)


def _draw_column_value(chance: Random, attribute: AttributeMap) -> Any:
    """What a client may write to a column."""
    match attribute.kind:
        case Kind.DATE | Kind.DATETIME:
            return _draw_datetime(chance)
        case Kind.CHOICE:
            return chance.choice([options[0] for options in attribute.choices.values()])
        case Kind.LOOKUP:
            return Lookup(f"{attribute.virtual_column.target or 'Patient'}/2")
    return _VALUES.get(attribute.virtual_column.type, _draw_text)(chance)


Case = tuple[MappedEntityType, Resource, dict[str, Any]]


@cache
def _list_cases(kind: str) -> list[Case]:
    """Resources, and what is written to some columns, most of which are filled."""
    return [*_draw_cases(kind)]


def _draw_cases(kind: str) -> Iterator[Case]:
    entity_type = SHAPES[kind]
    writable = [
        attribute
        for attribute in entity_type.entity.attributes
        if attribute.virtual_column.writable
    ]
    for seed in range(CASES):
        chance = make_random(f"{kind} {seed}")
        some = chance.sample(writable, k=chance.randint(1, 3))
        changes = {
            attribute.column: _draw_column_value(chance, attribute)
            if chance.random() < 0.7
            else None
            for attribute in some
        }
        filled = [
            _find_steps(kind, attribute)[0].name for attribute in some if chance.random() < 0.7
        ]
        yield (
            entity_type,
            {"resourceType": kind, "id": "1", **_draw_object(chance, kind, kind, 0, filled)},
            changes,
        )


# -- what is read --------------------------------------------------------------------------------


def _map_columns(entity_type: MappedEntityType, resource: Resource) -> dict[str, Any]:
    """Each column, as the feed has it."""
    columns = engine.map_resource(
        entity_type.entity, resource, {entity_type.entity.table: entity_type.columns}, today=TODAY
    ).values
    return {
        attribute.column: _convert_to_feed(attribute, columns[attribute.column])
        for attribute in entity_type.entity.attributes
    }


def _convert_to_feed(attribute: AttributeMap, value: Any) -> Any:
    if isinstance(value, Lookup):
        return (
            value
            if attribute.virtual_column.target in (None, value.resource.partition("/")[0])
            else None
        )
    if attribute.kind in (Kind.DATE, Kind.DATETIME) and value is not None:
        at = datetime.fromisoformat(value)
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    return value


def _convert_as_read(attribute: AttributeMap, value: Any) -> Any:
    """How a value that was written is read."""
    if attribute.kind is Kind.DATE and value is not None:
        return value.replace(hour=0, minute=0, second=0)
    return value.strip() if isinstance(value, str) else value


# -- what is where -------------------------------------------------------------------------------


def _list_leaves(node: Any, path: Path = ()) -> Iterator[Leaf]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _list_leaves(value, (*path, name))
    elif isinstance(node, list):
        for item in node:
            yield from _list_leaves(item, path)
    else:
        yield path, decimal_json.encode(node)


def _find_steps(resource: str, attribute: AttributeMap) -> Steps:
    map_ = SHAPES[resource].entity
    return invert_path(attribute.path or "", resource, map_.variables) or ()


def _list_touched(resource: str, attribute: AttributeMap) -> Iterator[Path]:
    """Where a write to a column may change anything."""
    steps = _find_steps(resource, attribute)
    names = tuple(step.name for step in steps)
    yield names
    for number, step in enumerate(steps, 1):
        yield from ((*names[: number - 1], other) for other in step.other_names)
        for condition in step.predicates:
            yield (*names[:number], *(inner.name for inner in condition.steps))
        if step.type in ("CodeableConcept", "Coding", "Quantity", "Age") and number < len(steps):
            yield names[:number]


def _strip_underscores(path: Path) -> Path:
    return tuple(name.removeprefix("_") for name in path)


def _write(
    entity_type: MappedEntityType, resource: Resource, changes: dict[str, Any]
) -> Resource | None:
    """None where it is refused; the resource that is given stays what it is."""
    before = decimal_json.encode(resource)
    new = None
    with suppress(Rejected):
        new = write_columns(entity_type.entity, resource, changes, entity_type.columns, today=TODAY)
    assert decimal_json.encode(resource) == before
    return new


# -- properties ----------------------------------------------------------------------------------


@each_table
def test_what_was_written_is_read_and_nothing_else_has_changed(kind: str) -> None:
    count = 0
    for entity_type, resource, changes in _list_cases(kind):
        new = _write(entity_type, resource, changes)
        if new is None:
            continue
        count += new is not resource
        _assert_read(entity_type, new, changes)
        named = {attribute.column: attribute for attribute in entity_type.entity.attributes}
        old, now = Counter(_list_leaves(resource)), Counter(_list_leaves(new))
        places = {place for name in changes for place in _list_touched(kind, named[name])}
        for path, _ in (old - now) + (now - old):
            assert any(_strip_underscores(path)[: len(place)] == place for place in places), (
                path,
                changes,
            )
        kept = [name for name in resource if name in new]
        assert [name for name in new if name in resource] == kept
    assert count > CASES / 3


@each_table
def test_a_write_that_is_repeated_changes_nothing(kind: str) -> None:
    for entity_type, resource, changes in _list_cases(kind):
        if new := _write(entity_type, resource, changes):
            again = write_columns(
                entity_type.entity, new, changes, entity_type.columns, today=TODAY
            )
            assert decimal_json.encode(again) == decimal_json.encode(new), (resource, changes)


@each_table
def test_writing_what_is_shown_changes_nothing(kind: str) -> None:
    for entity_type, resource, _ in _list_cases(kind):
        values = _map_columns(entity_type, resource)
        same = {
            attribute.column: values[attribute.column]
            for attribute in entity_type.entity.attributes
            if attribute.virtual_column.writable
        }
        assert (
            write_columns(entity_type.entity, resource, same, entity_type.columns, today=TODAY)
            is resource
        )


@each_table
def test_what_was_made_can_be_cleared_again(kind: str) -> None:
    count = 0
    for entity_type, _, changes in _list_cases(kind):
        empty = {"resourceType": kind, "id": "1"}
        new = _write(entity_type, empty, changes)
        none = new and _write(entity_type, new, dict.fromkeys(changes))
        assert none in (None, empty), changes
        count += none is not None and new != empty
    assert count


@each_table
def test_resources_of_any_shape_are_written_or_refused(kind: str) -> None:
    counts = Counter[bool]()
    for number, (entity_type, resource, changes) in enumerate(_list_cases(kind)):
        chance, resource = make_random(f"shape {kind} {number}"), dict(resource)
        named = {attribute.column: attribute for attribute in entity_type.entity.attributes}
        for name in changes:
            for step in _find_steps(kind, named[name])[:1]:
                resource[chance.choice(["", "_"]) + step.name] = _draw_junk(
                    chance, entity_type, named[name]
                )
        new = _write(entity_type, resource, changes)
        counts[new is None] += 1
        if new is not None:
            _assert_read(entity_type, new, changes)
            places = {place[0] for name in changes for place in _list_touched(kind, named[name])}
            for name, value in resource.items():
                if name.removeprefix("_") not in places:
                    assert decimal_json.encode(new[name]) == decimal_json.encode(value)
    assert counts[True]
    assert counts[False]


def _draw_junk(
    chance: Random, entity_type: MappedEntityType, attribute: AttributeMap, depth: int = 0
) -> Any:
    """Not what FHIR has there; but by its names, it could be."""
    names = [step.name for step in _find_steps(entity_type.resource, attribute)] + [
        "coding",
        "url",
        "system",
    ]
    if depth < 4 and chance.random() < 0.7:
        inner = [
            _draw_junk(chance, entity_type, attribute, depth + 1)
            for _ in range(chance.randint(0, 2))
        ]
        return inner if chance.random() < 0.5 else dict(zip(names[depth:], inner, strict=False))
    return chance.choice(
        [None, "", "a", 1, True, "Patient/1", *_list_literals(entity_type.resource)]
    )


def _assert_read(entity_type: MappedEntityType, new: Resource, changes: dict[str, Any]) -> None:
    values = _map_columns(entity_type, new)
    named = {attribute.column: attribute for attribute in entity_type.entity.attributes}
    for name, value in changes.items():
        assert values[name] == _convert_as_read(named[name], value), (name, value)


# -- resources from elsewhere --------------------------------------------------------------------


@each_table
def test_a_real_resource_takes_what_it_shows_as_it_is(kind: str) -> None:
    entity_type = SHAPES[kind]
    shapes = {
        frozenset(path for path, _ in _list_leaves(item)): item
        for item in real.load_resources([kind])
    }
    for resource_ in shapes.values():
        resource = decimal_json.decode(json.dumps(resource_).encode())
        values = _map_columns(entity_type, resource)
        same = {
            item.column: values[item.column]
            for item in entity_type.entity.attributes
            if item.virtual_column.writable
        }
        assert (
            write_columns(entity_type.entity, resource, same, entity_type.columns, today=TODAY)
            is resource
        )
        for name, value in same.items():
            assert (
                write_columns(
                    entity_type.entity, resource, {name: value}, entity_type.columns, today=TODAY
                )
                is resource
            )
