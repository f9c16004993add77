"""The rules of the engine: what fits a column, what is noted, which state is newer."""

from __future__ import annotations

from copy import deepcopy
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.errors import Unmappable
from integration.core.model import Column
from integration.mapping.engine import (
    is_datetime_text,
    is_newer,
    is_same_datetime,
    map_resource,
)
from integration.mapping.keys import derive_primary_key, fit_fhir_id
from integration.mapping.load import load_maps, load_shipped_maps, parse_map
from integration.mapping.model import Concept, Lookup, MappedRows
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


def mapped(attribute: str, column: Column, meta: Any = None, **elements: Any) -> MappedRows:
    """A patient by a map of one column, called `a`."""
    entity = parse_map(f'{ROW}[[attribute]]\ncolumn = "a"\n{attribute}', "map.toml")
    resource = {"resourceType": "Patient", "id": "1", "meta": meta or {}, **elements}
    return map_resource(entity, resource, {"contact": {**COLUMNS, "a": column}})


def value(found: MappedRows) -> Any:
    """The value of the column, of which nothing was noted."""
    assert found.notes == ()
    return found.values["a"]


def note(found: MappedRows) -> str:
    """The one note, without the path it ends with."""
    (text,) = found.notes
    return text.partition(" @ ")[0]


TEXT = Column("a", "String", max_length=5)
NAME = 'path = "name.family"'


def named(*families: Any) -> list[dict[str, Any]]:
    return [{"family": family} for family in families]


# -- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "kept"),
    [("Ada", "Ada"), ("Adaaa", "Adaaa"), (" Ada\n", "Ada"), ("", None), ("  ", None)],
)
def test_text_that_fits_is_kept_without_the_blanks_around_it(family: str, kept: Any) -> None:
    assert value(mapped(NAME, TEXT, name=named(family))) == kept


def test_text_that_is_too_long_is_cut_and_noted() -> None:
    found = mapped(NAME, TEXT, name=named("Sampleton"))
    assert found.values["a"] == "Sampl"
    assert note(found) == "a: longer than 5, cut"


def test_text_that_must_not_be_cut_is_left_out_and_noted() -> None:
    found = mapped(f'{NAME}\ntoo_long = "omit"', TEXT, name=named("Sampleton"))
    assert found.values["a"] is None
    assert note(found) == "a: longer than 5, left out"


@pytest.mark.parametrize("type_", ["String", "Memo"])
def test_text_without_a_limit_is_never_cut(type_: str) -> None:
    assert value(mapped(NAME, Column("a", type_), name=named("S" * 9000))) == "S" * 9000


def test_a_note_names_column_path_and_line_of_the_map() -> None:
    found = mapped(NAME, TEXT, name=named("Sampleton"))
    assert found.notes == ("a: longer than 5, cut @ name.family (map.toml:10)",)


def test_a_number_stays_a_number_in_a_column_of_numbers() -> None:
    count = mapped('path = "multipleBirth"', Column("a", "Integer"), multipleBirthInteger=2)
    assert value(count) == 2


def test_a_truth_stays_one_in_a_column_of_truths() -> None:
    assert value(mapped('path = "active"', Column("a", "Boolean"), active=False)) is False


# -- how many ------------------------------------------------------------------------------------


def test_an_absent_element_clears_its_column() -> None:
    assert value(mapped(NAME, TEXT)) is None


def test_an_absent_element_takes_the_default_where_there_is_one() -> None:
    assert value(mapped(f'{NAME}\ndefault = "none"', TEXT)) == "none"


def test_more_than_one_value_is_noted_and_the_first_taken() -> None:
    found = mapped(NAME, TEXT, name=named("Ada", "Bea"))
    assert found.values["a"] == "Ada"
    assert note(found) == "a: more than one value, the first taken"


def test_a_path_that_ends_at_no_primitive_is_noted() -> None:
    found = mapped('path = "name"', TEXT, name=named("Ada"))
    assert found.values["a"] is None
    assert note(found) == "a: the path ends at no primitive"


