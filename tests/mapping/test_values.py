"""One value into one column: every kind against every type that takes it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from integration.core.errors import Unmappable
from integration.core.model import Column
from integration.mapping.model import AttributeMap, Concept, Kind, LongText, Lookup, PartialDate
from integration.mapping.values import convert_value, is_datetime_text, is_same_datetime

BASE = "https://fhir.example/r4"


def convert(
    kind: Kind, value: Any, column: Column, base: str | None = None, **rules: Any
) -> tuple[Any, list[str]]:
    """The value that the column gets, and what was noted."""
    notes: list[str] = []
    found = convert_value(
        AttributeMap(column="a", kind=kind, path="x", **rules), value, column, notes.append, base
    )
    return found, notes


def catch_reason(
    kind: Kind, value: Any, column: Column, base: str | None = None, **rules: Any
) -> str:
    with pytest.raises(Unmappable) as caught:
        convert(kind, value, column, base, **rules)
    return caught.value.why


# -- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (Decimal("1.10"), "1.10"),
        (Decimal("1E+2"), "100"),
        ("ありがとう", "ありがとう"),
        ("\u202b\u05de\u05e8\u05d9\u05dd\u202c", "\u202b\u05de\u05e8\u05d9\u05dd\u202c"),
    ],
)
def test_whatever_is_copied_into_text_reads_as_fhir_writes_it(value: Any, text: str) -> None:
    assert convert(Kind.COPY, value, Column("a", "String", max_length=10)) == (text, [])


@pytest.mark.parametrize(
    ("text", "longest", "kept"),
    [("ab👩🏽", 6, "ab👩🏽"), ("ab👩🏽", 5, "ab👩"), ("ab👩🏽", 3, "ab"), ("a bc", 2, "a")],
)
def test_text_is_measured_and_cut_as_dataverse_counts_and_never_inside_a_character(
    text: str, longest: int, kept: str
) -> None:
    found, notes = convert(Kind.COPY, text, Column("a", "String", max_length=longest))
    assert found == kept
    assert notes == (
        [] if kept == text else [f"the text is longer than {longest} characters and was cut"]
    )


def test_characters_that_no_text_may_hold_are_left_out_and_noted() -> None:
    found, notes = convert(Kind.COPY, "A\x00d\ud800a\n", Column("a", "Memo"))
    assert (found, notes) == ("Ada", ["forbidden characters were left out"])


def test_text_that_must_not_be_cut_goes_whole_or_not_at_all() -> None:
    column = Column("a", "String", max_length=3)
    assert convert(Kind.COPY, "abc", column, too_long=LongText.OMIT) == ("abc", [])
    found, notes = convert(Kind.COPY, "abcd", column, too_long=LongText.OMIT)
    assert (found, notes) == (None, ["the text is longer than 3 characters and was left out"])


# -- booleans and numbers -------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "truth"), [(True, True), ("true", True), ("false", False)])
def test_a_boolean_is_one(value: Any, truth: bool) -> None:
    assert convert(Kind.COPY, value, Column("a", "Boolean")) == (truth, [])


@pytest.mark.parametrize("value", ["yes", 1, "", Decimal("0")])
def test_what_is_no_boolean_is_refused(value: Any) -> None:
    assert (
        catch_reason(Kind.COPY, value, Column("a", "Boolean"))
        == "the value is neither true nor false"
    )


@pytest.mark.parametrize(
    ("type_", "precision", "value", "number", "notes"),
    [
        ("Integer", None, 2, 2, []),
        ("Integer", None, "2", 2, []),
        ("BigInt", None, Decimal("2.0"), 2, []),
        ("Integer", None, Decimal("2.5"), 2, ["the number was rounded to 0 decimal places"]),
        ("Decimal", 2, Decimal("1.10"), Decimal("1.10"), []),
        (
            "Decimal",
            2,
            Decimal("1.105"),
            Decimal("1.10"),
            ["the number was rounded to 2 decimal places"],
        ),
        ("Money", 2, 5, Decimal("5"), []),
        ("Double", None, Decimal("0.1234567890123"), Decimal("0.1234567890123"), []),
    ],
)
def test_a_number_is_never_rounded_in_silence(
    type_: str, precision: int | None, value: Any, number: Any, notes: list[str]
) -> None:
    found = convert(Kind.COPY, value, Column("a", type_, precision=precision))
    assert found == (number, notes)
    assert type(found[0]) is type(number)
    assert str(found[0]) == str(number)


@pytest.mark.parametrize(("value", "fits"), [(0, True), (-1, False), (9, True), (10, False)])
def test_a_number_outside_the_range_of_its_column_is_left_out(value: int, fits: bool) -> None:
    column = Column("a", "Integer", minimum=0, maximum=9)
    if fits:
        assert convert(Kind.COPY, value, column) == (value, [])
    else:
        assert catch_reason(Kind.COPY, value, column) == "the number is not from 0 to 9"


@pytest.mark.parametrize(
    "value",
    ["two", True, Decimal("NaN"), Decimal("1E+999999999"), 10**5000, "1E+999999999"],
    ids=["words", "a boolean", "nothing", "too great", "too long", "too great in words"],
)
@pytest.mark.parametrize("type_", ["Integer", "Decimal"])
def test_what_is_no_number_that_fits_anywhere_is_left_out(value: Any, type_: str) -> None:
    assert catch_reason(Kind.COPY, value, Column("a", type_)).startswith(
        "the value is not a number"
    )


def test_a_number_beyond_all_reason_is_no_text_of_a_gigabyte() -> None:
    assert catch_reason(Kind.COPY, Decimal("1E+999999999"), Column("a", "Memo")).startswith(
        "the value is not a"
    )


# -- choices -------------------------------------------------------------------------------------


def test_a_column_of_yes_and_no_takes_choices_too() -> None:
    choices = {"old": (0,), "home": (1,)}
    assert convert(Kind.CHOICE, "home", Column("a", "Boolean"), choices=choices) == (True, [])
    assert convert(Kind.CHOICE, "old", Column("a", "Boolean"), choices=choices) == (False, [])


def test_a_number_is_copied_into_a_column_that_has_it_as_an_option() -> None:
    column = Column("a", "Picklist", options=frozenset({1}))
    assert convert(Kind.COPY, 1, column) == (1, [])
    assert catch_reason(Kind.COPY, 2, column) == "the value is not an option of this column"


# -- days ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behavior", "kept"),
    [
        ("DateOnly", "1980-05-06"),
        (None, "1980-05-06"),
        ("UserLocal", "1980-05-06T10:30:00Z"),
        ("TimeZoneIndependent", "1980-05-06T00:00:00Z"),
    ],
)
def test_a_day_is_the_same_day_for_every_reader(behavior: str | None, kept: str) -> None:
    column = Column("a", "DateTime", behavior=behavior)
    assert convert(Kind.DATE, "1980-05-06", column) == (kept, [])
    assert convert(Kind.DATE, "1980-05-06T23:00:00-11:00", column) == (kept, [])


@pytest.mark.parametrize(
    ("partial", "date", "day"),
    [
        (PartialDate.FIRST, "1980", "1980-01-01"),
        (PartialDate.LAST, "1980", "1980-12-31"),
        (PartialDate.FIRST, "1980-02", "1980-02-01"),
        (PartialDate.LAST, "1980-02", "1980-02-29"),
        (PartialDate.LAST, "1981-12", "1981-12-31"),
    ],
)
def test_a_partial_date_may_stand_for_its_first_or_last_day_and_that_is_noted(
    partial: PartialDate, date: str, day: str
) -> None:
    found = convert(Kind.DATE, date, Column("a", "DateTime"), partial=partial)
    assert found == (day, [f"the date is incomplete; its {partial} day was taken"])


@pytest.mark.parametrize(
    ("date", "why"),
    [
        ("1980-02-30", "the date does not exist"),
        ("0000-01-01", "the date does not exist"),
        ("1752-12-31", "the date is before 1753"),
        ("1980-05-06Z", "the value is not a date"),
        ("१९८०-०५-०६", "the value is not a date"),
    ],
)
def test_a_day_that_no_calendar_or_no_column_has_is_left_out(date: str, why: str) -> None:
    assert catch_reason(Kind.DATE, date, Column("a", "DateTime")) == why


@pytest.mark.parametrize(
    ("partial", "value", "moment", "notes"),
    [
        (PartialDate.FIRST, "2024-05-06", "2024-05-06T00:00:00Z", 1),
        (PartialDate.LAST, "2024-05-06", "2024-05-06T23:59:59Z", 1),
        (PartialDate.LAST, "2024-02", "2024-02-29T23:59:59Z", 2),
        (PartialDate.FIRST, "2024-05-06T07:08:09+02:00", "2024-05-06T05:08:09Z", 0),
    ],
)
def test_a_partial_instant_may_stand_for_its_first_or_last_second(
    partial: PartialDate, value: str, moment: str, notes: int
) -> None:
    found, noted = convert(Kind.DATETIME, value, Column("a", "DateTime"), partial=partial)
    assert found == moment
    assert len(noted) == notes


# -- lookups -------------------------------------------------------------------------------------

LOOKUP = Column("a", "Lookup", targets={"contact": "A"})


@pytest.mark.parametrize(
    "value",
    [
        "Practitioner/1",
        "Practitioner/1/_history/7",
        {"reference": "Practitioner/1"},
        {"reference": f"{BASE}/Practitioner/1", "display": "Anna"},
        {"reference": f"{BASE}/Practitioner/1/_history/7"},
    ],
)
def test_a_reference_leads_to_the_row_of_a_resource_of_our_server(value: Any) -> None:
    assert convert(Kind.LOOKUP, value, LOOKUP, BASE) == (Lookup("Practitioner/1"), [])
    assert convert(Kind.LOOKUP, value, LOOKUP, f"{BASE}/") == (Lookup("Practitioner/1"), [])


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"reference": "#p1"}, "a contained resource has no row"),
        ({"identifier": {"value": "1"}}, "the reference has no address"),
        ({"display": "Dr Anna"}, "the reference has no address"),
        ({"reference": 7}, "the path does not end at a reference"),
        (["Practitioner/1"], "the path does not end at a reference"),
        (7, "the path does not end at a reference"),
        ("urn:uuid:0b6d3d3e-9c4b-4a53-8f1f-6f0f8a2f4c11", "the reference is not to a resource"),
        ("https://elsewhere.example/r4/Practitioner/1", "the reference is not to a resource"),
        (f"{BASE}evil/Practitioner/1", "the reference is not to a resource"),
        ("Practitioner?identifier=1", "the reference is not to a resource"),
        ("Practitioner/1/x", "the reference is not to a resource"),
        ("Practitioner/../Patient", "the reference is not to a resource"),
        ("", "the reference is not to a resource"),
    ],
)
def test_any_other_reference_is_noted_and_leads_nowhere(value: Any, why: str) -> None:
    assert catch_reason(Kind.LOOKUP, value, LOOKUP, BASE).startswith(why)


def test_without_a_base_only_relative_references_lead_anywhere() -> None:
    assert catch_reason(Kind.LOOKUP, f"{BASE}/Practitioner/1", LOOKUP).startswith(
        "the reference is not"
    )


# -- concepts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "concept"),
    [
        ("de", Concept(9, "de", "de", None)),
        ({"code": "de", "display": "German"}, Concept(9, "de", "German", None)),
        ({"coding": [{"code": "de"}], "text": "Deutsch"}, Concept(9, "de", "Deutsch", "Deutsch")),
        (
            {"coding": [{"display": "?"}, {"code": "de", "display": "German"}, {"code": "en"}]},
            Concept(9, "de", "German", None),
        ),
    ],
)
def test_a_concept_is_its_first_code_with_the_best_name_there_is(
    value: Any, concept: Concept
) -> None:
    assert convert(Kind.CONCEPT, value, LOOKUP, concept=9) == (concept, [])


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"text": "Deutsch"}, "the concept has no code"),
        ({"coding": []}, "the concept has no code"),
        ({"coding": "de"}, "the concept has no code"),
        ({"coding": [{"code": " "}]}, "the concept has no code"),
        ({"code": "x" * 101}, "the code is longer than 100 characters"),
        ({"code": {"no": "code"}}, "the path does not end at a concept or code"),
        (["de"], "the path does not end at a concept or code"),
    ],
)
def test_what_has_no_code_is_no_concept(value: Any, why: str) -> None:
    assert catch_reason(Kind.CONCEPT, value, LOOKUP, concept=9) == why


def test_the_name_of_a_concept_is_cut_and_its_code_never() -> None:
    found, notes = convert(
        Kind.CONCEPT, {"code": "c" * 100, "display": "d" * 101}, LOOKUP, concept=9
    )
    assert (found.code, found.name) == ("c" * 100, "d" * 100)
    assert notes == ["the text is longer than 100 characters and was cut"]


# -- what does not go together -------------------------------------------------------------------


@pytest.mark.parametrize("type_", ["Lookup", "DateTime", "Virtual"])
def test_a_copy_goes_into_no_column_that_needs_more(type_: str) -> None:
    assert catch_reason(Kind.COPY, "x", Column("a", type_)) == (
        f"a {type_} column cannot hold a copied value"
    )


@pytest.mark.parametrize("kind", [Kind.COPY, Kind.DATE, Kind.DATETIME, Kind.CHOICE])
@pytest.mark.parametrize("value", [{"a": 1}, ["x"]])
def test_only_references_and_concepts_are_no_primitives(kind: Kind, value: Any) -> None:
    assert (
        catch_reason(kind, value, Column("a", "String"))
        == "the path does not end at a primitive value"
    )


# -- values of rows ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2024-05-06", "2024-05-06", True),
        ("2024-05-06T07:08:09Z", "2024-05-06T09:08:09+02:00", True),
        ("2024-05-06T07:08:09Z", "2024-05-06T07:08:10Z", False),
        ("2024-05-06T07:08:09Z", "2024-05-06", False),
        ("2024-05-06T07:08:09Z", "Tuesday", False),
        ("2024-99-99T99:08:09Z", "2024-99-99T99:08:09Z", True),
    ],
)
def test_an_instant_is_the_same_in_every_time_zone(first: str, second: str, same: bool) -> None:
    assert is_datetime_text(first)
    assert is_same_datetime(first, second) is same


def test_a_number_is_no_datetime() -> None:
    assert not is_datetime_text("20240506")
