"""The rules of the engine: what fits a column, and what is noted."""

from __future__ import annotations

from copy import deepcopy
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.errors import Unmappable
from integration.core.model import Column
from integration.mapping.engine import map_resource
from integration.mapping.load import load_shipped_maps, parse_map
from integration.mapping.model import Concept, Lookup, MappedRows
from integration.mapping.primary_keys import derive_primary_key, fit_fhir_id
from tests.builders import TODAY
from tests.mapping.tenant import load_all_columns
from tests.randomness import limit_examples

MARKER = "Zzyzx"

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
MAP = parse_map(f'{ROW}[[attribute]]\ncolumn = "a"\npath = "gender"', "map.toml")

COLUMNS = {
    "fhirid": Column("fhirid", "String", max_length=10),
    "version": Column("version", "String", max_length=50),
    "updated": Column("updated", "DateTime"),
}


def map_patient(attribute: str, column: Column, meta: Any = None, **elements: Any) -> MappedRows:
    """A patient by a map of one column, called `a`."""
    entity = parse_map(f'{ROW}[[attribute]]\ncolumn = "a"\n{attribute}', "map.toml")
    resource = {"resourceType": "Patient", "id": "1", "meta": meta or {}, **elements}
    return map_resource(entity, resource, {"contact": {**COLUMNS, "a": column}}, today=TODAY)


def get_value(found: MappedRows) -> Any:
    """The value of the column, of which nothing was noted."""
    assert found.notes == ()
    return found.values["a"]


def get_note(found: MappedRows) -> str:
    """The one note, without the path it ends with."""
    (text,) = found.notes
    return text.partition(" @ ")[0]


TEXT = Column("a", "String", max_length=5)
NAME = 'path = "name.family"'


def build_names(*families: Any) -> list[dict[str, Any]]:
    return [{"family": family} for family in families]


# -- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "kept"),
    [("Ada", "Ada"), ("Adaaa", "Adaaa"), (" Ada\n", "Ada"), ("", None), ("  ", None)],
)
def test_text_that_fits_is_kept_without_the_blanks_around_it(family: str, kept: Any) -> None:
    assert get_value(map_patient(NAME, TEXT, name=build_names(family))) == kept


def test_text_that_is_too_long_is_cut_and_noted() -> None:
    found = map_patient(NAME, TEXT, name=build_names("Sampleton"))
    assert found.values["a"] == "Sampl"
    assert get_note(found) == "a: the text is longer than 5 characters and was cut"


def test_text_that_must_not_be_cut_is_left_out_and_noted() -> None:
    found = map_patient(f'{NAME}\ntoo_long = "omit"', TEXT, name=build_names("Sampleton"))
    assert found.values["a"] is None
    assert get_note(found) == "a: the text is longer than 5 characters and was left out"


@pytest.mark.parametrize("type_", ["String", "Memo"])
def test_text_without_a_limit_is_never_cut(type_: str) -> None:
    assert (
        get_value(map_patient(NAME, Column("a", type_), name=build_names("S" * 9000))) == "S" * 9000
    )


def test_a_note_names_column_path_and_line_of_the_map() -> None:
    found = map_patient(NAME, TEXT, name=build_names("Sampleton"))
    assert found.notes == (
        "a: the text is longer than 5 characters and was cut @ name.family (map.toml:10)",
    )


def test_a_number_stays_a_number_in_a_column_of_numbers() -> None:
    count = map_patient('path = "multipleBirth"', Column("a", "Integer"), multipleBirthInteger=2)
    assert get_value(count) == 2


def test_a_boolean_stays_one_in_a_boolean_column() -> None:
    assert get_value(map_patient('path = "active"', Column("a", "Boolean"), active=False)) is False


# -- how many ------------------------------------------------------------------------------------


def test_an_absent_element_clears_its_column() -> None:
    assert get_value(map_patient(NAME, TEXT)) is None


def test_an_absent_element_takes_the_default_where_there_is_one() -> None:
    assert get_value(map_patient(f'{NAME}\ndefault = "none"', TEXT)) == "none"


def test_more_than_one_value_is_noted_and_the_first_taken() -> None:
    found = map_patient(NAME, TEXT, name=build_names("Ada", "Bea"))
    assert found.values["a"] == "Ada"
    assert get_note(found) == "a: more than one value; the first was taken"


