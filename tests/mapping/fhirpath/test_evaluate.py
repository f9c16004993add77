"""Paths and variables on a resource."""

from __future__ import annotations

from integration.mapping.fhirpath.evaluate import Evaluation
from tests.builders import TODAY


def test_a_condition_on_a_false_element_does_not_hold() -> None:
    patient = {"communication": [{"preferred": False}, {"preferred": True}, {}]}
    found = Evaluation({}, patient, [], today=TODAY).find_values("communication.where(preferred)")
    assert found == [{"preferred": True}]


def test_types_reach_through_variables() -> None:
    extension = [{"url": "u", "valueCode": "F"}]
    patient = {"resourceType": "Patient", "id": "1", "extension": extension}
    found = Evaluation({"mine": "extension.where(url = 'u')"}, patient, [], today=TODAY)
    assert found.find_values("%mine.value.ofType(code)") == ["F"]
    assert found.find_values("%mine.value.ofType(boolean)") == []


def test_types_reach_through_variables_where_fhirpathpy_is_needed() -> None:
    extension = [{"url": "u", "valueCode": "F"}]
    patient = {"resourceType": "Patient", "id": "1", "extension": extension}
    variables = {"mine": "extension.where(url = 'u')", "said": "%mine.value", "up": "%said.upper()"}
    found = Evaluation(variables, patient, [], today=TODAY)
    assert found.find_values("%mine.value.ofType(code).count()") == [1]
    assert found.find_values("%said.ofType(code)") == ["F"]
    assert found.find_values("%said.ofType(boolean)") == []
    assert found.find_values("%up.length()") == [1]


def test_an_element_with_a_resource_type_has_the_elements_of_that_resource() -> None:
    name = {"resourceType": "Observation", "family": "a", "valueString": "b"}
    found = Evaluation(
        {"mine": "name"}, {"resourceType": "Patient", "name": [name]}, [], today=TODAY
    )
    assert found.find_values("name.value") == found.find_values("%mine.value") == ["b"]
    assert found.find_values("name.family") == found.find_values("%mine.family") == ["a"]


def test_of_a_contained_resource_types_are_known() -> None:
    contained = [{"resourceType": "Observation", "id": "1", "valueString": "b"}]
    patient = {"resourceType": "Patient", "contained": contained, "deceasedBoolean": True}
    found = Evaluation({}, patient, [], today=TODAY)
    assert found.find_values("contained.value") == ["b"]
    assert found.find_values("deceased") == [True]
