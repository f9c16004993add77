"""Maps: read once, checked whole, and true to the tables they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from integration.errors import Misconfigured
from integration.mapping.load import FOLDER, misfits, parse, shipped
from integration.mapping.model import AttributeMap, EntityMap, Kind, TooLong
from integration.model import Column

TABLES = Path(__file__).parent.parent.parent / "local/dataverse/tables"

ROW = """
resource = "Patient"
[row]
table = "contact"
entity_set = "contacts"
key = "contactid"
id_column = "fhirid"
version_column = "version"
updated_column = "updated"
"""


def attribute(text: str) -> str:
    return f"{ROW}\n[[attribute]]\n{text}\n"


def problems(text: str) -> str:
    with pytest.raises(Misconfigured) as caught:
        parse(text, "patient.toml")
    return str(caught.value)


# -- reading -------------------------------------------------------------------------------------


def test_a_map_is_read_with_its_row() -> None:
    entity = parse(attribute('column = "lastname"\npath = "name.family"'), "patient.toml")
    assert (entity.resource, entity.table, entity.entity_set) == ("Patient", "contact", "contacts")
    assert entity.columns == ["contactid", "fhirid", "version", "updated", "lastname"]


def test_an_attribute_is_copied_and_cut_unless_it_says_otherwise() -> None:
    entity = parse(attribute('column = "lastname"\npath = "name.family"'), "patient.toml")
    assert entity.attributes == (AttributeMap("lastname", Kind.COPY, "name.family"),)
    assert entity.attributes[0].too_long is TooLong.CUT


def test_an_option_may_stand_alone_or_in_a_list() -> None:
    text = 'column = "g"\npath = "gender"\nkind = "choice"\nchoices = { male = 1, other = [9, 3] }'
    (found,) = parse(attribute(text), "patient.toml").attributes
    assert found.choices == {"male": (1,), "other": (9, 3)}


def test_variables_are_kept_in_their_order() -> None:
    text = ROW + '[variables]\nb = "name"\na = "%b.first()"\n'
    entity = parse(f'{text}[[attribute]]\ncolumn = "x"\npath = "%a.family"', "patient.toml")
    assert list(entity.variables) == ["b", "a"]


# -- problems ------------------------------------------------------------------------------------

GOOD = 'column = "x"\npath = "gender"'

WRONG = [
    ("no TOML", "resource = ", "patient.toml: "),
    ("an empty file", "", "resource is missing"),
    ("no resource", attribute(GOOD).replace('resource = "Patient"', ""), "resource is missing"),
    ("no table", attribute(GOOD).replace('table = "contact"', ""), "row.table is missing"),
    ("no key", attribute(GOOD).replace('key = "contactid"', ""), "row.key is missing"),
    ("a key that is no text", attribute(GOOD).replace('"contactid"', "7"), "row.key is missing"),
    ("no attribute", ROW, "no [[attribute]] is given"),
    ("no column", attribute('path = "gender"'), "attribute 1: column is missing"),
    ("no path", attribute('column = "x"'), "attribute 1 (x): path is missing"),
    ("a path that is no text", attribute('column = "x"\npath = 7'), "attribute 1 (x): path is missing"),
    ("a path that is no FHIRPath", attribute('column = "x"\npath = "name..family"'), "attribute 1 (x): not FHIRPath"),
    ("an unknown kind", attribute(f'{GOOD}\nkind = "copied"'), "attribute 1 (x): kind must be one of copy, date, moment, choice, default"),
    ("an unknown rule for long text", attribute(f'{GOOD}\ntoo_long = "fold"'), "attribute 1 (x): too_long must be one of cut, omit"),
    ("an unknown word", attribute(f'{GOOD}\nmaxlength = 7'), "attribute 1 (x): maxlength is unknown"),
    ("a choice without choices", attribute(f'{GOOD}\nkind = "choice"'), "attribute 1 (x): choices are missing"),
    ("a constant without a value", attribute('column = "x"\nkind = "default"'), "a default has a default and no path"),
    ("a constant with a path", attribute(f'{GOOD}\nkind = "default"\ndefault = 1'), "a default has a default and no path"),
    ("a column twice", f"{attribute(GOOD)}[[attribute]]\n{GOOD}", "attribute 2 (x): the column is mapped twice"),
    ("a variable that is no FHIRPath", f'{ROW}[variables]\nv = "("\n[[attribute]]\n{GOOD}', "variables.v: not FHIRPath"),
    ("a variable that is not declared", attribute('column = "x"\npath = "%nmae.family"'), "attribute 1 (x): %nmae"),
    ("a variable that comes later", f'{ROW}[variables]\na = "%b"\nb = "name"\n[[attribute]]\n{GOOD}', "variables.a: %b"),
    ("a path with something left over", attribute('column = "x"\npath = "name.family)"'), "attribute 1 (x): not FHIRPath"),
    ("a path that is not closed", attribute('column = "x"\npath = "name.where(use.empty()"'), "attribute 1 (x): not FHIRPath"),
    ("an empty path", attribute('column = "x"\npath = ""'), "attribute 1 (x): not FHIRPath"),
    ("a variable that is no text", f'{ROW}[variables]\nv = 7\n[[attribute]]\n{GOOD}', "variables.v: path is missing"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "problem"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG]
)
def test_what_is_wrong_in_a_map_is_said(text: str, problem: str) -> None:
    assert problem in problems(text)


SHAPES = [
    ("a row that is text", 'resource = "Patient"\nrow = "contact"'),
    ("variables that are text", 'variables = "name"\n' + attribute(GOOD)),
    ("an attribute that is text", 'resource = "Patient"\nattribute = "x"'),
    ("attributes that are text", 'resource = "Patient"\nattribute = ["x"]'),
    ("one attribute in single brackets", ROW + '[attribute]\ncolumn = "x"\npath = "gender"'),
    ("a kind that is a list", attribute(f'{GOOD}\nkind = ["copy"]')),
    ("choices that are a number", attribute(f'{GOOD}\nkind = "choice"\nchoices = 7')),
    ("an option that is text", attribute(f'{GOOD}\nkind = "choice"\nchoices = {{ a = "one" }}')),
    ("an option list with text", attribute(f'{GOOD}\nkind = "choice"\nchoices = {{ a = ["1"] }}')),
]


@pytest.mark.parametrize("text", [case[1] for case in SHAPES], ids=[case[0] for case in SHAPES])
def test_a_map_in_another_shape_is_an_operators_business_too(text: str) -> None:
    assert problems(text).startswith("patient.toml: ")


@pytest.mark.parametrize("column", ["contactid", "fhirid", "version", "updated"])
def test_a_column_that_keeps_the_books_is_not_mapped(column: str) -> None:
    assert column in problems(attribute(f'column = "{column}"\npath = "gender"'))


def test_all_problems_are_told_together() -> None:
    text = '[row]\ntable = "contact"\n[[attribute]]\ncolumn = "x"\n[[attribute]]\npath = "("'
    told = problems(text)
    for problem in (
        "resource is missing",
        "row.key is missing",
        "row.id_column is missing",
        "attribute 1 (x): path is missing",
        "attribute 2: column is missing",
        "not FHIRPath",
    ):
        assert problem in told


# -- the tenant ----------------------------------------------------------------------------------


def test_columns_that_a_tenant_lacks_are_named() -> None:
    entity = parse(attribute('column = "lastname"\npath = "name.family"'), "patient.toml")
    have = {name: Column(name, "String") for name in ("contactid", "fhirid", "lastname")}
    assert misfits(entity, have) == [
        "contact has no column version",
        "contact has no column updated",
    ]


# -- the maps of this project --------------------------------------------------------------------

MAPS: list[EntityMap] = list(shipped().values())
ATTRIBUTES = [(entity, attribute) for entity in MAPS for attribute in entity.attributes]
NAMES = [f"{entity.table}.{attribute.column}" for entity, attribute in ATTRIBUTES]


def table(entity: EntityMap) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((TABLES / f"{entity.table}.json").read_text("utf-8"))
    return found


def test_every_map_in_the_folder_is_loaded() -> None:
    assert len(MAPS) == len(list(FOLDER.glob("*.toml"))) >= 1
    assert "Patient" in shipped()


def test_maps_are_read_once() -> None:
    assert shipped() is shipped()


@pytest.mark.parametrize("entity", MAPS, ids=lambda entity: entity.resource)
def test_a_map_names_its_table_as_dataverse_does(entity: EntityMap) -> None:
    known = table(entity)
    assert (entity.table, entity.entity_set) == (known["logicalName"], known["entitySet"])
    assert entity.key == known["primaryId"]
    assert [entity.id_column] in [key["columns"] for key in known["keys"]]


@pytest.mark.parametrize("entity", MAPS, ids=lambda entity: entity.resource)
def test_every_column_of_a_map_exists_and_can_be_written(entity: EntityMap) -> None:
    columns = table(entity)["columns"]
    assert [name for name in entity.columns if name not in columns] == []
    assert [name for name in entity.columns if columns[name].get("readOnly")] == []


@pytest.mark.parametrize(("entity", "attribute"), ATTRIBUTES, ids=NAMES)
def test_a_kind_suits_the_type_of_its_column(entity: EntityMap, attribute: AttributeMap) -> None:
    column = table(entity)["columns"][attribute.column]
    suits = {
        Kind.COPY: column["type"] in ("String", "Memo", "Integer", "Decimal", "Boolean"),
        Kind.DATE: column["type"] == "DateTime" and column["behavior"] == "DateOnly",
        Kind.MOMENT: column["type"] == "DateTime" and column["behavior"] != "DateOnly",
        Kind.CHOICE: column["type"] in ("Picklist", "State", "Status"),
        Kind.DEFAULT: True,
    }
    assert suits[attribute.kind]


@pytest.mark.parametrize(("entity", "attribute"), ATTRIBUTES, ids=NAMES)
def test_every_option_of_a_map_is_one_of_its_column(
    entity: EntityMap, attribute: AttributeMap
) -> None:
    column = table(entity)["columns"][attribute.column]
    options = {option["value"] for option in column.get("options", ())}
    for code, wanted in attribute.choices.items():
        assert set(wanted) <= options, code
    if options and attribute.default is not None:
        assert attribute.default in options


@pytest.mark.parametrize(("entity", "attribute"), ATTRIBUTES, ids=NAMES)
def test_text_goes_into_columns_whose_length_is_known(
    entity: EntityMap, attribute: AttributeMap
) -> None:
    column = table(entity)["columns"][attribute.column]
    if column["type"] in ("String", "Memo"):
        assert column["maxLength"] >= 1


@pytest.mark.parametrize(("entity", "attribute"), ATTRIBUTES, ids=NAMES)
def test_what_names_or_reaches_somebody_else_when_cut_is_never_cut(
    entity: EntityMap, attribute: AttributeMap
) -> None:
    column = attribute.column
    exact = ("number", "phone", "fax", "pager", "email", "postalcode")
    if any(word in column for word in exact):
        assert attribute.too_long is TooLong.OMIT
