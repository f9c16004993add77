"""A repeating element becomes rows of its own; variables, types and rules reach into it."""

from __future__ import annotations

from typing import Any

from integration.core.model import Column
from integration.mapping.engine import map_resource
from integration.mapping.load import parse_map
from integration.mapping.model import Concept, Lookup, MappedRows

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


def mapped(attributes: str, match: str = '["system", "value"]', **elements: Any) -> MappedRows:
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
    return map_resource(parse_map(text, "p.toml"), resource, {"contact": CONTACT, "number": NUMBER})


def attribute(column: str, path: str, more: str = "") -> str:
    return f'[[expand.attribute]]\ncolumn = "{column}"\npath = "{path}"\n{more}\n'


BOTH = attribute("system", "system") + attribute("value", "value", 'too_long = "omit"')


def rows(found: MappedRows) -> list[dict[str, Any]]:
    return [dict(child.values) for child in found.children]


def notes(found: MappedRows) -> list[str]:
    return [note.partition(" @ ")[0] for note in found.notes]


def test_each_item_is_a_row() -> None:
    found = mapped(BOTH, identifier=[{"system": "a", "value": "1"}, {"value": "2"}])
    assert rows(found) == [{"system": "a", "value": "1"}, {"system": None, "value": "2"}]
    assert found.notes == ()
    assert {child.expand_map.table for child in found.children} == {"number"}


def test_no_items_are_no_rows() -> None:
    assert mapped(BOTH).children == ()


def test_a_path_of_an_item_reaches_the_resource_and_the_variables() -> None:
    paths = BOTH + attribute("other", "%resource.gender & %mine.value")
    found = mapped(paths, gender="male", identifier=[{"use": "usual", "value": "1"}])
    assert rows(found)[0]["other"] == "male1"


def test_an_item_knows_its_type() -> None:
    paths = attribute("value", "value.ofType(string)")
    items = [{"url": "x", "valueInteger": 7}, {"url": "y", "valueString": "seven"}]
    found = mapped(paths, '["value"]', path="extension", extension=items)
    assert rows(found) == [{"value": "seven"}]
    assert notes(found) == ["number: left out without value"]


def test_an_item_without_a_required_column_is_left_out_and_noted() -> None:
    found = mapped(BOTH, identifier=[{"system": "a"}, {"value": "1"}])
    assert rows(found) == [{"system": None, "value": "1"}]
    assert found.notes == ("number: left out without value @ identifier (p.toml:14)",)


def test_an_item_whose_key_is_too_long_is_left_out_and_noted() -> None:
    found = mapped(BOTH, identifier=[{"value": "1" * 11}])
    assert rows(found) == []
    assert notes(found) == [
        "number.value: longer than 10, left out",
        "number: left out without value",
    ]


def test_an_item_without_anything_to_tell_it_by_is_left_out_and_noted() -> None:
    found = mapped(BOTH, '["system"]', identifier=[{"value": "1"}, {"system": "a", "value": "2"}])
    assert rows(found) == [{"system": "a", "value": "2"}]
    assert notes(found) == ["number: left out without system"]


def test_of_items_with_the_same_key_the_first_is_taken_and_that_is_noted() -> None:
    paths = BOTH + attribute("other", "use")
    same = {"system": "a", "value": "1"}
    found = mapped(paths, identifier=[{**same, "use": "usual"}, {**same, "use": "old"}])
    assert [row["other"] for row in rows(found)] == ["usual"]
    assert notes(found) == ["number: more than one with the same key, the first taken"]


def test_a_hundred_items_with_the_same_trouble_are_noted_once() -> None:
    found = mapped(BOTH, identifier=[{"system": "s" * 21, "value": str(n)} for n in range(100)])
    assert len(found.children) == 100
    assert notes(found) == ["number.system: longer than 20, cut"]


def test_lookups_and_concepts_of_items_are_values_too() -> None:
    paths = (
        attribute("value", "value")
        + attribute("link", "assigner", 'kind = "lookup"')
        + attribute("other", "type", 'kind = "concept"\nconcept = 7')
    )
    item = {
        "value": "1",
        "assigner": {"reference": "Organization/9"},
        "type": {"coding": [{"code": "MR"}]},
    }
    (row,) = rows(mapped(paths, '["value"]', identifier=[item]))
    assert row["link"] == Lookup("Organization/9")
    assert row["other"] == Concept(7, "MR", "MR", None)


def test_a_path_to_items_that_fails_costs_no_row() -> None:
    found = mapped(BOTH, path="identifier.value.join('-')", identifier=[{"value": 7}])
    assert found.values["gender"] is None
    assert found.children == ()
    assert notes(found) == ["number: the path failed (TypeError)"]


# -- values that are withheld ---------------------------------------------------------------------

WITHHELD = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason"}]}


def test_a_value_that_is_withheld_is_noted_and_one_that_is_missing_is_not() -> None:
    assert notes(mapped(BOTH, _gender=WITHHELD)) == ["gender: no value, only extensions"]
    assert notes(mapped(BOTH)) == []


def test_a_value_that_is_withheld_elsewhere_is_not_noted_here() -> None:
    contact = [{"_gender": WITHHELD}]
    assert notes(mapped(BOTH, contact=contact)) == []
    assert notes(mapped(BOTH, contact=contact, gender="male")) == []
