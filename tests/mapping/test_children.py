"""A repeating element becomes rows of its own; variables, types and rules reach into it."""

from __future__ import annotations

from typing import Any

from integration.core.model import Column
from integration.mapping.engine import map_resource
from integration.mapping.load import parse_map
from integration.mapping.model import Concept, Lookup, MappedRows
from tests.builders import TODAY

ROW = """resource = "Patient"
[row]
table = "contact"
entity_set = "contacts"
key = "contactid"
id_column = "fhirid"
version_column = "version"
updated_column = "updated"
[variables]
mine = "identifier.where(use = 'usual')"
[[attribute]]
column = "gender"
path = "gender"
"""
CONTACT = {
    "fhirid": Column("fhirid", "String", max_length=64),
    "version": Column("version", "String", max_length=50),
    "updated": Column("updated", "DateTime"),
    "gender": Column("gender", "String"),
}
NUMBER = {
    "system": Column("system", "String", max_length=20),
    "value": Column("value", "String", max_length=10, required=True),
    "other": Column("other", "String", max_length=50),
    "link": Column("link", "Lookup", targets={"account": "L"}),
}


def map_patient(attributes: str, match: str = '["system", "value"]', **elements: Any) -> MappedRows:
    path = elements.pop("path", "identifier")
    text = f"""{ROW}[[expand]]
path = "{path}"
table = "number"
entity_set = "numbers"
key = "numberid"
parent = "patient"
match = {match}
{attributes}"""
    resource = {"resourceType": "Patient", "id": "1", **elements}
    return map_resource(
        parse_map(text, "p.toml"), resource, {"contact": CONTACT, "number": NUMBER}, today=TODAY
    )


def write_attribute(column: str, path: str, more: str = "") -> str:
    return f'[[expand.attribute]]\ncolumn = "{column}"\npath = "{path}"\n{more}\n'


BOTH = write_attribute("system", "system") + write_attribute("value", "value", 'too_long = "omit"')


def list_rows(found: MappedRows) -> list[dict[str, Any]]:
    return [dict(child.values) for child in found.children]


def list_notes(found: MappedRows) -> list[str]:
    return [note.partition(" @ ")[0] for note in found.notes]


def test_each_item_is_a_row() -> None:
    found = map_patient(BOTH, identifier=[{"system": "a", "value": "1"}, {"value": "2"}])
    assert list_rows(found) == [{"system": "a", "value": "1"}, {"system": None, "value": "2"}]
    assert found.notes == ()
    assert {child.expand_map.table for child in found.children} == {"number"}


def test_no_items_are_no_rows() -> None:
    assert map_patient(BOTH).children == ()


def test_a_path_of_an_item_reaches_the_resource_and_the_variables() -> None:
    paths = BOTH + write_attribute("other", "%resource.gender & %mine.value")
    found = map_patient(paths, gender="male", identifier=[{"use": "usual", "value": "1"}])
    assert list_rows(found)[0]["other"] == "male1"


def test_an_item_knows_its_type() -> None:
    paths = write_attribute("value", "value.ofType(string)")
    items = [{"url": "x", "valueInteger": 7}, {"url": "y", "valueString": "seven"}]
    found = map_patient(paths, '["value"]', path="extension", extension=items)
    assert list_rows(found) == [{"value": "seven"}]
    assert list_notes(found) == ["number: a row without value was left out"]


def test_an_item_without_a_required_column_is_left_out_and_noted() -> None:
    found = map_patient(BOTH, identifier=[{"system": "a"}, {"value": "1"}])
    assert list_rows(found) == [{"system": None, "value": "1"}]
    assert found.notes == ("number: a row without value was left out @ identifier (p.toml:14)",)


def test_an_item_whose_key_is_too_long_is_left_out_and_noted() -> None:
    found = map_patient(BOTH, identifier=[{"value": "1" * 11}])
    assert list_rows(found) == []
    assert list_notes(found) == [
        "number.value: the text is longer than 10 characters and was left out",
        "number: a row without value was left out",
    ]


def test_an_item_without_anything_to_tell_it_by_is_left_out_and_noted() -> None:
    found = map_patient(
        BOTH, '["system"]', identifier=[{"value": "1"}, {"system": "a", "value": "2"}]
    )
    assert list_rows(found) == [{"system": "a", "value": "2"}]
    assert list_notes(found) == ["number: a row without system was left out"]


def test_of_items_with_the_same_key_the_first_is_taken_and_that_is_noted() -> None:
    paths = BOTH + write_attribute("other", "use")
    same = {"system": "a", "value": "1"}
    found = map_patient(paths, identifier=[{**same, "use": "usual"}, {**same, "use": "old"}])
    assert [row["other"] for row in list_rows(found)] == ["usual"]
    assert list_notes(found) == ["number: more than one item has the same key; the first was taken"]


def test_a_hundred_items_with_the_same_trouble_are_noted_once() -> None:
    found = map_patient(
        BOTH, identifier=[{"system": "s" * 21, "value": str(n)} for n in range(100)]
    )
    assert len(found.children) == 100
    assert list_notes(found) == ["number.system: the text is longer than 20 characters and was cut"]


def test_lookups_and_concepts_of_items_are_values_too() -> None:
    paths = (
        write_attribute("value", "value")
        + write_attribute("link", "assigner", 'kind = "lookup"')
        + write_attribute("other", "type", 'kind = "concept"\nconcept = 7')
    )
    item = {
        "value": "1",
        "assigner": {"reference": "Organization/9"},
        "type": {"coding": [{"code": "MR"}]},
    }
    (row,) = list_rows(map_patient(paths, '["value"]', identifier=[item]))
    assert row["link"] == Lookup("Organization/9")
    assert row["other"] == Concept(7, "MR", "MR", None)


def test_a_path_to_items_that_fails_costs_no_row() -> None:
    found = map_patient(BOTH, path="identifier.value.join('-')", identifier=[{"value": 7}])
    assert found.values["gender"] is None
    assert found.children == ()
    assert list_notes(found) == ["number: the path could not be evaluated (TypeError)"]


# -- values that are withheld ---------------------------------------------------------------------

WITHHELD = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason"}]}


def test_a_value_that_is_withheld_is_noted_and_one_that_is_missing_is_not() -> None:
    assert list_notes(map_patient(BOTH, _gender=WITHHELD)) == ["gender: no value, only extensions"]
    assert list_notes(map_patient(BOTH)) == []


def test_a_value_that_is_withheld_elsewhere_is_not_noted_here() -> None:
    contact = [{"_gender": WITHHELD}]
    assert list_notes(map_patient(BOTH, contact=contact)) == []
    assert list_notes(map_patient(BOTH, contact=contact, gender="male")) == []
