"""Paths find the same values in FHIRPath as in JSONPath, read by a library that is not ours."""

from __future__ import annotations

import json
from typing import Any

import jsonpath
import pytest

from integration.mapping.fhirpath.evaluate import Evaluation
from integration.mapping.toolkit.translate import translate
from tests.builders import TODAY
from tests.mapping.toolkit.element_maps import EXACT, OWN, PUBLISHED, RELIGION, real_patients

PATHS = [*(json.loads(each)["s"] for each in PUBLISHED), *EXACT]


def ours(path: str, patient: dict[str, Any]) -> list[Any]:
    return Evaluation({}, patient, [], today=TODAY).find_values(translate(path, "Patient").path)


def theirs(path: str, patient: dict[str, Any]) -> list[Any]:
    return jsonpath.findall(path, patient)


@pytest.mark.parametrize("path", PATHS)
def test_a_path_finds_in_fhirpath_what_it_finds_in_jsonpath(path: str) -> None:
    assert translate(path, "Patient").caveats == ()
    found = [ours(path, patient) for patient in OWN]
    assert found == [theirs(path, patient) for patient in OWN]
    assert any(found), "no Patient here has such a value: the comparison says nothing"


@pytest.mark.parametrize("path", PATHS)
def test_it_does_so_on_patients_of_other_systems(path: str) -> None:
    if not real_patients():
        pytest.skip("BUNDLES_DIR names no folder of bundles")
    for patient in real_patients():
        assert ours(path, patient) == theirs(path, patient)


def test_a_position_counts_in_each_list_by_itself() -> None:
    patient = {"name": [{"use": "old"}, {"use": "old", "given": ["A", "B"]}]}
    path = "$.name[?(@.use=='old')].given[1]"
    assert ours(path, patient) == theirs(path, patient) == ["B"]


def test_the_first_of_several_extensions_may_lack_the_value() -> None:
    path = f"$.extension[?(@.url=='{RELIGION}')].valueCodeableConcept.coding[0].display"
    first = {"url": RELIGION, "valueCodeableConcept": {"coding": [{"code": "no display"}]}}
    second = {"url": RELIGION, "valueCodeableConcept": {"coding": [{"display": "shown"}]}}
    patient = {"resourceType": "Patient", "extension": [first, second]}
    assert ours(path, patient) == theirs(path, patient) == ["shown"]


def test_an_element_that_is_not_there_differs_from_nothing() -> None:
    # So it is in Json.NET; RFC 9535 and the library above would have it differ.
    patient = {"name": [{"family": "no use"}, {"use": "old", "family": "old"}]}
    assert ours("$.name[?(@.use!='usual')].family", patient) == ["old"]


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        ("$.name.family", "Usual", "list"),
        ("$.name[?(@.use=='usual')][0].family", "Usual", "no list"),
        ("$.name[0].given", "Eve", ""),
        ("$.gender[0]", "other", "no list"),
        ("$.gender[*]", "other", "no list"),
        ("$.maritalStatus[?(@.text)].text", "married", "no list"),
        ("$.name[?(@.given=='Eve')].family", "Usual", "equals nothing"),
        ("$.name[?(@.use=='x' && @.family || @.use=='usual')].family", "Usual", "bind"),
    ],
)
def test_where_jsonpath_finds_nothing_the_likely_meaning_is_taken_and_told(
    path: str, value: str, word: str
) -> None:
    patient = {
        "resourceType": "Patient",
        "gender": "other",
        "maritalStatus": {"text": "married"},
        "name": [{"use": "usual", "family": "Usual", "given": ["Eve"]}],
    }
    assert ours(path, patient) == [value]
    said = translate(path, "Patient")
    assert said.is_list if not word else any(word in caveat for caveat in said.caveats)
