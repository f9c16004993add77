"""Maps: read once, checked whole, and true to the tables they name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from integration.core.errors import Misconfigured
from integration.mapping import files
from integration.mapping.files import CLINICAL_SET, MAPS_FOLDER, list_map_names
from integration.mapping.load import build_maps, load_maps, load_shipped_maps, parse_map
from integration.mapping.model import (
    AttributeMap,
    ChildRemoval,
    EntityMap,
    Kind,
    LongId,
    LongText,
    Route,
)
from integration.mapping.schema_mismatches import find_schema_mismatches
from tests.mapping.tenant import PREFIX, load_all_columns

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


def write_attribute(text: str) -> str:
    return f"{ROW}\n[[attribute]]\n{text}\n"


def catch_problems(text: str) -> str:
    with pytest.raises(Misconfigured) as caught:
        parse_map(text, "patient.toml")
    return str(caught.value)


# -- reading -------------------------------------------------------------------------------------


def test_a_map_is_read_with_its_row() -> None:
    entity = parse_map(write_attribute('column = "lastname"\npath = "name.family"'), "patient.toml")
    assert (entity.resource, entity.table, entity.entity_set) == ("Patient", "contact", "contacts")
    assert entity.columns == ["contactid", "fhirid", "version", "updated", "lastname"]
    assert (entity.enabled, entity.long_id, entity.kind_value) == (True, LongId.REFUSE, None)


def test_children_are_read_with_the_lines_they_come_from() -> None:
    entity = parse_map(write_attribute(GOOD) + CHILD, "patient.toml")
    (expand,) = entity.expands
    assert (expand.parent, expand.match, expand.remove) == (
        "patient",
        ("value",),
        ChildRemoval.OURS,
    )
    assert (expand.defined_at, expand.attributes[0].defined_at) == (
        "patient.toml:15",
        "patient.toml:22",
    )
    assert entity.attributes[0].defined_at == "patient.toml:11"
    assert entity.tables == ["contact", "identifier"]


def test_the_kind_of_a_map_is_what_its_kind_column_always_says() -> None:
    text = write_attribute('column = "type"\nkind = "default"\ndefault = 7')
    assert (
        parse_map(text.replace("[row]", '[row]\nkind_column = "type"'), "patient.toml").kind_value
        == 7
    )


def test_an_attribute_is_copied_and_cut_unless_it_says_otherwise() -> None:
    entity = parse_map(write_attribute('column = "lastname"\npath = "name.family"'), "patient.toml")
    assert entity.attributes == (
        AttributeMap(column="lastname", kind=Kind.COPY, path="name.family"),
    )
    assert entity.attributes[0].too_long is LongText.CUT


def test_an_option_may_stand_alone_or_in_a_list() -> None:
    text = 'column = "g"\npath = "gender"\nkind = "choice"\nchoices = { male = 1, other = [9, 3] }'
    (found,) = parse_map(write_attribute(text), "patient.toml").attributes
    assert found.choices == {"male": (1,), "other": (9, 3)}


def test_variables_are_kept_in_their_order() -> None:
    text = ROW + '[variables]\nb = "name"\na = "%b.first()"\n'
    entity = parse_map(f'{text}[[attribute]]\ncolumn = "x"\npath = "%a.family"', "patient.toml")
    assert list(entity.variables) == ["b", "a"]


# -- problems ------------------------------------------------------------------------------------

GOOD = 'column = "x"\npath = "gender"'

CHILD = """
[[expand]]
path = "identifier"
table = "identifier"
entity_set = "identifiers"
key = "identifierid"
parent = "patient"
match = ["value"]
[[expand.attribute]]
column = "value"
path = "value"
"""


def write_child(old: str, new: str) -> str:
    assert old in CHILD
    return write_attribute(GOOD) + CHILD.replace(old, new)


WRONG = [
    ("no TOML", "resource = ", "patient.toml: "),
    ("an empty file", "", "resource is missing"),
    ("no resource", write_attribute(GOOD).replace('resource = "Patient"', ""), "resource is missing"),
    ("no table", write_attribute(GOOD).replace('table = "contact"', ""), "patient.toml:3: row.table is missing"),
    ("no key", write_attribute(GOOD).replace('key = "contactid"', ""), "row.key is missing"),
    ("a key that is no text", write_attribute(GOOD).replace('"contactid"', "7"), "row.key must be text in quotes"),
    ("an unknown word for the row", write_attribute(GOOD).replace("[row]", "[row]\nid = 1"), "patient.toml:3: row.id is no key of [row]; the keys are create, "),
    ("an unknown word for the map", f"sets = 1\n{write_attribute(GOOD)}", "patient.toml:1: sets is no key of a map; the keys are attribute, "),
    ("a switch that is no boolean", f'enabled = "no"\n{write_attribute(GOOD)}', "patient.toml:1: enabled must be true or false"),
    ("an unknown rule for long ids", write_attribute(GOOD).replace("[row]", '[row]\nlong_id = "cut"'), "long_id must be one of refuse, digest"),
    ("a kind column that is no constant", write_attribute(GOOD).replace("[row]", '[row]\nkind_column = "x"'), "patient.toml:3: row.kind_column must name a column of kind default"),
    ("no attribute", ROW, "the map has no [[attribute]]; add at least one"),
    ("no column", write_attribute('path = "gender"'), "patient.toml:11: attribute: column is missing"),
    ("no path", write_attribute('column = "x"'), "patient.toml:11: x: path is missing"),
    ("a path that is no text", write_attribute('column = "x"\npath = 7'), "x: path is missing"),
    ("a path that is no FHIRPath", write_attribute('column = "x"\npath = "name..family"'), "patient.toml:11: x: not valid FHIRPath at column 6"),
    ("an unknown function", write_attribute('column = "x"\npath = "name.frist()"'), "x: FHIRPath has no function frist()"),
    ("a function of time", write_attribute('column = "x"\npath = "today()"'), "x: a map may not use the function today()"),
    ("a function that prints", write_attribute('column = "x"\npath = "name.trace(\'n\')"'), "x: a map may not use the function trace()"),
    ("an unknown kind", write_attribute(f'{GOOD}\nkind = "copied"'), "x: kind must be one of copy, date, datetime, choice, default, lookup, concept"),
    ("an unknown rule for long text", write_attribute(f'{GOOD}\ntoo_long = "fold"'), "x: too_long must be one of cut, omit"),
    ("an unknown rule for partial dates", write_attribute(f'{GOOD}\nkind = "date"\npartial = "guess"'), "x: partial must be one of omit, first, last"),
    ("a word of another kind", write_attribute(f'{GOOD}\npartial = "first"'), "x: partial is not for kind copy; remove it, or change the kind"),
    ("an unknown word", write_attribute(f'{GOOD}\nmaxlength = 7'), "patient.toml:11: x: maxlength is no key of an attribute; the keys are absent, column, "),
    ("a sort by text", write_attribute(f'{GOOD}\nsearch = "x"\nsort = true'), "x: sort is for kind date and datetime alone; remove it"),
    ("a sort by last days", write_attribute(f'{GOOD}\nkind = "date"\npartial = "last"\nsearch = "x"\nsort = true'), 'x: sort is not for partial = "last"'),
    ("a search by text of a choice", write_attribute(f'{GOOD}\nkind = "choice"\nchoices = {{ a = 1 }}\nsearch = "x"\nsearch_type = "text"'), "x: search_type text is for a copied text alone"),
    ("an exact search by text", write_attribute(f'{GOOD}\nsearch = "x"\nsearch_type = "text"\nexact = true'), "x: exact is not for search_type text"),
    ("a patient by another lookup", f'{ROW}patient_lookup = "x"\n[[attribute]]\n{GOOD}', "row.patient_lookup must name a lookup of a Patient that has a search"),
    ("newest by a number", f"{ROW}newest_by = 1\n[[attribute]]\n{GOOD}", "row.newest_by must name a search parameter in quotes"),
    ("a choice without choices", write_attribute(f'{GOOD}\nkind = "choice"'), "x: choices are missing"),
    ("a constant without a value", write_attribute('column = "x"\nkind = "default"'), "x: default is missing"),
    ("a constant with a path", write_attribute(f'{GOOD}\nkind = "default"\ndefault = 1'), "x: path is not for kind default"),
    ("a default of many values", write_attribute(f'{GOOD}\ndefault = [1]'), "x: default must be one value"),
    ("a lookup with a default", write_attribute(f'{GOOD}\nkind = "lookup"\ndefault = "1"'), "x: default is not for kind lookup; remove it"),
    ("a concept without a type", write_attribute(f'{GOOD}\nkind = "concept"'), "x: concept must be a whole number, the msemr_type of the concepts"),
    ("a column twice", f"{write_attribute(GOOD)}[[attribute]]\n{GOOD}", "patient.toml:14: x: the column is mapped already; remove one of the attributes"),
    ("a variable that is no FHIRPath", f'{ROW}[variables]\nv = "("\n[[attribute]]\n{GOOD}', "patient.toml:11: variables.v: not valid FHIRPath"),
    ("a variable that is not declared", write_attribute('column = "x"\npath = "%nmae.family"'), "x: the variable %nmae is not defined above; define it in [variables]"),
    ("a variable that comes later", f'{ROW}[variables]\na = "%b"\nb = "name"\n[[attribute]]\n{GOOD}', "variables.a: the variable %b is not defined above"),
    ("a variable that FHIRPath has", f'{ROW}[variables]\nresource = "name"\n[[attribute]]\n{GOOD}', "variables.resource: there is a variable %resource already; choose another name"),
    ("a path with something left over", write_attribute('column = "x"\npath = "name.family)"'), "x: not valid FHIRPath"),
    ("a path that is not closed", write_attribute('column = "x"\npath = "name.where(use.empty()"'), "x: not valid FHIRPath"),
    ("an empty path", write_attribute('column = "x"\npath = ""'), "x: not valid FHIRPath"),
    ("a variable that is no text", f'{ROW}[variables]\nv = 7\n[[attribute]]\n{GOOD}', "variables.v: path is missing"),
    ("a rest that is text", 'rest = "photo"\n' + write_attribute(GOOD), "patient.toml: rest must be a table, [rest]"),
    ("a rest of no element", f'{ROW}[rest]\nName = "name"\n[[attribute]]\n{GOOD}', "patient.toml:11: rest.Name: this is not the name of an element"),
    ("a rest of parts without quotes", f'{ROW}[rest]\ncontact.name = "photo"\n[[attribute]]\n{GOOD}', 'rest.contact: put a name with dots in quotes: "contact.name"'),
    ("a rest that is no FHIRPath", f'{ROW}[rest]\n"contact.name" = "("\n[[attribute]]\n{GOOD}', "patient.toml:11: rest.contact.name: not valid FHIRPath"),
    ("a rest of no variable", f'{ROW}[rest]\nname = "%no"\n[[attribute]]\n{GOOD}', "patient.toml:11: rest.name: the variable %no is not defined above"),
    ("a rest that is a number", f'{ROW}[rest]\nname = 7\n[[attribute]]\n{GOOD}', "patient.toml:11: rest.name: path is missing"),
    ("children without a parent", write_child('parent = "patient"', ""), "patient.toml:15: identifier: parent is missing"),
    ("children from no FHIRPath", write_child('path = "identifier"', 'path = "("'), "patient.toml:15: identifier: not valid FHIRPath"),
    ("children that cannot be told apart", write_child('match = ["value"]', ""), "identifier: match must list the columns"),
    ("children told apart by what is not mapped", write_child('match = ["value"]', 'match = ["use"]'), "identifier: match names use, which no attribute maps"),
    ("an unknown rule for left-over children", write_child('match = ["value"]', 'match = ["value"]\nremove = "some"'), "identifier: remove must be one of all, ours, never"),
    ("an unknown word for children", write_child('match = ["value"]', 'match = ["value"]\nname = 1'), "identifier: name is no key of [[expand]]"),
    ("children without columns", write_attribute(GOOD) + CHILD.partition("[[expand.a")[0], "identifier: it has no [[expand.attribute]]; add at least one below it"),
    ("a child's column that says whose it is", write_child('column = "value"', 'column = "patient"'), "patient.toml:22: patient: the mirror fills this column itself; remove the attribute"),
    ("a child's column without a path", write_child('path = "value"', ""), "patient.toml:22: value: path is missing"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "problem"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG]
)
def test_what_is_wrong_in_a_map_is_reported(text: str, problem: str) -> None:
    assert problem in catch_problems(text)


SHAPES = [
    ("a row that is text", 'resource = "Patient"\nrow = "contact"'),
    ("variables that are text", 'variables = "name"\n' + write_attribute(GOOD)),
    ("an attribute that is text", 'resource = "Patient"\nattribute = "x"'),
    ("attributes that are text", 'resource = "Patient"\nattribute = ["x"]'),
    ("one attribute in single brackets", ROW + '[attribute]\ncolumn = "x"\npath = "gender"'),
    ("a kind that is a list", write_attribute(f'{GOOD}\nkind = ["copy"]')),
    ("choices that are a number", write_attribute(f'{GOOD}\nkind = "choice"\nchoices = 7')),
    (
        "an option that is text",
        write_attribute(f'{GOOD}\nkind = "choice"\nchoices = {{ a = "one" }}'),
    ),
    (
        "an option list with text",
        write_attribute(f'{GOOD}\nkind = "choice"\nchoices = {{ a = ["1"] }}'),
    ),
]


@pytest.mark.parametrize("text", [case[1] for case in SHAPES], ids=[case[0] for case in SHAPES])
def test_a_map_in_another_shape_is_reported_too(text: str) -> None:
    assert catch_problems(text).startswith("patient.toml:")


@pytest.mark.parametrize("column", ["contactid", "fhirid", "version", "updated"])
def test_a_column_that_says_which_resource_a_row_shows_is_not_mapped(column: str) -> None:
    assert column in catch_problems(write_attribute(f'column = "{column}"\npath = "gender"'))


def test_all_problems_are_reported_together() -> None:
    text = '[row]\ntable = "contact"\n[[attribute]]\ncolumn = "x"\n[[attribute]]\npath = "("'
    problems = catch_problems(text)
    for problem in (
        "resource is missing",
        "row.key is missing",
        "row.id_column is missing",
        "patient.toml:3: x: path is missing",
        "patient.toml:5: attribute: column is missing",
        "not valid FHIRPath",
    ):
        assert problem in problems


# -- folders -------------------------------------------------------------------------------------


def write_own_maps(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text, "utf-8")
    return folder


def list_mirrored(entities: Mapping[str, EntityMap]) -> list[str]:
    """Those of a set, without those of every set, which are virtual."""
    return sorted(name for name, entity in entities.items() if entity.routes[0] is Route.DATAVERSE)


def test_only_maps_that_are_enabled_are_in_use() -> None:
    assert (
        list_mirrored(load_maps("healthcare").entities)
        == list_mirrored(load_shipped_maps())
        == ["Patient"]
    )
    found = load_maps("healthcare", None, None, ["practitioner", "organization.toml"])
    assert list_mirrored(found.entities) == ["Organization", "Patient", "Practitioner"]


def test_a_map_that_nobody_has_cannot_be_enabled() -> None:
    with pytest.raises(Misconfigured, match="there is no map cook, nurse to enable"):
        load_maps("healthcare", None, None, ["nurse", "cook"])


def test_an_organisations_own_file_replaces_the_one_of_the_same_name(tmp_path: Path) -> None:
    found = load_maps("healthcare", None, write_own_maps(tmp_path, patient=write_attribute(GOOD)))
    assert [item.column for item in found.entities["Patient"].attributes] == ["x"]
    assert found.broken == {}


def test_maps_that_are_not_in_use_are_known_for_the_sake_of_lookups() -> None:
    found = load_maps("healthcare", PREFIX, enabled=["organization"])
    load_every_map = load_maps("healthcare", PREFIX, enabled=list_map_names("healthcare"))
    assert list_mirrored(found.entities) == ["Organization", "Patient"]
    assert (
        found.available.keys() == load_every_map.entities.keys() == load_every_map.available.keys()
    )
    assert (
        found.available["Practitioner"].kind_value
        == load_every_map.entities["Practitioner"].kind_value
    )
    assert found.available["Patient"] is found.entities["Patient"]


def test_a_file_that_is_named_wants_the_prefix_too() -> None:
    found = load_maps("healthcare", enabled=["us_core"])
    assert found.broken == {"Patient": "us_core.toml:15: {prefix} is not set: set MAP_PREFIX"}


def test_a_map_in_use_goes_before_an_idle_one_of_the_same_resource(tmp_path: Path) -> None:
    text = write_attribute(GOOD).replace('"Patient"', '"Practitioner"')
    found = load_maps("healthcare", None, write_own_maps(tmp_path, doctors=text))
    assert found.broken == {}
    assert found.available["Practitioner"].file == "doctors.toml"


@pytest.mark.parametrize(
    "text", ["enabled = false\n", 'enabled = false\n[attribute]\npath = "{prefix}"']
)
def test_a_broken_map_that_is_not_in_use_stops_nothing(tmp_path: Path, text: str) -> None:
    found = load_maps(
        "healthcare",
        None,
        write_own_maps(tmp_path, practitioner=f'resource = "Practitioner"\n{text}'),
    )
    assert found.broken == {}
    assert "Practitioner" not in found.available


def test_what_is_in_use_is_reported_before_any_map_is_understood(tmp_path: Path) -> None:
    broken = write_own_maps(
        tmp_path, group="nothing", device='resource = "Device"', x='resource = "X"\nenabled = false'
    )
    read = files.read_map_files("healthcare", None, broken, ["us_core"])
    tables = files.list_tables(read)
    assert tables.keys() - load_shipped_maps().keys() == {"Group"}
    assert tables["Group"].routes == tables["Device"].routes == ("dataverse",)
    assert tables["Observation"].routes == ("virtual", "dataverse")
    found = build_maps(read)
    assert tables.keys() == {*found.entities, *found.broken}


def test_an_organisations_further_file_is_a_further_map(tmp_path: Path) -> None:
    group = write_attribute(GOOD).replace('"Patient"', '"Group"')
    found = load_maps("healthcare", None, write_own_maps(tmp_path, group=group))
    assert list_mirrored(found.entities) == ["Group", "Patient"]
    assert "group" in list_map_names("healthcare", tmp_path)


def test_a_folder_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="your own maps does not exist"):
        load_maps("healthcare", None, tmp_path / "none")


def test_a_set_that_is_not_there_is_reported() -> None:
    with pytest.raises(Misconfigured, match="no set of maps called vegetarian"):
        load_maps("vegetarian")


@pytest.mark.parametrize(
    "text", ['resource = "Group"\n[row', 'resource = "Group"\n', "nothing at all"]
)
def test_a_broken_map_stops_its_own_resource_and_no_other(tmp_path: Path, text: str) -> None:
    found = load_maps("healthcare", None, write_own_maps(tmp_path, group=text))
    assert list_mirrored(found.entities) == ["Patient"]
    assert list(found.broken) == ["Group"]
    assert found.broken["Group"].startswith("group.toml:")


def test_two_maps_of_one_resource_stop_it(tmp_path: Path) -> None:
    found = load_maps("healthcare", None, write_own_maps(tmp_path, patient2=write_attribute(GOOD)))
    assert list_mirrored(found.entities) == []
    assert found.broken == {
        "Patient": "patient.toml and patient2.toml both map Patient: remove one of them"
    }


def test_a_third_map_of_one_resource_stops_it_too(tmp_path: Path) -> None:
    found = load_maps(
        "healthcare",
        None,
        write_own_maps(tmp_path, a=write_attribute(GOOD), b=write_attribute(GOOD)),
    )
    assert list_mirrored(found.entities) == []


def test_the_publishers_prefix_is_filled_in(tmp_path: Path) -> None:
    text = write_attribute('column = "{prefix}_x"\npath = "gender"')
    folder = write_own_maps(tmp_path, patient=text)
    (found,) = load_maps("healthcare", "contoso", folder).entities["Patient"].attributes
    assert found.column == "contoso_x"
    assert load_maps("healthcare", None, folder).broken == {
        "Patient": "patient.toml:12: {prefix} is not set: set MAP_PREFIX"
    }


ADDS = 'adds_to = "Patient"\n[[attribute]]\ncolumn = "y"\npath = "gender"\n'


def test_a_file_may_add_to_a_map(tmp_path: Path) -> None:
    text = f'{ADDS}{CHILD}[variables]\nmore = "%v.first()"\n'
    base = f'{ROW}[variables]\nv = "name"\n[[attribute]]\n{GOOD}'
    found = load_maps("healthcare", None, write_own_maps(tmp_path, patient=base, more=text))
    assert found.broken == {}
    entity = found.entities["Patient"]
    assert [item.defined_at for item in entity.attributes] == ["patient.toml:12", "more.toml:2"]
    assert [item.defined_at for item in entity.expands] == ["more.toml:6"]
    assert list(entity.variables) == ["v", "more"]
    assert entity.file == "patient.toml, more.toml"


REST = '[rest]\nphoto = "photo"\n"contact.name" = "contact.name"\n'


def test_a_map_says_what_it_has_no_columns_for() -> None:
    entity = parse_map(f"{ROW}{REST}[[attribute]]\n{GOOD}", "patient.toml")
    assert [
        (element.element, element.path, element.defined_at) for element in entity.unmapped_elements
    ] == [
        ("photo", "photo", "patient.toml:11"),
        ("contact.name", "contact.name", "patient.toml:12"),
    ]


def test_a_file_that_adds_columns_says_what_is_left_then(tmp_path: Path) -> None:
    """Alone, it silences a note that nobody wants."""
    base = f"{ROW}{REST}[[attribute]]\n{GOOD}"
    text = 'adds_to = "Patient"\n[rest]\nphoto = "{}"\nlink = "link"\n'
    found = load_maps("healthcare", None, write_own_maps(tmp_path, patient=base, more=text))
    assert [
        (element.element, element.defined_at)
        for element in found.entities["Patient"].unmapped_elements
    ] == [
        ("contact.name", "patient.toml:12"),
        ("photo", "more.toml:3"),
        ("link", "more.toml:4"),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (ADDS.replace('"y"', '"x"'), "more.toml:2: x: patient.toml maps the column already"),
        (
            ADDS.replace('"y"', '"fhirid"'),
            "more.toml:2: fhirid: patient.toml maps the column already",
        ),
        (ADDS.replace("gender", "%no"), "more.toml:2: y: the variable %no is not defined above"),
        (
            ADDS + '[variables]\nv = "name"',
            "more.toml:6: variables.v: there is a variable %v already",
        ),
        (ADDS + "[row]\n", "more.toml:5: row is no key of a map"),
        ('adds_to = "Patient"', "more.toml: the map has no [[attribute]]; add at least one"),
        (
            ADDS.replace("Patient", "Group"),
            "more.toml: there is no map of Group that it could add to",
        ),
    ],
)
def test_an_addition_that_does_not_fit_stops_its_resource(
    tmp_path: Path, text: str, problem: str
) -> None:
    base = f'{ROW}[variables]\nv = "name"\n[[attribute]]\n{GOOD}'
    found = load_maps("healthcare", None, write_own_maps(tmp_path, patient=base, more=text))
    assert problem in "".join(found.broken.values())


# -- the maps of this project --------------------------------------------------------------------


def load_every_map(set_: str) -> list[EntityMap]:
    found = load_maps(set_, PREFIX, None, list_map_names(set_))
    assert found.broken == {}
    return [found.entities[name] for name in list_mirrored(found.entities)]


MAPS = [(set_, entity) for set_ in ("healthcare", "plain") for entity in load_every_map(set_)]
MAP_IDS = [f"{set_}: {entity.resource}" for set_, entity in MAPS]
ATTRIBUTES = [
    (table, attribute)
    for _, entity in MAPS
    for table, attributes in [
        (entity.table, entity.attributes),
        *((expand.table, expand.attributes) for expand in entity.expands),
    ]
    for attribute in attributes
]
NAMES = [f"{attribute.defined_at} {table}.{attribute.column}" for table, attribute in ATTRIBUTES]


def test_every_set_maps_the_people_and_organisations_that_patients_refer_to() -> None:
    for set_ in ("healthcare", "plain"):
        mapped = {entity.resource for entity in load_every_map(set_)}
        assert mapped == {"Patient", "Practitioner", "RelatedPerson", "Organization"}
        stems = [
            item.stem
            for name in (set_, CLINICAL_SET)
            for item in sorted((MAPS_FOLDER / name).glob("*.toml"))
        ]
        assert stems == list_map_names(set_)


def test_maps_are_read_once() -> None:
    assert load_shipped_maps() is load_shipped_maps()


@pytest.mark.parametrize(("set_", "entity"), MAPS, ids=MAP_IDS)
def test_a_map_fits_the_tables_of_the_stand_in(set_: str, entity: EntityMap) -> None:
    # An organisation without the healthcare solution has no such column; the stand-in has both.
    both = "contact.msemr_contacttype is required"
    custom = (f"{PREFIX}_race", f"{PREFIX}_ethnicity", f"{PREFIX}_birthsex")
    wrong = [
        item
        for item in find_schema_mismatches(entity, load_all_columns())
        if not item.endswith(custom)
    ]
    assert [item for item in wrong if set_ == "healthcare" or both not in item] == []


@pytest.mark.parametrize(("table", "attribute"), ATTRIBUTES, ids=NAMES)
def test_what_names_or_reaches_somebody_else_when_cut_is_never_cut(
    table: str, attribute: AttributeMap
) -> None:
    exact = ("number", "phone", "fax", "pager", "email", "postalcode", "identifier", "value")
    is_text = attribute.kind is Kind.COPY and table != "account" and attribute.path != "%bar"
    if is_text and any(word in attribute.column for word in exact):
        assert attribute.too_long is LongText.OMIT
