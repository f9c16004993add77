"""The judge finds each kind of harm, and finds none where there is none."""

from __future__ import annotations

import pytest

from faults.deliveries import EntryIntent, TrackedResource
from faults.verdict import (
    HARM,
    AcceptedDelivery,
    EntryAnswer,
    StoredContact,
    StoredResource,
    Tally,
    judge_deliveries,
)
from tests.faults.sent_and_held import WHO, make_accepted, make_held

WEIGHT = TrackedResource("Observation", "weight")
CLINIC = TrackedResource("Organization", "clinic")


def make_set(thing: TrackedResource, marker: str, sequence: int = 0) -> EntryIntent:
    return EntryIntent("sets", thing, marker, sequence)


def make_contact(*versions: str, number: int = 1, active: bool = True) -> dict[str, StoredContact]:
    return {
        "Patient/who": StoredContact(number, versions[-1] if versions else None, active, versions)
    }


def list_harm(tally: Tally) -> list[str]:
    return [found.harm for found in tally.findings]


FIRST, SECOND = make_set(WHO, "a"), make_set(WHO, "b")
DELETED = EntryIntent("deletes", WHO, "gone")
SUPERSEDED = EntryAnswer(409, "superseded: a later delivery has written this resource already")


def test_what_arrived_as_it_was_sent_is_counted_and_harmless() -> None:
    done = [make_accepted(FIRST), make_accepted(SECOND, id_="2")]
    tally = judge_deliveries(done, make_held("a", "b"), make_contact("1", "2"), "here")
    assert tally.is_harmless
    tally.injected.update({"kills": 1, "copies": 2})
    assert str(tally) == (
        "faults: injected=3 entries=2 written=2 refused=0 lost=0 doubled=0 stale=0 unexplained=0 "
        "wrong_person=0 unseen=0 false_alarms=0"
    )


@pytest.mark.parametrize(
    ("found", "held", "rows"),
    [
        ("lost", {}, {}),
        ("lost", make_held("a"), make_contact("1")),
        ("doubled", {WHO: StoredResource(("Patient/who", "Patient/x"))}, make_contact("1")),
        ("stale", make_held("b", "a"), make_contact("2")),
        ("stale", make_held("a", "b", "a"), make_contact("3")),
        ("lost", make_held("a", "b"), {}),
        ("doubled", make_held("a", "b"), make_contact("2", number=2)),
        ("stale", make_held("a", "b"), make_contact("1")),
        ("stale", make_held("a", "b"), make_contact("2", active=False)),
        ("stale", make_held("a", "b"), make_contact("1", "2", "1", "2")),
    ],
)
def test_two_updates_that_are_not_there_in_their_order_are_harm(
    found: str, held: dict[TrackedResource, StoredResource], rows: dict[str, StoredContact]
) -> None:
    tally = judge_deliveries(
        [make_accepted(FIRST), make_accepted(SECOND, id_="2")], held, rows, "here"
    )
    assert found in list_harm(tally)
    assert not tally.is_harmless


def test_a_deletion_that_an_update_before_it_has_undone_is_stale() -> None:
    both = [make_accepted(FIRST), make_accepted(DELETED, id_="2")]
    assert list_harm(judge_deliveries(both, make_held("a", None), {}, "here")) == []
    assert "stale" in list_harm(judge_deliveries(both, make_held("a"), make_contact("1"), "here"))
    assert "stale" in list_harm(
        judge_deliveries(both, make_held("a", None, "a"), make_contact("3"), "here")
    )


def test_a_deletion_that_came_first_leaves_no_trace_where_all_before_it_is_superseded() -> None:
    late = make_accepted(FIRST, answers=[SUPERSEDED])
    rest = [make_accepted(DELETED, id_="2"), make_accepted(SECOND, id_="3")]
    assert judge_deliveries([late, *rest], make_held("b"), make_contact("1"), "here").is_harmless
    assert "stale" in list_harm(
        judge_deliveries(
            [make_accepted(FIRST), *rest], make_held("a", "b"), make_contact("2"), "here"
        )
    )


def test_the_contact_of_a_deleted_patient_must_not_stay_active() -> None:
    both = [make_accepted(FIRST), make_accepted(DELETED, id_="2")]
    assert list_harm(judge_deliveries(both, make_held("a", None), make_contact("1"), "here")) == [
        "stale"
    ]
    assert (
        list_harm(
            judge_deliveries(both, make_held("a", None), make_contact("1", active=False), "here")
        )
        == []
    )


def test_a_superseded_entry_is_explained_only_by_something_later() -> None:
    late = make_accepted(FIRST, answers=[SUPERSEDED])
    tally = judge_deliveries(
        [late, make_accepted(SECOND, id_="2")], make_held("b"), make_contact("1"), "here"
    )
    assert (list_harm(tally), tally.counts["superseded"]) == ([], 1)
    assert "unexplained" in list_harm(judge_deliveries([late], {}, {}, "here"))