def test_a_path_that_ends_at_no_primitive_is_noted() -> None:
    found = map_patient('path = "name"', TEXT, name=build_names("Ada"))
    assert found.values["a"] is None
    assert get_note(found) == "a: the path does not end at a primitive value"


def test_a_path_that_fails_is_noted_by_the_kind_of_failure() -> None:
    found = map_patient("path = \"name.family.join('-')\"", TEXT, name=build_names(7))
    assert found.values["a"] is None
    assert get_note(found).startswith("a: the path could not be evaluated (")


def test_a_path_that_fails_takes_the_default_where_there_is_one() -> None:
    found = map_patient(
        'path = "name.family.join(\'-\')"\ndefault = "none"', TEXT, name=build_names(7)
    )
    assert found.values["a"] == "none"


def test_one_bad_column_costs_no_other() -> None:
    entity = parse_map(
        f'{ROW}[[attribute]]\ncolumn = "a"\npath = "birthDate"\nkind = "date"\n'
        '[[attribute]]\ncolumn = "b"\npath = "name.family"',
        "map.toml",
    )
    resource = {
        "resourceType": "Patient",
        "id": "1",
        "birthDate": "1980",
        "name": build_names("Ada"),
    }
    columns = {**COLUMNS, "a": Column("a", "DateTime"), "b": TEXT}
    found = map_resource(entity, resource, {"contact": columns}, today=TODAY)
    assert (found.values["a"], found.values["b"]) == (None, "Ada")
    assert len(found.notes) == 1


@pytest.mark.parametrize("given", [[None, "Bea"], ["Ada", None], [None]])
def test_a_null_beside_an_extension_never_becomes_text(given: list[Any]) -> None:
    extended = [None if text else {"extension": [{"url": "u"}]} for text in given]
    name = [{"given": given, "_given": extended}]
    for path in ("name.given", "name.given.first()", "name.given.join(' ')"):
        found = map_patient(f'path = "{path}"', TEXT, name=name)
        assert found.values["a"] in ("Ada", "Bea", None)


def test_extensions_of_lines_are_no_further_lines() -> None:
    line = {"line": ["One", "Two"], "_line": [{"extension": [{"url": "u"}]}, None]}
    assert (
        get_value(map_patient("path = \"address.line.skip(2).join(', ')\"", TEXT, address=[line]))
        is None
    )


def test_a_resource_is_not_changed_by_being_mapped() -> None:
    resource = {
        "resourceType": "Patient",
        "id": "1",
        "name": [{"given": [None, "B"], "_given": []}],
    }
    before = deepcopy(resource)
    map_resource(MAP, resource, {"contact": {**COLUMNS, "a": TEXT}}, today=TODAY)
    assert resource == before


# -- choices -------------------------------------------------------------------------------------

GENDER = 'path = "gender"\nkind = "choice"\nchoices = { male = 1, other = [9, 3] }'


@pytest.mark.parametrize(
    ("gender", "options", "option"),
    [("male", {1, 2}, 1), ("other", {1, 3, 9}, 9), ("other", {1, 3}, 3), ("other", None, 9)],
)
def test_a_code_becomes_the_first_of_its_options_that_the_column_has(
    gender: str, options: set[int] | None, option: int
) -> None:
    column = Column("a", "Picklist", options=frozenset(options) if options else None)
    assert get_value(map_patient(GENDER, column, gender=gender)) == option


@pytest.mark.parametrize(("gender", "options"), [("female", {1, 2}), ("other", {1, 2}), ("", {1})])
def test_a_code_without_an_option_is_noted(gender: str, options: set[int]) -> None:
    column = Column("a", "Picklist", options=frozenset(options))
    found = map_patient(GENDER, column, gender=gender)
    assert found.values["a"] is None
    assert get_note(found) == "a: the code has no option in this column"


@pytest.mark.parametrize(("active", "option"), [(True, 0), (False, 1)])
def test_a_truth_is_a_code_too(active: bool, option: int) -> None:
    choices = 'path = "active"\nkind = "choice"\nchoices = { true = 0, false = 1 }'
    assert get_value(map_patient(choices, Column("a", "State"), active=active)) == option


def test_a_constant_is_written_whatever_the_resource_says() -> None:
    assert get_value(map_patient('kind = "default"\ndefault = 7', Column("a", "Picklist"))) == 7