def test_a_path_that_fails_is_noted_by_the_kind_of_failure() -> None:
    found = mapped("path = \"name.family.join('-')\"", TEXT, name=named(7))
    assert found.values["a"] is None
    assert note(found).startswith("a: the path failed (")


def test_a_path_that_fails_takes_the_default_where_there_is_one() -> None:
    found = mapped('path = "name.family.join(\'-\')"\ndefault = "none"', TEXT, name=named(7))
    assert found.values["a"] == "none"


def test_one_bad_column_costs_no_other() -> None:
    entity = parse_map(
        f'{ROW}[[attribute]]\ncolumn = "a"\npath = "birthDate"\nkind = "date"\n'
        '[[attribute]]\ncolumn = "b"\npath = "name.family"',
        "map.toml",
    )
    resource = {"resourceType": "Patient", "id": "1", "birthDate": "1980", "name": named("Ada")}
    columns = {**COLUMNS, "a": Column("a", "DateTime"), "b": TEXT}
    found = map_resource(entity, resource, {"contact": columns})
    assert (found.values["a"], found.values["b"]) == (None, "Ada")
    assert len(found.notes) == 1


@pytest.mark.parametrize("given", [[None, "Bea"], ["Ada", None], [None]])
def test_a_null_beside_an_extension_never_becomes_text(given: list[Any]) -> None:
    extended = [None if text else {"extension": [{"url": "u"}]} for text in given]
    name = [{"given": given, "_given": extended}]
    for path in ("name.given", "name.given.first()", "name.given.join(' ')"):
        found = mapped(f'path = "{path}"', TEXT, name=name)
        assert found.values["a"] in ("Ada", "Bea", None)


def test_extensions_of_lines_are_no_further_lines() -> None:
    line = {"line": ["One", "Two"], "_line": [{"extension": [{"url": "u"}]}, None]}
    assert value(mapped("path = \"address.line.skip(2).join(', ')\"", TEXT, address=[line])) is None


def test_a_resource_is_not_changed_by_being_mapped() -> None:
    resource = {
        "resourceType": "Patient",
        "id": "1",
        "name": [{"given": [None, "B"], "_given": []}],
    }
    before = deepcopy(resource)
    map_resource(MAP, resource, {"contact": {**COLUMNS, "a": TEXT}})
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
    assert value(mapped(GENDER, column, gender=gender)) == option


@pytest.mark.parametrize(("gender", "options"), [("female", {1, 2}), ("other", {1, 2}), ("", {1})])
def test_a_code_without_an_option_is_noted(gender: str, options: set[int]) -> None:
    column = Column("a", "Picklist", options=frozenset(options))
    found = mapped(GENDER, column, gender=gender)
    assert found.values["a"] is None
    assert note(found) == "a: the code has no option in this column"


@pytest.mark.parametrize(("active", "option"), [(True, 0), (False, 1)])
def test_a_truth_is_a_code_too(active: bool, option: int) -> None:
    choices = 'path = "active"\nkind = "choice"\nchoices = { true = 0, false = 1 }'
    assert value(mapped(choices, Column("a", "State"), active=active)) == option


def test_a_constant_is_written_whatever_the_resource_says() -> None:
    assert value(mapped('kind = "default"\ndefault = 7', Column("a", "Picklist"))) == 7


# -- dates and moments ---------------------------------------------------------------------------

DAY = 'path = "birthDate"\nkind = "date"'
MOMENT = 'path = "deceased"\nkind = "datetime"'


@pytest.mark.parametrize(
    ("date", "day"),
    [("1980-05-06", "1980-05-06"), ("1980-05-06T23:59:59-11:00", "1980-05-06")],
)
def test_a_date_is_the_day_that_is_written(date: str, day: str) -> None:
    assert value(mapped(DAY, Column("a", "DateTime"), birthDate=date)) == day


