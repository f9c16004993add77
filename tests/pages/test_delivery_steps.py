"""The steps of a delivery's story."""

from __future__ import annotations

from integration.pages.delivery_steps import Step, group_steps

WELL = Step(time=None, title="read", is_call=True)
FAILED = Step(time=None, title="write", is_call=True, tone="bad")
END = Step(time=None, title="Finished")


def test_calls_that_went_well_and_follow_each_other_stand_together() -> None:
    assert group_steps([WELL, WELL, WELL, END]) == [(WELL, WELL, WELL), (END,)]


def test_what_failed_stands_for_itself_between_calls_that_went_well() -> None:
    steps = [WELL, WELL, WELL, FAILED, FAILED, FAILED, WELL]
    assert group_steps(steps) == [(WELL, WELL, WELL), (FAILED,), (FAILED,), (FAILED,), (WELL,)]


def test_a_few_calls_are_shown_one_by_one() -> None:
    assert group_steps([WELL, WELL, END]) == [(WELL,), (WELL,), (END,)]


def test_steps_that_are_no_calls_are_never_folded() -> None:
    assert group_steps([END] * 5) == [(END,)] * 5
