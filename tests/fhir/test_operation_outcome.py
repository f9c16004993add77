"""What the FHIR server complains about points into the sender's delivery."""

from __future__ import annotations

from typing import Any

import pytest

from integration.fhir.operation_outcome import parse_outcome, translate

# The unit holds the sender's entries 7 and 2, in this order.
SENT = ["Bundle.entry[7]", "Bundle.entry[2]"]


def issue(**more: Any) -> dict[str, Any]:
    return {"severity": "error", "code": "invalid"} | more


def test_a_position_in_the_unit_becomes_the_senders() -> None:
    reported = translate([issue(expression=["Bundle.entry[1].resource.code"])], SENT)
    assert reported == [issue(expression=["Bundle.entry[2].resource.code"])]


def test_a_position_in_the_details_is_that_of_the_delivery_too() -> None:
    stated = issue(details={"text": "wrong at Bundle.entry[1].resource.status"})
    assert translate([stated], SENT) == [
        issue(details={"text": f"wrong at {SENT[1]}.resource.status"})
    ]


def test_a_position_in_a_text_becomes_the_senders_too() -> None:
    reported = translate([issue(diagnostics="Bundle.entry[0]: a code is missing")], SENT)
    assert reported == [issue(diagnostics="Bundle.entry[7]: a code is missing")]


@pytest.mark.parametrize(
    ("stated", "where", "expected"),
    [
        ("Patient.gender", "Bundle.entry[7]", "Bundle.entry[7].resource.gender"),
        ("Patient", "Bundle.entry[7]", "Bundle.entry[7].resource"),
        ("Patient.gender", "Patient", "Patient.gender"),
        ("Patient.gender", "line 7", "Patient.gender"),
        ("name.family", "Bundle.entry[7]", "name.family"),
    ],
)
def test_an_element_of_a_resource_is_named_from_the_bundle(
    stated: str, where: str, expected: str
) -> None:
    assert translate([issue(expression=[stated])], [where], where) == [issue(expression=[expected])]


def test_a_position_that_was_not_sent_stays_as_it_is() -> None:
    reported = translate([issue(expression=["Bundle.entry[9]"])], SENT)
    assert reported == [issue(expression=["Bundle.entry[9]"])]


def test_without_issues_there_is_nothing_to_translate() -> None:
    assert translate(None, SENT) is None


@pytest.mark.parametrize("outcome", [None, "no", {}, {"issue": None}, {"issue": ["no"]}])
def test_what_is_no_outcome_has_no_issues(outcome: Any) -> None:
    assert parse_outcome(outcome) is None
