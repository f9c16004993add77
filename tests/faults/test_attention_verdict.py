"""The judge of the list finds what is missing there, and what is there and should not be."""

from __future__ import annotations

import pytest

from faults.attention_verdict import Difference, Due, ShownConcern, compare, find_missing
from faults.deliveries import EntryIntent, TrackedResource
from tests.faults.sent_and_held import WHO, make_accepted, make_held

PLACE = TrackedResource("Organization", "place")
ROW = ShownConcern(kind="row-refused", delivery="d", resource="Patient/who")


def make_intent(action: str, marker: str, thing: TrackedResource = WHO) -> EntryIntent:
    return EntryIntent(action, thing, marker)


FIRST, SECOND = make_intent("sets", "a"), make_intent("sets", "b")
BAD, GONE = make_intent("fails", "c"), make_intent("deletes", "d")


@pytest.mark.parametrize(
    ("intents", "markers", "missing"),
    [
        ((FIRST,), ("a",), set()),
        ((FIRST,), (), {0}),
        ((FIRST, SECOND), ("a", "b"), set()),
        ((FIRST, SECOND), ("b",), set()),  # a later write stands in its place
        ((FIRST, SECOND), ("a",), {1}),
        ((FIRST, BAD), ("a",), {1}),
        ((BAD, SECOND), ("b",), set()),  # it was corrected
        ((FIRST, GONE), ("a", None), set()),
        ((FIRST, GONE), (), set()),
        ((FIRST, GONE), ("a",), {1}),
    ],
)
def test_an_entry_is_missing_unless_it_or_a_later_one_was_written(
    intents: tuple[EntryIntent, ...], markers: tuple[str | None, ...], missing: set[int]
) -> None:
    assert find_missing([make_accepted(*intents)], make_held(*markers)) == {"1": missing}


def test_what_is_ensured_may_be_anybodys() -> None:
    ensured = make_accepted(make_intent("ensures", "x", PLACE))
    assert find_missing([ensured], make_held("y", thing=PLACE)) == {"1": frozenset()}
    assert find_missing([ensured], {}) == {"1": {0}}


def make_line(*positions: int, number: int = 0, kind: str = "entries") -> ShownConcern:
    return ShownConcern(
        kind=kind, delivery="1", positions=positions, number=number or len(positions)
    )


def count(found: list[Difference]) -> dict[str, int]:
    counts = {"unseen": 0, "false_alarms": 0}
    for difference in found:
        counts[difference.harm] += difference.number
    return counts


TWO = Due(entries={"1": frozenset({0, 7})})
MANY = frozenset(range(0, 60, 2))
FIRST_TWENTY = sorted(MANY)[:20]


@pytest.mark.parametrize(
    ("due", "shown", "refused", "unseen", "false_alarms"),
    [
        (TWO, [make_line(0, 7)], {0, 7}, 0, 0),
        (TWO, [], set(), 2, 0),
        (TWO, [make_line(0)], {0}, 1, 0),
        (TWO, [make_line(0, 7, 9)], {0, 7, 9}, 0, 1),
        (TWO, [make_line(0, 7), make_line(0, 7)], {0, 7}, 0, 1),
        (TWO, [make_line(kind="parked")], None, 0, 0),
        (TWO, [make_line(kind="parked")], {0, 7}, 2, 0),  # it is done
        (Due(), [make_line(kind="parked")], None, 0, 1),
        (Due(), [make_line(3)], {3}, 0, 1),
        (Due(entries={"1": MANY}), [make_line(*FIRST_TWENTY, number=30)], MANY, 0, 0),
        # The number, or the positions, are not those of the answer.
        (Due(entries={"1": MANY}), [make_line(*FIRST_TWENTY, number=29)], MANY, 10, 0),
        (Due(entries={"1": MANY}), [make_line(0, number=30)], MANY, 29, 0),
        (Due(rows=frozenset({"Patient/who"})), [ROW], set(), 0, 0),
        (Due(rows=frozenset({"Patient/who"})), [], set(), 1, 0),
        (Due(), [ROW], set(), 0, 1),
        (Due(rows=frozenset({"Patient/who"})), [ROW, ROW], set(), 0, 1),
        (Due(either=frozenset({"Patient/who"})), [ROW], set(), 0, 0),
        (Due(either=frozenset({"Patient/who"})), [], set(), 0, 0),
    ],
)
def test_the_list_is_compared_exactly(
    due: Due, shown: list[ShownConcern], refused: set[int] | None, unseen: int, false_alarms: int
) -> None:
    found = count(compare(due, shown, {} if refused is None else {"1": refused}))
    assert found == {"unseen": unseen, "false_alarms": false_alarms}


def test_a_request_without_an_answer_may_be_one_more_delivery() -> None:
    due = Due(repeats=[frozenset({3})])
    line = ShownConcern(kind="entries", delivery="unknown", positions=(3,), number=1)
    assert compare(due, [line], {}) == []
    assert count(compare(due, [line, line], {}))["false_alarms"] == 1


def test_what_nobody_has_sent_is_a_false_alarm() -> None:
    due = Due(repeats=[frozenset()])
    line = ShownConcern(kind="parked", delivery="unknown")
    assert count(compare(due, [line], {})) == {"unseen": 0, "false_alarms": 1}