# -- dates and instants --------------------------------------------------------------------------

DAY = 'path = "birthDate"\nkind = "date"'
MOMENT = 'path = "deceased"\nkind = "datetime"'


@pytest.mark.parametrize(
    ("date", "day"),
    [("1980-05-06", "1980-05-06"), ("1980-05-06T23:59:59-11:00", "1980-05-06")],
)
def test_a_date_is_the_day_that_is_written(date: str, day: str) -> None:
    assert get_value(map_patient(DAY, Column("a", "DateTime"), birthDate=date)) == day


@pytest.mark.parametrize("date", ["1980", "1980-05"])
def test_a_date_that_is_incomplete_is_noted_and_not_mapped(date: str) -> None:
    found = map_patient(DAY, Column("a", "DateTime"), birthDate=date)
    assert found.values["a"] is None
    assert get_note(found) == "a: the date is incomplete"


@pytest.mark.parametrize("date", ["6.5.1980", "1980-5-6", "19800506", "soon", "", "1980-05-06 "])
def test_what_is_no_date_is_noted_and_not_mapped(date: str) -> None:
    found = map_patient(DAY, Column("a", "DateTime"), birthDate=date)
    assert found.values["a"] is None
    assert get_note(found) == "a: the value is not a date"


@pytest.mark.parametrize(
    ("instant", "utc"),
    [
        ("2024-05-06T07:08:09Z", "2024-05-06T07:08:09Z"),
        ("2024-05-06T07:08:09.999+02:00", "2024-05-06T05:08:09Z"),
        ("2024-05-06T23:00:00-11:00", "2024-05-07T10:00:00Z"),
    ],
)
def test_an_instant_is_stored_in_utc(instant: str, utc: str) -> None:
    assert get_value(map_patient(MOMENT, Column("a", "DateTime"), deceasedDateTime=instant)) == utc


@pytest.mark.parametrize(
    "instant", ["2024", "2024-05", "2024-05-06", "2024-05-06T07:08:09", "soon"]
)
def test_an_instant_that_is_incomplete_is_noted(instant: str) -> None:
    found = map_patient(MOMENT, Column("a", "DateTime"), deceasedDateTime=instant)
    assert found.values["a"] is None
    assert get_note(found).startswith("a: ")
    assert "instant" in get_note(found)


def test_an_instant_before_all_calendars_is_noted() -> None:
    found = map_patient(
        MOMENT, Column("a", "DateTime"), deceasedDateTime="0001-01-01T00:00:00+14:00"
    )
    assert found.values["a"] is None
    assert len(found.notes) == 1


# -- variables -----------------------------------------------------------------------------------


def test_a_variable_may_use_an_earlier_one() -> None:
    variables = '[variables]\nmine = "name.where(use = \'usual\')"\nfirst = "%mine.first()"\n'
    text = f'{ROW}{variables}[[attribute]]\ncolumn = "a"\npath = "%first.family"'
    resource = {
        "resourceType": "Patient",
        "id": "1",
        "name": [{"family": "Bea"}, {"use": "usual", "family": "Ada"}],
    }
    columns = {**COLUMNS, "a": TEXT}
    assert (
        get_value(
            map_resource(parse_map(text, "map.toml"), resource, {"contact": columns}, today=TODAY)
        )
        == "Ada"
    )


def test_a_variable_that_fails_costs_its_columns_and_no_other() -> None:
    text = (
        f"{ROW}[variables]\nall = \"name.family.join('-')\"\n"
        '[[attribute]]\ncolumn = "a"\npath = "%all"\n'
        '[[attribute]]\ncolumn = "b"\npath = "gender"'
    )
    resource = {"resourceType": "Patient", "id": "1", "name": build_names(7), "gender": "male"}
    columns = {**COLUMNS, "a": TEXT, "b": Column("b", "String")}
    found = map_resource(parse_map(text, "map.toml"), resource, {"contact": columns}, today=TODAY)
    assert (found.values["a"], found.values["b"]) == (None, "male")
    assert len(found.notes) == 1


# -- what no row shows ----------------------------------------------------------------------------

REST = """
[rest]
name = "name.exclude(name.first())"
"contact.telecom" = "contact.telecom"
"""


