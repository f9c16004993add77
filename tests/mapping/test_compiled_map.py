"""A compiled map makes the rows and notes that the interpreter makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.errors import Unmappable
from integration.core.model import Column, Tables
from integration.mapping.compiled_map import get_compiled_map
from integration.mapping.engine import map_resource
from integration.mapping.fhirpath.fast_steps import UnsupportedValue
from integration.mapping.files import list_map_names
from integration.mapping.interpreter import interpret_map
from integration.mapping.load import load_maps, parse_map
from integration.mapping.model import EntityMap, MappedRows, Route
from tests.builders import TODAY
from tests.mapping import real
from tests.mapping.odd_resources import draw_odd_resource, load_case_resources
from tests.mapping.tenant import PREFIX, load_all_columns
from tests.mapping.test_clinical import build_tables
from tests.randomness import limit_examples

BASE = "http://fhir"

MAPS: Mapping[str, EntityMap] = {
    f"{set_} {entity.resource}": entity
    for set_ in ("healthcare", "plain")
    for entity in load_maps(set_, PREFIX, None, list_map_names(set_)).entities.values()
    if set_ == "healthcare" or Route.VIRTUAL not in entity.routes
}


def find_tables(entity: EntityMap) -> Tables:
    """The columns of a table that is mirrored alone; else those of the virtual table."""
    is_virtual = Route.VIRTUAL in entity.routes
    return build_tables(entity.resource) if is_virtual else load_all_columns()


TABLES = {name: find_tables(entity) for name, entity in MAPS.items()}

each_map = pytest.mark.parametrize("name", MAPS)


def describe(make: Any) -> MappedRows | str:
    """The rows, or why there are none."""
    try:
        rows: MappedRows = make()
    except Unmappable as problem:
        return problem.why
    return rows


def assert_same_rows(name: str, resource: dict[str, Any], base: str | None = BASE) -> bool:
    """Whatever the compiled map does not leave to the interpreter is the same. Return whether it
    leaves it."""
    entity, tables = MAPS[name], TABLES[name]
    compiled = get_compiled_map(entity, tables)
    assert compiled is not None
    expected = describe(lambda: interpret_map(entity, resource, tables, base, today=TODAY))
    assert describe(lambda: map_resource(entity, resource, tables, base, today=TODAY)) == expected
    try:
        assert describe(lambda: compiled(resource, base, TODAY)) == expected
    except UnsupportedValue:
        return True
    return False


@each_map
def test_every_shipped_map_is_compiled(name: str) -> None:
    assert get_compiled_map(MAPS[name], TABLES[name]) is not None


@each_map
def test_each_case_has_the_same_rows(name: str) -> None:
    for resource in load_case_resources(MAPS[name].resource):
        assert_same_rows(name, resource)
        assert_same_rows(name, resource, None)


@each_map
@limit_examples(60, nightly=1000)
@given(data=st.data())
def test_a_resource_that_is_odd_somewhere_has_the_same_rows(name: str, data: st.DataObject) -> None:
    assert_same_rows(name, draw_odd_resource(data, MAPS[name].resource))


@each_map
def test_real_resources_have_the_same_rows_and_few_are_left_to_the_interpreter(name: str) -> None:
    resources = real.load_resources([MAPS[name].resource])
    left = [assert_same_rows(name, resource) for resource in resources]
    assert sum(left) <= 0.05 * len(resources)


# -- what no shipped map has -----------------------------------------------------------------------

ROW = """
resource = "Patient"
[row]
table = "contact"
entity_set = "contacts"
key = "contactid"
id_column = "fhirid"
version_column = "version"
updated_column = "updated"
[variables]
names = "name"
odd = "(name.family | gender)"
"""
COLUMNS = {
    "fhirid": Column("fhirid", "String", max_length=64),
    "version": Column("version", "String", max_length=50),
    "updated": Column("updated", "DateTime"),
    **{name: Column(name, "String", max_length=20) for name in "abcd"},
}
PATIENT = {
    "resourceType": "Patient",
    "id": "1",
    "gender": "female",
    "birthDate": "1980-02-29",
    "name": [{"family": "Sample", "given": ["Anna", "Maria"]}, {"family": "Sampleton"}],
}


@pytest.mark.parametrize(
    "path",
    [
        "$this.gender",
        "%resource.gender",
        "%resource.name.given.first()",
        "name.given.count().toString()",
        "name.given.select(length()).first()",
        "gender | birthDate",
        "(gender | birthDate).first()",
        "'constant'",
        "{}",
        "name[1].family",
        "name[7].family",
        "name.last().family",
        "name.take(0).family",
        "name.exists()",
        "photo.exists()",
        "photo.empty()",
        "iif(photo.empty(), gender, birthDate)",
        "photo.combine(name).family",
        "%names.combine(photo).family.first()",
        "%names.exclude(%resource.name.first()).family",
        "%names.given.upper()",
        "name.given.first().upper()",
        "%odd.first()",
        "%odd",
        "name.where(given contains 'Anna').family",
        "contact.name | name",
        "%today",
    ],
)
def test_a_path_of_any_kind_has_the_same_value(path: str) -> None:
    columns = "".join(
        f'[[attribute]]\ncolumn = "{column}"\npath = "{of_column}"\n{more}\n'
        for column, of_column, more in (
            ("a", path, ""),
            ("b", "name.family.first()", 'default = "none"'),
            ("c", path, 'default = "none"'),
            ("d", path, 'absent = "keep"'),
        )
    )
    entity, tables = parse_map(ROW + columns, "map.toml"), {"contact": COLUMNS}
    for patient in (PATIENT, {"resourceType": "Patient", "id": "1"}):
        expected = interpret_map(entity, patient, tables, today=TODAY)
        assert map_resource(entity, patient, tables, today=TODAY) == expected
