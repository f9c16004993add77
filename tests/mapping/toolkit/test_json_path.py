"""JSONPath of element maps is read as Json.NET reads it, and refused with the place otherwise."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.mapping.fhirpath.compile import compile_path
from integration.mapping.toolkit.json_path import Unconvertible, parse
from integration.mapping.toolkit.translate import translate


@pytest.mark.parametrize(
    "path",
    [
        "$.name[?(@.use=='usual')].family",
        "$.name[?(@use=='usual')].family",
        '$.name[?(@.use=="usual")].family',
        "$.name[?(@.use === 'usual')].family",
        "$.name[? ( @.use == 'usual' ) ].family",
        "$.name[?@.use=='usual'].family",
        "$['name'][?(@['use']=='usual')]['family']",
        "name[?(@.use=='usual')].family",
        "  $.name[?(@.use=='usual')].family  ",
    ],
)
def test_one_path_has_many_spellings(path: str) -> None:
    assert parse(path) == parse("$.name[?(@.use=='usual')].family")


@pytest.mark.parametrize(
    ("path", "fhir_path"),
    [
        ("$.deceasedDateTime", "deceased.ofType(dateTime)"),
        ("$.deceasedBoolean", "deceased.ofType(boolean)"),
        ("$.multipleBirthInteger", "multipleBirth.ofType(integer)"),
        (
            "$.extension[?(@.url=='u')].valueCodeableConcept.text",
            "extension.where(url = 'u').value.ofType(CodeableConcept).text",
        ),
        ("$.extension[?(@.url=='u')].valueCode", "extension.where(url = 'u').value.ofType(code)"),
        ("$.text.div", "text.`div`"),
        ("$.name[?(@.family=='O\\'Neil')].use", "name.where(family = 'O\\'Neil').use"),
        ('$.name[?(@.family=="O\'Neil")].use', "name.where(family = 'O\\'Neil').use"),
        ("$.name[?(@.period.end != null)].use", "name.where(period.end.exists()).use"),
        ("$.name[?(@.given[?(@=='A')])].use", "name.where(given.where($this = 'A').exists()).use"),
        ("$.telecom[?(@.rank<>1)].value", "telecom.where(rank != 1).value"),
        ("$.name[0].given[-1:]", "name[0].given.last()"),
    ],
)
def test_it_is_said_in_the_words_of_fhirpath(path: str, fhir_path: str) -> None:
    assert translate(path, "Patient").path == fhir_path


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("$..family", "searches every level"),
        ("$.name.*", "takes every element"),
        ("$.name[0,1].family", "one position"),
        ("$.name[0:2].family", "one position"),
        ("$.name[-1].family", "one position"),
        ("$.name[(@.length-1)]", "one position"),
        ("$.name[?(@.use=='usual'].family", ") was expected"),
        ("$.name[?(@.use='usual')].family", ") was expected"),
        ("$.name[?(@.use==usual)].family", "text in quotes"),
        ("$.name[?('usual'==@.use)].family", "@ was expected"),
        ("$.name[?(@.family=='Eve)].use", "a quote is not closed"),
        ("$.name[0", "] was expected"),
        ("$.name family", "nothing more"),
        ("$.", "the name of an element"),
        ("$", "names no element"),
        ("", "names no element"),
        ("$.nome[0].family", "Patient has no element nome in FHIR R4"),
        ("$.name[0].birthDate", "HumanName has no element birthDate"),
        ("$._birthDate.extension[0].valueDateTime", "_birthDate"),
        ("$.name[?(@.use==null)].family", "no null"),
        ("$.name[?(@.use>'a')].family", "only numbers"),
        ("$.name[?(@.period=='2001')].family", "a Period, which is no value"),
        ("$[0]", "a position without an element"),
        ("$.a" + "[?(@.a" * 30, "nested too deeply"),
        ("$." + "a" * 6000, "longer than"),
    ],
)
def test_what_has_no_equal_is_refused_with_the_reason(path: str, why: str) -> None:
    with pytest.raises(Unconvertible, match=re.escape(why)):
        translate(path, "Patient")


def test_a_refusal_names_the_place() -> None:
    with pytest.raises(Unconvertible, match="character 8: one position"):
        parse("$.name[a]")


PIECES = st.sampled_from(
    "$ . .. * [ ] ( ) ? @ && || == != < ' \" 0 1 -1: , name given use family extension url text "
    "valueString birthDate usual \\ null true".split()
)


@given(st.lists(PIECES, max_size=25).map("".join))
def test_whatever_is_written_becomes_fhirpath_or_is_refused(text: str) -> None:
    try:
        said = translate(text, "Patient")
    except Unconvertible:
        return
    compile_path(said.path)


@given(st.text(max_size=40))
def test_a_text_in_quotes_stays_the_text_that_it_is(text: str) -> None:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    try:
        said = translate(f"$.name[?(@.family=='{escaped}')].family", "Patient").path
    except Unconvertible:
        assert any(ord(one) < 32 for one in text)
        return
    assert compile_path(said)({"name": [{"family": "other"}, {"family": text}]}, {}) == [text]