def list_unmapped(entity: str, **elements: Any) -> tuple[str, ...]:
    text = f'{ROW}{entity}\n[[attribute]]\ncolumn = "a"\npath = "gender"'
    resource = {"resourceType": "Patient", "id": "1", **elements}
    return map_resource(
        parse_map(text, "map.toml"), resource, {"contact": {**COLUMNS, "a": TEXT}}, today=TODAY
    ).notes


def test_what_there_is_no_column_for_is_counted_and_noted_with_path_and_line() -> None:
    contact = [{"telecom": [{"value": MARKER}, {"value": MARKER * 2}]}, {}]
    assert list_unmapped(REST, name=build_names("Ada", "Bea", "Cea"), contact=contact) == (
        "name: 2 more than the map has columns for @ name.exclude(name.first()) (map.toml:12)",
        "contact.telecom: 2 more than the map has columns for @ contact.telecom (map.toml:13)",
    )
    assert list_unmapped(REST, name=build_names("Ada")) == ()


def test_a_rest_that_cannot_be_found_costs_no_row() -> None:
    rest = "[rest]\nname = \"name.family.join('-')\""
    (noted,) = list_unmapped(rest, name=build_names(7))
    assert noted.startswith("name: the path could not be evaluated (")


@pytest.mark.parametrize(
    ("elements", "notes"),
    [
        (
            {"deceasedBoolean": False, "deceasedDateTime": "2024"},
            ("deceased: deceasedBoolean and deceasedDateTime contradict each other @ deceased[x]",),
        ),
        ({"deceasedBoolean": False, "multipleBirthInteger": 2}, ()),
        ({"deceasedBoolean": None, "deceasedDateTime": "2024"}, ()),
    ],
)
def test_an_element_that_comes_in_two_forms_is_noted(
    elements: dict[str, Any], notes: tuple[str, ...]
) -> None:
    assert list_unmapped("", **elements) == notes


@pytest.mark.parametrize(
    ("gender", "notes"),
    [("male", ()), (None, ("a: the column is required and has no value @ gender (map.toml:10)",))],
)
def test_a_column_that_dataverse_demands_is_noted_where_it_stays_empty(
    gender: Any, notes: tuple[str, ...]
) -> None:
    column = Column("a", "String", max_length=5, required=True, enforced=True)
    assert map_patient('path = "gender"', column, gender=gender).notes == notes


# -- which row, which version --------------------------------------------------------------------


def test_a_row_says_which_version_it_shows() -> None:
    meta = {"versionId": "3", "lastUpdated": "2024-05-06T07:08:09.123+02:00"}
    found = map_patient('path = "gender"', TEXT, meta)
    assert found.values == {
        "fhirid": "1",
        "version": "3",
        "updated": "2024-05-06T05:08:09Z",
        "a": None,
    }


@pytest.mark.parametrize(("id_", "fits"), [("a" * 10, True), ("a" * 11, False)])
def test_an_id_that_does_not_fit_its_column_costs_the_row(id_: str, fits: bool) -> None:
    resource = {"resourceType": "Patient", "id": id_}
    columns = {"contact": {**COLUMNS, "a": TEXT}}
    if fits:
        assert map_resource(MAP, resource, columns, today=TODAY).values["fhirid"] == id_
    else:
        with pytest.raises(Unmappable, match="longer than the 10 characters of fhirid") as caught:
            map_resource(MAP, resource, columns, today=TODAY)
        assert id_ not in str(caught.value)


def test_an_id_that_does_not_fit_may_be_told_by_the_key_of_the_row() -> None:
    entity = parse_map(
        f'{ROW}long_id = "digest"\n[[attribute]]\ncolumn = "a"\npath = "gender"', "m.toml"
    )
    columns = {
        "contact": {**COLUMNS, "fhirid": Column("fhirid", "String", max_length=38), "a": TEXT}
    }
    for id_, shown in [("a" * 38, "a" * 38), ("a" * 39, derive_primary_key("Patient", "a" * 39))]:
        found = map_resource(entity, {"resourceType": "Patient", "id": id_}, columns, today=TODAY)
        assert found.values["fhirid"] == shown
        assert fit_fhir_id(entity, id_, columns["contact"]) == shown


