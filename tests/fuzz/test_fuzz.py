"""Hostile deliveries in small: whatever the bytes, they are refused or planned, and quoted nowhere.

`make fuzz` is the same in large, and looks at how time and memory grow.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from fuzz import trial
from fuzz.cases import Case, make_case
from fuzz.growth import SHAPES, measure_growths
from fuzz.trial import BROKEN, PLANNED, REJECTED, try_case
from fuzz.values import MARKER
from integration.core.errors import Issue, Rejected
from integration.fhir.plan import Plan
from integration.intake import accept
from tests.randomness import make_seed, scale

CASES = scale(2000)


def find_planned_case() -> Case:
    """The first that is planned."""
    return next(
        made for made in map(make_test_case, range(CASES)) if try_case(made).outcome == PLANNED
    )


def make_test_case(number: int) -> Case:
    return make_case(make_seed("tests"), number)


@pytest.mark.seeded
def test_every_delivery_is_refused_or_planned() -> None:
    results = [try_case(make_test_case(number)) for number in range(CASES)]
    assert [result for result in results if result.outcome == BROKEN] == []
    # Both are worth a test only if both happen often.
    for end in (REJECTED, PLANNED):
        assert sum(result.outcome == end for result in results) > CASES / 5


@pytest.mark.slow
def test_every_shape_that_could_grow_is_refused_or_planned() -> None:
    assert [(growth.name, growth.broken) for growth in measure_growths([30]) if growth.broken] == []
    assert len(SHAPES) > 20


def test_the_same_number_is_the_same_case_and_another_another() -> None:
    assert [make_test_case(number) for number in range(20)] == [
        make_test_case(number) for number in range(20)
    ]
    assert make_test_case(1).request != make_test_case(2).request
    assert make_test_case(1).request != make_case("other", 1).request


def test_an_exception_that_is_no_refusal_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Plan:
        raise KeyError("p1")

    made = find_planned_case()
    monkeypatch.setattr(trial, "plan", broken)
    assert try_case(made).outcome == BROKEN


def test_a_lost_entry_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    made = find_planned_case()
    monkeypatch.setattr(trial, "plan", lambda *_: Plan(()))
    assert "an entry is lost" in try_case(made).why


def test_a_value_in_an_issue_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def telling(*_: object) -> None:
        raise Rejected(Issue("value", f"{MARKER} is no date"))

    made = find_planned_case()
    monkeypatch.setattr(accept, "parse_contents", telling)
    assert "quotes a value" in try_case(made).why


def test_a_value_in_the_log_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def logging_it(*_: object) -> None:
        logging.getLogger("integration.intake").info("read %s", MARKER)
        raise Rejected(Issue("value", "not a date"))

    made = find_planned_case()
    monkeypatch.setattr(accept, "parse_contents", logging_it)
    assert "the log quotes a value" in try_case(made).why


def test_a_refusal_that_blames_the_relay_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def blaming(*_: object) -> None:
        raise Rejected(Issue("exception", "not now"), status=500)

    made = replace(find_planned_case(), number=1)
    monkeypatch.setattr(accept, "parse_contents", blaming)
    assert "a rejection is no 4xx" in try_case(made).why