@pytest.mark.parametrize("date", ["1980", "1980-05"])
def test_a_date_that_is_not_whole_is_noted_and_not_mapped(date: str) -> None:
    found = mapped(DAY, Column("a", "DateTime"), birthDate=date)
    assert found.values["a"] is None
    assert note(found) == "a: not a whole date"


@pytest.mark.parametrize("date", ["6.5.1980", "1980-5-6", "19800506", "soon", "", "1980-05-06 "])
def test_what_is_no_date_is_noted_and_not_mapped(date: str) -> None:
    found = mapped(DAY, Column("a", "DateTime"), birthDate=date)
    assert found.values["a"] is None
    assert note(found) == "a: not a date"


@pytest.mark.parametrize(
    ("instant", "utc"),
    [
        ("2024-05-06T07:08:09Z", "2024-05-06T07:08:09Z"),
        ("2024-05-06T07:08:09.999+02:00", "2024-05-06T05:08:09Z"),
        ("2024-05-06T23:00:00-11:00", "2024-05-07T10:00:00Z"),
    ],
)
def test_a_moment_is_stored_in_utc(instant: str, utc: str) -> None:
    assert value(mapped(MOMENT, Column("a", "DateTime"), deceasedDateTime=instant)) == utc


@pytest.mark.parametrize(
    "instant", ["2024", "2024-05", "2024-05-06", "2024-05-06T07:08:09", "soon"]
)
def test_a_moment_that_is_not_whole_is_noted(instant: str) -> None:
    found = mapped(MOMENT, Column("a", "DateTime"), deceasedDateTime=instant)
    assert found.values["a"] is None
    assert note(found).startswith("a: ")
    assert "an instant" in note(found)


def test_a_moment_before_all_calendars_is_noted() -> None:
    found = mapped(MOMENT, Column("a", "DateTime"), deceasedDateTime="0001-01-01T00:00:00+14:00")
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
    assert value(map_resource(parse_map(text, "map.toml"), resource, {"contact": columns})) == "Ada"


def test_a_variable_that_fails_costs_its_columns_and_no_other() -> None:
    text = (
        f"{ROW}[variables]\nall = \"name.family.join('-')\"\n"
        '[[attribute]]\ncolumn = "a"\npath = "%all"\n'
        '[[attribute]]\ncolumn = "b"\npath = "gender"'
    )
    resource = {"resourceType": "Patient", "id": "1", "name": named(7), "gender": "male"}
    columns = {**COLUMNS, "a": TEXT, "b": Column("b", "String")}
    found = map_resource(parse_map(text, "map.toml"), resource, {"contact": columns})
    assert (found.values["a"], found.values["b"]) == (None, "male")
    assert len(found.notes) == 1


# -- what no row shows ----------------------------------------------------------------------------

REST = """
[rest]
name = "name.exclude(name.first())"
"contact.telecom" = "contact.telecom"
"""


def left(entity: str, **elements: Any) -> tuple[str, ...]:
    text = f'{ROW}{entity}\n[[attribute]]\ncolumn = "a"\npath = "gender"'
    resource = {"resourceType": "Patient", "id": "1", **elements}
    return map_resource(
        parse_map(text, "map.toml"), resource, {"contact": {**COLUMNS, "a": TEXT}}
    ).notes


def test_what_there_is_no_column_for_is_counted_and_noted_with_path_and_line() -> None:
    contact = [{"telecom": [{"value": MARKER}, {"value": MARKER * 2}]}, {}]
    assert left(REST, name=named("Ada", "Bea", "Cea"), contact=contact) == (
        "name: 2 more than the map has columns for @ name.exclude(name.first()) (map.toml:12)",
        "contact.telecom: 2 more than the map has columns for @ contact.telecom (map.toml:13)",
    )
    assert left(REST, name=named("Ada")) == ()


def test_a_rest_that_cannot_be_found_costs_no_row() -> None:
    rest = "[rest]\nname = \"name.family.join('-')\""
    (noted,) = left(rest, name=named(7))
    assert noted.startswith("name: the path failed (")


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
    assert left("", **elements) == notes