def test_versions_of_a_history_count_by_their_turn_not_by_their_place() -> None:
    newest_first = make_accepted(make_set(WHO, "b", 2), make_set(WHO, "a", 1))
    assert judge_deliveries(
        [newest_first], make_held("a", "b"), make_contact("2"), "here"
    ).is_harmless
    assert list_harm(
        judge_deliveries([newest_first], make_held("b", "a"), make_contact("2"), "here")
    ) == ["stale"]


def test_a_conditional_create_that_many_ask_for_is_there_once_by_whomever() -> None:
    many = [make_accepted(EntryIntent("ensures", CLINIC, marker), id_=marker) for marker in "ab"]
    assert judge_deliveries(many, make_held("b", thing=CLINIC), {}, "here").is_harmless
    twice = make_held("b", "a", thing=CLINIC)
    assert list_harm(judge_deliveries(many, twice, {}, "here")) == ["doubled"]
    assert list_harm(judge_deliveries(many, {}, {}, "here")) == ["lost"]


def test_a_refusal_without_cause_or_a_missing_answer_is_unexplained() -> None:
    refused = make_accepted(make_set(WEIGHT, "w"), answers=[EntryAnswer(422, "no")])
    assert list_harm(judge_deliveries([refused], {}, {}, "here")) == ["unexplained"]
    held = make_held("w", thing=WEIGHT)
    assert list_harm(judge_deliveries([refused], held, {}, "here")) == [
        "unexplained",
        "unexplained",
    ]
    short = make_accepted(make_set(WEIGHT, "w"), answers=[])
    assert "unexplained" in list_harm(judge_deliveries([short], held, {}, "here"))
    stuck = AcceptedDelivery(short.sent, "http://host/deliveries/1", None, "202 processing")
    assert judge_deliveries([stuck], held, {}, "here").counts["unexplained"] == 1


def test_what_is_wrong_is_to_be_refused_with_an_issue_and_nowhere() -> None:
    wrong = EntryIntent("fails", WEIGHT, "w")
    assert judge_deliveries(
        [make_accepted(wrong, answers=[EntryAnswer(400, "no code")])], {}, {}, "here"
    ).is_harmless
    assert list_harm(
        judge_deliveries([make_accepted(wrong, answers=[EntryAnswer(400)])], {}, {}, "here")
    ) == ["unexplained"]
    assert list_harm(judge_deliveries([make_accepted(wrong)], {}, {}, "here")) == [
        "unexplained",
        "lost",
    ]


@pytest.mark.parametrize(
    ("counter", "answers", "held", "rows"),
    [
        ("lost", [EntryAnswer(200)], {}, {}),
        (
            "doubled",
            [EntryAnswer(200)],
            {WHO: StoredResource(("Patient/who", "Patient/x"))},
            make_contact("1"),
        ),
        ("stale", [EntryAnswer(200)], make_held("a", "a"), make_contact("2")),
        ("unexplained", [EntryAnswer(422, "no")], {}, {}),
    ],
)
def test_each_counter_shows_its_harm_in_the_last_line(
    counter: str,
    answers: list[EntryAnswer],
    held: dict[TrackedResource, StoredResource],
    rows: dict[str, StoredContact],
) -> None:
    tally = judge_deliveries([make_accepted(FIRST, answers=answers)], held, rows, "here")
    assert not tally.is_harmless
    assert f" {counter}=1" in str(tally)
    assert all(f" {other}=0" in str(tally) for other in HARM if other != counter)


def test_tallies_of_several_scenarios_add_up() -> None:
    tally = judge_deliveries([make_accepted(FIRST)], {}, {}, "one")
    tally.injected["kills"] = 1
    other = judge_deliveries([make_accepted(FIRST)], {}, {}, "two")
    other.injected.update({"kills": 2, "copies": 3})
    tally.add(other)
    assert "injected=6 entries=2 written=2 refused=0 lost=2" in str(tally)
    assert tally.injected == {"kills": 3, "copies": 3}
    assert {found.where.partition(":")[0] for found in tally.findings} == {"one", "two"}


def test_a_finding_names_the_deliveries_that_would_show_it_again() -> None:
    both = [make_accepted(FIRST), make_accepted(SECOND, id_="2")]
    (found,) = judge_deliveries(
        both, make_held("b", "a"), make_contact("2"), "seed 7, killed"
    ).findings
    assert found.where == "seed 7, killed: batch 1 > batch 2"
    assert found.what == "Patient who: an earlier state after a later one: 1, 0"
