"""Is a resource valid FHIR? Asked only where a setting wants it, and never quoting a value."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from integration.fhir.validation import find_issues

MARKER = "Zzyzx"

PATIENT = {
    "resourceType": "Patient",
    "id": "1",
    "name": [{"use": "official", "family": "Sampleton", "given": ["Ada"]}],
    "gender": "female",
    "birthDate": "1980-05-06",
}
QUANTITY = {"value": Decimal("1.10"), "unit": "mg"}
OBSERVATION = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"text": "made up"},
    "valueQuantity": QUANTITY,
}


@pytest.mark.parametrize(
    "resource",
    [
        PATIENT,
        {"resourceType": "Patient"},
        {"resourceType": "Patient", "birthDate": "1980-05"},
        OBSERVATION,
    ],
)
def test_a_valid_resource_has_no_issues(resource: dict[str, Any]) -> None:
    assert list(find_issues(resource, "Patient")) == []


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"birthDate": MARKER}, "line 3.birthDate"),
        ({"gender": [MARKER]}, "line 3.gender"),
        ({"active": MARKER}, "line 3.active"),
        ({"name": [{"family": {"a": MARKER}}]}, "line 3.name[0].family"),
        ({"name": MARKER}, "line 3.name"),
        ({"contact": [{"name": {"given": [7]}}]}, "line 3.contact[0].name.given[0]"),
        ({"surname": MARKER}, "line 3.surname"),
    ],
)
def test_what_is_wrong_is_named_by_its_place_and_never_quoted(
    change: dict[str, Any], place: str
) -> None:
    found = list(find_issues({**PATIENT, **change}, "line 3"))
    assert place in {item.expression for item in found}
    assert {item.code for item in found} == {"structure"}
    assert MARKER not in repr(found)


def test_a_missing_element_is_found() -> None:
    assert list(find_issues({"resourceType": "Observation"}, "Observation"))


def test_every_problem_is_reported() -> None:
    found = list(find_issues({**PATIENT, "birthDate": "x", "active": "x"}, "Patient"))
    assert {item.expression for item in found} == {"Patient.birthDate", "Patient.active"}


def test_a_type_that_the_models_lack_is_left_to_the_server() -> None:
    assert list(find_issues({"resourceType": "EffectEvidenceSynthesis", "status": 7}, "x")) == []


@pytest.mark.parametrize("type_", [f"Patient{MARKER}", "", 7, None, {}, [MARKER]])
def test_a_resource_inside_that_is_of_no_type_is_an_issue(type_: object) -> None:
    resource = {**PATIENT, "contained": [{"resourceType": type_, "id": "c1"}]}
    (issue,) = find_issues(resource, "Patient")
    assert (issue.code, issue.expression) == ("value", "Patient")
    assert MARKER not in issue.text


@pytest.mark.parametrize("type_", ["EffectEvidenceSynthesis", "MedicinalProduct"])
def test_a_type_inside_that_the_library_lacks_is_left_to_the_server(type_: str) -> None:
    resource = {**PATIENT, "contained": [{"resourceType": type_, "id": "c1"}]}
    assert list(find_issues(resource, "Patient")) == []


@pytest.mark.parametrize("name", [MARKER, f"given {MARKER}", "", "given-name", "a" * 65, "\n"])
def test_a_name_that_no_element_could_have_is_not_told_but_its_parent_is(name: str) -> None:
    resource = {**PATIENT, "name": [{"family": "Sampleton", name: True}]}
    (issue,) = find_issues(resource, "Patient")
    assert (issue.text, issue.expression) == (
        "not valid FHIR R4 (extra_forbidden)",
        "Patient.name[0]",
    )
