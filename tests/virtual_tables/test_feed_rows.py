"""A compiled table makes the rows that the interpreter makes."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.errors import Unmappable
from integration.mapping.fhirpath.fast_steps import UnsupportedValue
from integration.mapping.load import parse_map
from integration.virtual_tables.entity_type import (
    MappedEntityType,
    build_entity_type,
    format_property_name,
)
from integration.virtual_tables.feed_rows import compile_extract, extract_rows, interpret_row
from tests.builders import TODAY
from tests.mapping import real
from tests.mapping.odd_resources import draw_odd_resource, load_case_resources
from tests.randomness import limit_examples
from tests.virtual_tables import rich
from tests.virtual_tables.conftest import SHAPES

BASE = "http://fhir"

each_table = pytest.mark.parametrize("name", SHAPES)


def describe_row(make: Any) -> Any:
    try:
        return make()
    except Unmappable as problem:
        return problem.why


def assert_same_row(entity_type: MappedEntityType, resource: dict[str, Any]) -> bool:
    """Return whether the resource is left to the interpreter."""
    expected = describe_row(lambda: interpret_row(entity_type, resource, BASE, TODAY))
    try:
        found = describe_row(lambda: compile_extract(entity_type)(resource, BASE, TODAY))
    except UnsupportedValue:
        return True
    assert found == expected
    assert isinstance(found, str) or [*map(type, found.values())] == [
        type(expected[name]) for name in found
    ]
    return False


@each_table
def test_each_case_has_the_same_row(name: str) -> None:
    for resource in load_case_resources(name):
        assert_same_row(SHAPES[name], resource)
    assert not assert_same_row(SHAPES[name], rich.resource(name, "1"))


@each_table
@limit_examples(40, nightly=1000)
@given(data=st.data())
def test_a_resource_that_is_odd_somewhere_has_the_same_row(name: str, data: st.DataObject) -> None:
    assert_same_row(SHAPES[name], draw_odd_resource(data, name))


@each_table
@limit_examples(20, nightly=300)
@given(data=st.data())
def test_a_selection_of_columns_has_the_same_values_as_the_whole_row(
    name: str, data: st.DataObject
) -> None:
    table, resource = SHAPES[name], draw_odd_resource(data, name)
    names = data.draw(st.sets(st.sampled_from([*table.attributes]), max_size=6))
    selected = table.select(names)
    assert_same_row(selected, resource)
    whole = describe_row(lambda: extract_rows(table, [resource], BASE, TODAY).rows[0])
    part = describe_row(lambda: extract_rows(selected, [resource], BASE, TODAY).rows[0])
    # The lookup to the patient is there where a column of the patient is, shown or not.
    needed = [format_property_name(attribute) for attribute in selected.entity.attributes]
    columns = {*table.entity.version_columns, *selected.attributes, *needed}
    assert part == whole or part == {column: whole[column] for column in columns}


@each_table
def test_real_resources_have_the_same_rows_and_few_are_left_to_the_interpreter(name: str) -> None:
    found = [resource for resource in real.load_resources([name]) if len(resource) > 2]
    left = [assert_same_row(SHAPES[name], resource) for resource in found]
    assert sum(left) <= 0.05 * len(found)


def test_a_selection_of_columns_is_compiled_once() -> None:
    table = SHAPES["Observation"]
    names = ["msemr_description", "msemr_status"]
    assert table.select(names) is table.select([*reversed(names)])
    assert table.select(names) is not table.select(names[:1])


def test_each_reference_of_a_page_is_resolved_once() -> None:
    table = SHAPES["Observation"]
    patient = {"reference": "Patient/p"}
    page = [
        {"resourceType": "Observation", "id": str(n), "subject": subject}
        for n, subject in enumerate([patient, patient, {"reference": "Group/g"}, {}])
    ]
    extracted = extract_rows(table, page, BASE, TODAY)
    names = [f"Observation/{n}" for n in range(4)]
    assert extracted.references == {*names, "Patient/p"}
    keys = {name: UUID(int=n) for n, name in enumerate([*names, "Patient/p"])}
    rows = extracted.set_keys(keys)
    assert [row[table.entity.key] for row in rows] == [UUID(int=n) for n in range(4)]
    shown = [row["_msemr_subjectpatient_value"] for row in rows]
    assert shown == [UUID(int=4), UUID(int=4), None, None]


WHOLE = """
resource = "Basic"
[row]
table = "basic"
entity_set = "basics"
key = "basicid"
id_column = "fhirid"
version_column = "version"
updated_column = "updated"
routes = ["virtual"]
name_column = "a"
[[attribute]]
column = "a"
path = "%resource.code.text"
label = "A"
default = "none"
"""


def test_a_path_from_the_whole_resource_finds_every_element() -> None:
    table = build_entity_type(parse_map(WHOLE, "map.toml"))
    basic = {"resourceType": "Basic", "id": "1", "code": {"text": "x"}}
    assert not assert_same_row(table, basic)
    assert not assert_same_row(table, {"resourceType": "Basic", "id": "1"})
    assert extract_rows(table, [basic], BASE, TODAY).rows[0]["a"] == "x"
