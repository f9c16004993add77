"""The verdict on edits finds each harm, and no other: else a clean run of the suite means nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from faults.edit_verdict import EditedPatient, judge_edits

# Staff typed e2, which reached FHIR; then the EHR sent s3.
WELL = EditedPatient(
    name="E1",
    history=("E1:s1", "E1:e2", "E1:e2", "E1:s3"),
    shown=("E1:s1", "E1:e2", "E1:s3"),
    versions=("4", "4"),
    given=("E1:s1", "E1:e2", "E1:s3"),
    noted=0,
    signed=1,
    answer="done",
)
# The EHR sent s3 before e2 was seen: the rule left FHIR as it was, and said so.
REPLACED = replace(WELL, history=("E1:s1", "E1:s3"), versions=("2", "2"), noted=1, signed=0)


@pytest.mark.parametrize("patient", [WELL, REPLACED])
def test_what_went_well_has_no_harm(patient: EditedPatient) -> None:
    assert judge_edits(patient) == []


def test_what_staff_have_typed_over_is_their_own() -> None:
    shown = ("E1:s1", "E1:e2", "E1:e3")
    history, given = ("E1:s1", "E1:e3"), ("E1:s1", "E1:e2", "E1:e3")
    patient = replace(WELL, shown=shown, history=history, given=given)
    assert judge_edits(patient) == []


@pytest.mark.parametrize(
    ("patient", "harms"),
    [
        (replace(WELL, versions=("4", "3")), ["stale"]),
        (replace(WELL, shown=("E1:s1", "E1:e2")), ["stale"]),
        (replace(REPLACED, noted=0), ["lost"]),
        (replace(WELL, given=("E1:s1", "E1:e2", "E1:s3", "E1:s4")), ["lost"]),
        (replace(WELL, history=("E1:s1", "E1:e2", "E1:s3", "E1:e2", "E1:s3")), ["doubled"]),
        (replace(WELL, signed=2), ["unexplained"]),
        (replace(WELL, signed=0), ["unexplained"]),
        (replace(WELL, history=("E1:s0", "E1:s1", "E1:e2", "E1:s3")), ["unexplained"]),
        (replace(WELL, history=("E1:s1", "E1:e2", "E2:s9", "E1:s3")), ["wrong_person"]),
        (replace(WELL, shown=("E1:s1", "E2:e9", "E1:e2", "E1:s3")), ["wrong_person"]),
    ],
)
def test_each_harm_is_found(patient: EditedPatient, harms: list[str]) -> None:
    assert [harm for harm, _ in judge_edits(patient)] == harms