@pytest.mark.parametrize(
    ("gender", "notes"),
    [("male", ()), (None, ("a: required, and without a value @ gender (map.toml:10)",))],
)
def test_a_column_that_dataverse_demands_is_noted_where_it_stays_empty(
    gender: Any, notes: tuple[str, ...]
) -> None:
    column = Column("a", "String", max_length=5, required=True, enforced=True)
    assert mapped('path = "gender"', column, gender=gender).notes == notes


# -- which row, which version --------------------------------------------------------------------


def test_a_row_says_which_version_it_shows() -> None:
    meta = {"versionId": "3", "lastUpdated": "2024-05-06T07:08:09.123+02:00"}
    found = mapped('path = "gender"', TEXT, meta)
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
        assert map_resource(MAP, resource, columns).values["fhirid"] == id_
    else:
        with pytest.raises(Unmappable, match="longer than the 10 characters of fhirid") as caught:
            map_resource(MAP, resource, columns)
        assert id_ not in str(caught.value)


def test_an_id_that_does_not_fit_may_be_told_by_the_key_of_the_row() -> None:
    entity = parse_map(
        f'{ROW}long_id = "digest"\n[[attribute]]\ncolumn = "a"\npath = "gender"', "m.toml"
    )
    columns = {
        "contact": {**COLUMNS, "fhirid": Column("fhirid", "String", max_length=38), "a": TEXT}
    }
    for id_, shown in [("a" * 38, "a" * 38), ("a" * 39, derive_primary_key("Patient", "a" * 39))]:
        found = map_resource(entity, {"resourceType": "Patient", "id": id_}, columns)
        assert found.values["fhirid"] == shown
        assert fit_fhir_id(entity, id_, columns["contact"]) == shown


def test_books_that_fhir_keeps_badly_cost_no_row() -> None:
    meta = {"versionId": "v" * 60, "lastUpdated": "yesterday"}
    found = mapped('path = "gender"', TEXT, meta, gender="male")
    assert (found.values["version"], found.values["updated"]) == (None, None)
    assert [note.partition(" @ ")[0] for note in found.notes] == [
        "version: longer than 50, left out",
        "updated: not an instant",
    ]
    assert mapped('path = "gender"', TEXT, ["no", "meta"]).values["version"] is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2024-05-06", "2024-05-06", True),
        ("2024-05-06T07:08:09Z", "2024-05-06T09:08:09+02:00", True),
        ("2024-05-06T07:08:09Z", "2024-05-06T07:08:10Z", False),
        ("2024-05-06T07:08:09Z", "2024-05-06", False),
        ("2024-05-06T07:08:09Z", "Tuesday", False),
        ("2024-99-99T99:08:09Z", "2024-99-99T99:08:09Z", True),
    ],
)
def test_a_moment_is_the_same_however_it_is_written(one: str, other: str, same: bool) -> None:
    assert is_datetime_text(one)
    assert is_same_datetime(one, other) is same


def test_a_number_is_no_moment() -> None:
    assert not is_datetime_text("20240506")


T1, T2 = "2024-05-06T07:08:09.5Z", "2024-05-06T07:08:10.1Z"

NEWER = [
    ("no version is shown yet", ("1", T1), (None, None), True),
    ("no version is shown yet, and none is known", (None, None), (None, None), True),
    ("a greater number", ("10", T1), ("9", T2), True),
    ("the same number", ("9", T2), ("9", T1), False),
    ("a smaller number", ("9", T2), ("10", T1), False),
    ("a later time", ("b", T2), ("a", T1), True),
    ("an earlier time", ("b", T1), ("a", T2), False),
    ("the same second, another version", ("b", "2024-05-06T07:08:09.9Z"), ("a", T1), True),
    ("the same second, the same version", ("a", "2024-05-06T07:08:09.9Z"), ("a", T1), False),
    ("the same moment elsewhere", ("a", "2024-05-06T09:08:09.5+02:00"), ("a", T1), False),
    ("no time in FHIR, another version", ("b", None), ("a", T1), True),
    ("no time in FHIR, the same version", ("a", None), ("a", T1), False),
    ("no time in the row, another version", ("b", T1), ("a", None), True),
    ("a number after a word, later", ("2", T2), ("a", T1), True),
    ("a number after a word, earlier", ("2", T1), ("a", T2), False),
    ("no version in FHIR, a later time", (None, T2), ("a", T1), True),
]


