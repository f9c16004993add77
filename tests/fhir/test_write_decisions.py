"""Each row of the table of decisions, and that none depends on a clock or on content."""

from __future__ import annotations

import pytest

from integration.core import decimal_json
from integration.core.model import EntryResult
from integration.fhir import write_decisions
from integration.fhir.resource_states import ResourceState, ResourceVersion
from integration.fhir.units import CREATED, UnitEntry
from integration.fhir.write_decisions import ABSENT, Attempt, Candidate, Step
from integration.fhir.write_mark import Mark

OURS = "d5"
EARLIER, LATER = Mark(delivery="d3", position=0), Mark(delivery="d7", position=0)
OWN = Mark(delivery=OURS, position=0, digest="same")
OTHER = Mark(delivery=OURS, position=1)  # another entry of the same delivery
OWN_CREATE = Mark(delivery=CREATED, position=0)

FIRST = Attempt(delivery=OURS)
RETRY = Attempt(delivery=OURS, is_retry=True)
REPEAT = Attempt(delivery=OURS, is_repeat=True)
UNORDERED = Attempt(delivery=OURS, is_ordered=False, is_retry=True)


def entry(method: str = "PUT", *, created: bool = False, condition: str | None = None) -> UnitEntry:
    return UnitEntry(
        position=0,
        where="Patient",
        target="Patient/p1",
        full_url=None,
        method=method,
        created=created,
        awaits=(),
        body=decimal_json.Raw(b"{}"),
        condition=condition,
    )


def state(version: str, mark: Mark | None = None) -> ResourceState:
    return ResourceState(version=version, meta={}, mark=mark)


def candidate(
    found: ResourceState | None,
    base: str | None = None,
    *,
    of: UnitEntry | None = None,
) -> Candidate:
    return Candidate(entry=of or entry(), name="Patient/p1", state=found, base=base)


def version(number: int, mark: Mark | None = None) -> ResourceVersion:
    return ResourceVersion(version=str(number), resource={"id": "p1"}, mark=mark)


def edit(number: int, mark: Mark | None = None, over: int | None = None) -> ResourceVersion:
    """A version in which an edit from Dataverse was written."""
    edited = str(over or number - 1)
    return ResourceVersion(version=str(number), resource={"id": "p1"}, mark=mark, edited=edited)


def announced(number: int) -> ResourceVersion:
    """A version in which an earlier delivery has announced its delete."""
    resource = {"id": "p1"}
    return ResourceVersion(version=str(number), resource=resource, is_delete_announced=True)


def deletion(number: int) -> ResourceVersion:
    return ResourceVersion(version=str(number))


CREATE = entry(created=True)


@pytest.mark.parametrize(
    ("attempt", "found", "step"),
    [
        (FIRST, candidate(None), Step.SEND),
        (FIRST, candidate(state("4")), Step.SEND),
        (FIRST, candidate(state("4", EARLIER)), Step.SEND),
        (FIRST, candidate(state("4", LATER)), Step.SUPERSEDED),
        (FIRST, candidate(state("4", LATER), of=entry("DELETE")), Step.SUPERSEDED),
        (RETRY, candidate(state("4")), Step.SEND),  # no base: nothing was ever sent
        (RETRY, candidate(state("4", OTHER)), Step.ASK_HISTORY),
        (RETRY, candidate(state("4"), "4"), Step.SEND),
        (RETRY, candidate(state("5"), "4"), Step.ASK_HISTORY),
        (RETRY, candidate(None, "4"), Step.ASK_HISTORY),
        (RETRY, candidate(None, ABSENT), Step.ASK_HISTORY),
        (RETRY, candidate(None, ABSENT, of=entry("DELETE")), Step.SEND),
        (UNORDERED, candidate(state("5", LATER)), Step.ASK_HISTORY),
        (FIRST, candidate(None, of=CREATE), Step.SEND),
        (RETRY, candidate(None, of=CREATE), Step.ASK_HISTORY),
        (RETRY, candidate(state("1", OWN_CREATE), of=CREATE), Step.DONE),
        (RETRY, candidate(state("2", OWN_CREATE), of=CREATE), Step.ASK_HISTORY),
        (RETRY, candidate(state("2", LATER), of=CREATE), Step.DONE_AND_CHANGED),
        (REPEAT, candidate(state("9"), of=CREATE), Step.DONE_AND_CHANGED),
    ],
)
def test_what_the_present_state_decides(attempt: Attempt, found: Candidate, step: Step) -> None:
    assert write_decisions.decide(attempt, found) is step


