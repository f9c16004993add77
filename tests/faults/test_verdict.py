"""The judge finds each kind of harm, and finds none where there is none."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from faults.deliveries import Delivery, EntryIntent, TrackedResource
from faults.verdict import (
    AcceptedDelivery,
    EntryAnswer,
    StoredContact,
    StoredResource,
    Tally,
    judge_deliveries,
)

WHO = TrackedResource("Patient", "who", "Patient/who")
WEIGHT = TrackedResource("Observation", "weight")
CLINIC = TrackedResource("Organization", "clinic")


def told(
    *asked: EntryIntent, answers: Sequence[EntryAnswer] | None = None, id_: str = "1"
) -> AcceptedDelivery:
    given = [EntryAnswer(200)] * len(asked) if answers is None else answers
    return AcceptedDelivery(
        Delivery(name="batch", body=b"", intents=tuple(asked)),
        f"http://host/deliveries/{id_}",
        given,
    )


def sets(thing: TrackedResource, mark: str, turn: int = 0) -> EntryIntent:
    return EntryIntent("sets", thing, mark, turn)


def states(
    *marks: str | None, thing: TrackedResource = WHO
) -> dict[TrackedResource, StoredResource]:
    """What the server holds of a thing, one version after the other."""
    numbered = tuple((str(n), mark) for n, mark in enumerate(marks, 1))
    return {thing: StoredResource((thing.identity or f"{thing.type}/1",), numbered)}


def shown(*versions: str, number: int = 1, active: bool = True) -> dict[str, StoredContact]:
    return {
        "Patient/who": StoredContact(number, versions[-1] if versions else None, active, versions)
    }


def harm(tally: Tally) -> list[str]:
    return [found.harm for found in tally.findings]


FIRST, SECOND = sets(WHO, "a"), sets(WHO, "b")
DELETED = EntryIntent("deletes", WHO, "gone")
SUPERSEDED = EntryAnswer(409, "superseded: a later delivery has written this resource already")


def test_what_arrived_as_it_was_sent_is_counted_and_harmless() -> None:
    done = [told(FIRST), told(SECOND, id_="2")]
    tally = judge_deliveries(done, states("a", "b"), shown("1", "2"), "here")
    assert tally.is_harmless
    tally.counts["injected"] += 3
    assert str(tally) == (
        "faults: injected=3 entries=2 written=2 refused=0 lost=0 doubled=0 stale=0 unexplained=0"
    )


@pytest.mark.parametrize(
    ("found", "held", "rows"),
    [
        ("lost", {}, {}),
        ("lost", states("a"), shown("1")),
        ("doubled", {WHO: StoredResource(("Patient/who", "Patient/x"))}, shown("1")),
        ("stale", states("b", "a"), shown("2")),
        ("stale", states("a", "b", "a"), shown("3")),
        ("lost", states("a", "b"), {}),
        ("doubled", states("a", "b"), shown("2", number=2)),
        ("stale", states("a", "b"), shown("1")),
        ("stale", states("a", "b"), shown("2", active=False)),
        ("stale", states("a", "b"), shown("1", "2", "1", "2")),
    ],
)
def test_two_updates_that_are_not_there_in_their_order_are_harm(
    found: str, held: dict[TrackedResource, StoredResource], rows: dict[str, StoredContact]
) -> None:
    tally = judge_deliveries([told(FIRST), told(SECOND, id_="2")], held, rows, "here")
    assert found in harm(tally)
    assert not tally.is_harmless


def test_a_deletion_that_an_update_before_it_has_undone_is_stale() -> None:
    both = [told(FIRST), told(DELETED, id_="2")]
    assert harm(judge_deliveries(both, states("a", None), {}, "here")) == []
    assert "stale" in harm(judge_deliveries(both, states("a"), shown("1"), "here"))
    assert "stale" in harm(judge_deliveries(both, states("a", None, "a"), shown("3"), "here"))


def test_a_deletion_that_came_first_leaves_no_trace_where_all_before_it_is_superseded() -> None:
    late = told(FIRST, answers=[SUPERSEDED])
    rest = [told(DELETED, id_="2"), told(SECOND, id_="3")]
    assert judge_deliveries([late, *rest], states("b"), shown("1"), "here").is_harmless
    assert "stale" in harm(
        judge_deliveries([told(FIRST), *rest], states("a", "b"), shown("2"), "here")
    )


def test_the_contact_of_a_deleted_patient_must_not_stay_active() -> None:
    both = [told(FIRST), told(DELETED, id_="2")]
    assert harm(judge_deliveries(both, states("a", None), shown("1"), "here")) == ["stale"]
    assert harm(judge_deliveries(both, states("a", None), shown("1", active=False), "here")) == []


def test_a_superseded_entry_is_explained_only_by_something_later() -> None:
    late = told(FIRST, answers=[SUPERSEDED])
    tally = judge_deliveries([late, told(SECOND, id_="2")], states("b"), shown("1"), "here")
    assert (harm(tally), tally.counts["superseded"]) == ([], 1)
    assert "unexplained" in harm(judge_deliveries([late], {}, {}, "here"))


def test_versions_of_a_history_count_by_their_turn_not_by_their_place() -> None:
    newest_first = told(sets(WHO, "b", 2), sets(WHO, "a", 1))
    assert judge_deliveries([newest_first], states("a", "b"), shown("2"), "here").is_harmless
    assert harm(judge_deliveries([newest_first], states("b", "a"), shown("2"), "here")) == ["stale"]


def test_a_conditional_create_that_many_ask_for_is_there_once_by_whomever() -> None:
    many = [told(EntryIntent("ensures", CLINIC, mark), id_=mark) for mark in "ab"]
    assert judge_deliveries(many, states("b", thing=CLINIC), {}, "here").is_harmless
    twice = states("b", "a", thing=CLINIC)
    assert harm(judge_deliveries(many, twice, {}, "here")) == ["doubled"]
    assert harm(judge_deliveries(many, {}, {}, "here")) == ["lost"]


def test_what_is_refused_without_cause_or_not_told_of_is_unexplained() -> None:
    refused = told(sets(WEIGHT, "w"), answers=[EntryAnswer(422, "no")])
    assert harm(judge_deliveries([refused], {}, {}, "here")) == ["unexplained"]
    there = states("w", thing=WEIGHT)
    assert harm(judge_deliveries([refused], there, {}, "here")) == ["unexplained", "unexplained"]
    short = told(sets(WEIGHT, "w"), answers=[])
    assert "unexplained" in harm(judge_deliveries([short], there, {}, "here"))
    stuck = AcceptedDelivery(short.sent, "http://host/deliveries/1", None, "202 processing")
    assert judge_deliveries([stuck], there, {}, "here").counts["unexplained"] == 1


def test_what_is_wrong_is_to_be_refused_and_nowhere() -> None:
    wrong = EntryIntent("fails", WEIGHT, "w")
    assert judge_deliveries([told(wrong, answers=[EntryAnswer(400)])], {}, {}, "here").is_harmless
    assert harm(judge_deliveries([told(wrong)], {}, {}, "here")) == ["unexplained", "lost"]


def test_a_finding_names_the_deliveries_that_would_show_it_again() -> None:
    both = [told(FIRST), told(SECOND, id_="2")]
    (found,) = judge_deliveries(both, states("b", "a"), shown("2"), "seed 7, killed").findings
    assert found.where == "seed 7, killed: batch 1 > batch 2"
    assert found.what == "Patient who: an earlier state after a later one: 1, 0"
