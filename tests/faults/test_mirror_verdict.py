"""The judge of the mirror finds each kind of harm in the rows, and none where there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from faults.mirror_verdict import (
    NOTHING_ALLOWED,
    Allowance,
    FhirState,
    ShownRow,
    judge,
    judge_handed_over,
)

STATE = FhirState(
    person="P7",
    identity="Patient/7",
    version="3",
    name="P7~3",
    numbers=frozenset({"P7#1", "P7#2"}),
    owner="Organization/1",
)
GONE = FhirState(person="P7", identity="Patient/7")
ROW = ShownRow(
    key="k",
    fhir_id="7",
    version="3",
    name="P7~3",
    numbers=frozenset({"P7#1", "P7#2"}),
    owner="o",
    names=("P7~1", "P7~2", "P7~3"),
)
INACTIVE = replace(ROW, active=False)
MERGED = replace(INACTIVE, merged=True)


def list_harm(state: FhirState, *rows: ShownRow, allowed: Allowance = NOTHING_ALLOWED) -> list[str]:
    return [harm for harm, _ in judge(state, rows, allowed)]


def test_a_row_that_shows_its_resource_is_no_harm() -> None:
    assert list_harm(STATE, ROW) == []
    assert list_harm(GONE) == list_harm(GONE, INACTIVE) == list_harm(GONE, MERGED) == []
    assert list_harm(replace(STATE, active=False), INACTIVE) == []


@pytest.mark.parametrize(
    ("harm", "state", "rows"),
    [
        ("wrong_person", STATE, [replace(ROW, name="P8~3", names=())]),
        ("wrong_person", STATE, [replace(ROW, numbers=frozenset({"P7#1", "P8#2"}))]),
        ("lost", STATE, []),
        ("lost", STATE, [MERGED]),
        ("lost", STATE, [replace(ROW, owner=None)]),
        ("doubled", STATE, [ROW, replace(ROW, key="other")]),
        ("stale", STATE, [replace(ROW, version="2")]),
        ("stale", STATE, [replace(ROW, name="P7~2", names=())]),
        ("stale", STATE, [INACTIVE]),
        ("stale", STATE, [replace(ROW, numbers=frozenset({"P7#1"}))]),
        ("stale", STATE, [replace(ROW, names=("P7~2", "P7~1", "P7~3"))]),
        ("stale", STATE, [ROW, replace(MERGED, active=True)]),
        ("stale", GONE, [ROW]),
    ],
)
def test_a_row_that_shows_something_else_is_harm(
    harm: str, state: FhirState, rows: list[ShownRow]
) -> None:
    assert harm in list_harm(state, *rows)


def test_what_staff_have_done_is_not_the_mirrors_harm() -> None:
    assert list_harm(STATE, MERGED, allowed=Allowance(merged=True)) == []
    assert list_harm(STATE, allowed=Allowance(missing=True)) == []
    # But a merged row that is gone, or active, is.
    assert list_harm(STATE, allowed=Allowance(merged=True)) == ["lost"]
    active = replace(MERGED, active=True)
    assert list_harm(STATE, active, allowed=Allowance(merged=True)) == ["stale"]


def test_nobody_writes_a_row_that_was_made_somebody_elses() -> None:
    stranger = replace(ROW, fhir_id="s", name="S1~0")
    assert judge_handed_over("S1", "s", stranger) == []
    assert judge_handed_over("S1", "s", None)[0][0] == "lost"
    for row in (replace(stranger, fhir_id="7"), replace(stranger, name="P7~4")):
        assert judge_handed_over("S1", "s", row)[0][0] == "wrong_person"