@pytest.mark.parametrize(
    ("found", "versions", "step"),
    [
        (candidate(state("5", OWN), "4"), [version(5, OWN), version(4)], Step.DONE),
        (
            candidate(state("6"), "4"),
            [version(6), version(5, OWN), version(4)],
            Step.DONE_AND_CHANGED,
        ),
        (candidate(None, "4"), [deletion(6), version(5, OWN), version(4)], Step.DONE_AND_CHANGED),
        (candidate(state("5"), "4"), [version(5), version(4)], Step.CHANGED),
        (
            candidate(state("5", EARLIER), "4"),
            [version(5, EARLIER), version(4, EARLIER)],
            Step.CHANGED,  # somebody else's change that kept the mark
        ),
        (candidate(state("5", EARLIER), "4"), [version(5, EARLIER), version(4)], Step.SEND),
        # A history brings one resource twice, and its other state is written.
        (candidate(state("5", OTHER)), [version(5, OTHER), version(4)], Step.SEND),
        (
            candidate(state("5", OTHER)),
            [version(5, OTHER), version(4, OWN), version(3)],
            Step.DONE_AND_CHANGED,
        ),
        (
            candidate(state("6", OTHER)),
            [version(6, OTHER), version(5, LATER), version(4)],
            Step.SUPERSEDED,
        ),
        (candidate(state("5"), "4"), [edit(5), version(4)], Step.SEND),
        (candidate(state("5", EARLIER), "4"), [edit(5, EARLIER), version(4, EARLIER)], Step.SEND),
        (
            candidate(state("6", EARLIER), "4"),
            [edit(6, EARLIER), edit(5, EARLIER), version(4, EARLIER)],
            Step.SEND,
        ),
        (
            candidate(state("6", EARLIER), "4"),
            [edit(6, EARLIER, over=5), version(5, EARLIER), version(4, EARLIER)],
            Step.CHANGED,  # the edit is over somebody else's change
        ),
        (
            candidate(state("6", EARLIER), "4"),
            [edit(6, EARLIER, over=5), edit(5, EARLIER), version(4, EARLIER)],
            Step.SEND,
        ),
        (
            candidate(state("6", EARLIER), "4"),
            [edit(6, EARLIER, over=4), edit(5, EARLIER), version(4, EARLIER)],
            Step.CHANGED,  # somebody has changed the edited version, and kept what it says
        ),
        (
            candidate(state("6", LATER), "4"),
            [edit(6, LATER), version(5, LATER), version(4)],
            Step.SUPERSEDED,
        ),
        (
            candidate(state("5"), "4", of=entry("DELETE")),
            [edit(5), version(4)],
            Step.SEND,
        ),
        (candidate(state("5", LATER), "4"), [version(5, LATER), version(4)], Step.SUPERSEDED),
        (
            candidate(state("6", OWN), "4"),
            [version(6, OWN), version(5, LATER), version(4)],
            Step.OVERTAKEN,
        ),
        (
            candidate(state("2", OWN), ABSENT),
            [version(2, OWN), version(1, LATER)],
            Step.OVERTAKEN,
        ),
        (candidate(None, "4"), [deletion(5), version(4)], Step.CHANGED),
        (candidate(None, "4"), [deletion(6), announced(5), version(4)], Step.SEND),
        (candidate(None, ABSENT), [], Step.SEND),
        (
            candidate(None, "4", of=entry("DELETE")),
            [deletion(5), version(4)],
            Step.DONE,
        ),
        (
            candidate(None, "4", of=entry("DELETE")),
            [deletion(6), version(5, LATER), version(4)],
            Step.OVERTAKEN,
        ),
        (
            candidate(state("6"), "4", of=entry("DELETE")),
            [version(6), deletion(5), version(4)],
            Step.DONE_AND_CHANGED,
        ),
    ],
)
def test_what_the_history_decides(
    found: Candidate, versions: list[ResourceVersion], step: Step
) -> None:
    assert write_decisions.decide_by_history(RETRY, found, versions) is step


def test_a_create_that_was_deleted_since_is_told_to_who_sends_it_again() -> None:
    gone, versions = candidate(None, of=CREATE), [deletion(2), version(1, OWN_CREATE)]
    assert write_decisions.decide_by_history(REPEAT, gone, versions) is Step.DELETED
    result = write_decisions.build_result(gone, Step.DELETED)
    assert result.status == 409
    assert result.issues is not None
    assert "Idempotency-Key" in result.issues[0]["diagnostics"]


@pytest.mark.parametrize(
    ("found", "status", "etag", "may"),
    [
        (candidate(None), 201, 'W/"1"', False),
        (candidate(None), 200, 'W/"2"', True),
        (candidate(state("4")), 200, 'W/"5"', False),
        (candidate(state("4")), 200, 'W/"4"', False),  # nothing changed
        (candidate(state("4")), 200, 'W/"6"', True),
        (candidate(state("4"), of=entry("DELETE")), 204, 'W/"5"', False),
        (candidate(state("4"), of=entry("DELETE")), 204, None, True),
        (candidate(state("4"), of=entry(condition="Patient?a=b")), 200, 'W/"x"', True),
        (candidate(state("x")), 200, 'W/"y"', False),  # the server has kept the condition
    ],
)
def test_which_answers_tell_that_nobody_was_overtaken(
    found: Candidate, status: int, etag: str | None, may: bool
) -> None:
    result = EntryResult(position=0, status=status, etag=etag)
    assert write_decisions.may_have_overtaken(found, result) is may