def test_books_that_fhir_keeps_badly_cost_no_row() -> None:
    meta = {"versionId": "v" * 60, "lastUpdated": "yesterday"}
    found = map_patient('path = "gender"', TEXT, meta, gender="male")
    assert (found.values["version"], found.values["updated"]) == (None, None)
    assert [note.partition(" @ ")[0] for note in found.notes] == [
        "version: the text is longer than 50 characters and was left out",
        "updated: the value is not an instant",
    ]
    assert map_patient('path = "gender"', TEXT, ["no", "meta"]).values["version"] is None


# -- nothing of the patient in a note --------------------------------------------------------------

TEXTS = st.sampled_from([MARKER, MARKER * 20, MARKER * 60])
ODD = st.one_of(TEXTS, st.lists(TEXTS, max_size=2), st.fixed_dictionaries({"extension": TEXTS}))
USES = st.sampled_from(["usual", "official", "old", "home", "work", "mobile", "temp", MARKER])
SYSTEMS = st.sampled_from(["phone", "email", "fax", "pager", "sms", MARKER])


def optional_fields(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(st.fixed_dictionaries({}, optional=fields), max_size=2)


CODED = st.fixed_dictionaries(
    {"coding": optional_fields(code=st.sampled_from(["S", "MR", MARKER]))}
)
PATIENTS = st.fixed_dictionaries(
    {"resourceType": st.just("Patient"), "id": st.sampled_from(["1", MARKER * 10])},
    optional={
        "meta": st.fixed_dictionaries({}, optional={"versionId": TEXTS, "lastUpdated": TEXTS}),
        "active": st.one_of(st.booleans(), TEXTS),
        "name": optional_fields(
            use=USES, family=ODD, given=ODD, prefix=ODD, suffix=st.lists(ODD, max_size=2), text=ODD
        ),
        "telecom": optional_fields(system=SYSTEMS, use=USES, value=ODD, rank=ODD),
        "address": optional_fields(
            use=USES, line=st.lists(ODD, max_size=3), city=ODD, postalCode=ODD
        ),
        "gender": TEXTS,
        "birthDate": TEXTS,
        "deceasedDateTime": TEXTS,
        "maritalStatus": CODED,
        "identifier": optional_fields(type=CODED, value=ODD),
    },
)


@limit_examples(80)
@given(PATIENTS)
def test_no_note_holds_anything_of_the_patient(patient: dict[str, Any]) -> None:
    entity = load_shipped_maps()["Patient"]
    try:
        notes = repr(map_resource(entity, patient, load_all_columns(), today=TODAY).notes)
    except Unmappable as problem:
        notes = str(problem)
    assert MARKER not in notes


# -- whatever a resource looks like --------------------------------------------------------------

WORDS = st.sampled_from(
    "use usual official system phone email value given family line city period start end coding "
    "code display text reference Patient/1 #p extension url valueString 2024 2024-05-06 home".split()
)
NAMES = st.sampled_from(
    "name telecom address identifier contact communication link maritalStatus generalPractitioner "
    "managingOrganization birthDate _birthDate deceasedDateTime multipleBirthInteger active gender "
    "photo meta extension contained language".split()
)
SCALARS = st.one_of(
    [
        st.none(),
        st.booleans(),
        st.integers(),
        st.decimals(allow_nan=False, allow_infinity=False),
        st.just(Decimal("1E+999999")),
        st.text(max_size=5),
        WORDS,
    ]
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(WORDS, NAMES), inner, max_size=5)
    ),
    max_leaves=12,
)


@limit_examples(150)
@given(st.dictionaries(NAMES, JSON, max_size=8), st.sampled_from(["healthcare", "plain"]))
def test_whatever_a_resource_looks_like_it_has_a_row(elements: dict[str, Any], set_: str) -> None:
    entity = load_shipped_maps(set_, "new")["Patient"]
    resource = {"resourceType": "Patient", "id": "1", **elements}
    found = map_resource(entity, resource, load_all_columns(), today=TODAY)
    assert {entity.key, *found.values} == set(entity.columns)
    for column in (value for row in (found, *found.children) for value in row.values.values()):
        assert column is None or isinstance(column, str | int | Decimal | Lookup | Concept)


def test_a_resource_without_an_id_has_none() -> None:
    with pytest.raises(Unmappable, match="no id"):
        map_resource(
            MAP, {"resourceType": "Patient"}, {"contact": {**COLUMNS, "a": TEXT}}, today=TODAY
        )