@pytest.mark.parametrize(
    ("resource", "row", "newer"), [case[1:] for case in NEWER], ids=[case[0] for case in NEWER]
)
def test_a_resource_replaces_only_an_older_state(
    resource: tuple[Any, Any], row: tuple[Any, Any], newer: bool
) -> None:
    meta = {"versionId": resource[0], "lastUpdated": resource[1]}
    meta = {name: text for name, text in meta.items() if text}
    shown = {"version": row[0], "updated": row[1]}
    assert is_newer(MAP, {"id": "1", "meta": meta}, shown) is newer


def test_a_resource_without_meta_is_newer_than_nothing() -> None:
    assert is_newer(MAP, {"id": "1"}, {})


# -- nothing of the patient in a note --------------------------------------------------------------

TEXTS = st.sampled_from([MARKER, MARKER * 20, MARKER * 60])
ODD = st.one_of(TEXTS, st.lists(TEXTS, max_size=2), st.fixed_dictionaries({"extension": TEXTS}))
USES = st.sampled_from(["usual", "official", "old", "home", "work", "mobile", "temp", MARKER])
SYSTEMS = st.sampled_from(["phone", "email", "fax", "pager", "sms", MARKER])


def parts(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(st.fixed_dictionaries({}, optional=fields), max_size=2)


CODED = st.fixed_dictionaries({"coding": parts(code=st.sampled_from(["S", "MR", MARKER]))})
PATIENTS = st.fixed_dictionaries(
    {"resourceType": st.just("Patient"), "id": st.sampled_from(["1", MARKER * 10])},
    optional={
        "meta": st.fixed_dictionaries({}, optional={"versionId": TEXTS, "lastUpdated": TEXTS}),
        "active": st.one_of(st.booleans(), TEXTS),
        "name": parts(
            use=USES, family=ODD, given=ODD, prefix=ODD, suffix=st.lists(ODD, max_size=2), text=ODD
        ),
        "telecom": parts(system=SYSTEMS, use=USES, value=ODD, rank=ODD),
        "address": parts(use=USES, line=st.lists(ODD, max_size=3), city=ODD, postalCode=ODD),
        "gender": TEXTS,
        "birthDate": TEXTS,
        "deceasedDateTime": TEXTS,
        "maritalStatus": CODED,
        "identifier": parts(type=CODED, value=ODD),
    },
)


@limit_examples(80)
@given(PATIENTS)
def test_no_note_holds_anything_of_the_patient(patient: dict[str, Any]) -> None:
    entity = load_shipped_maps()["Patient"]
    try:
        told = repr(map_resource(entity, patient, load_all_columns()).notes)
    except Unmappable as problem:
        told = str(problem)
    assert MARKER not in told


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
    st.none(),
    st.booleans(),
    st.integers(),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.just(Decimal("1E+999999")),
    st.text(max_size=5),
    WORDS,
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
    entity = load_maps(set_, "new").entities["Patient"]
    resource = {"resourceType": "Patient", "id": "1", **elements}
    found = map_resource(entity, resource, load_all_columns())
    assert {entity.key, *found.values} == set(entity.columns)
    for column in (value for row in (found, *found.children) for value in row.values.values()):
        assert column is None or isinstance(column, str | int | Decimal | Lookup | Concept)


def test_a_resource_without_an_id_has_none() -> None:
    with pytest.raises(Unmappable, match="no id"):
        map_resource(MAP, {"resourceType": "Patient"}, {"contact": {**COLUMNS, "a": TEXT}})
