"""What an earlier try has done, as far as the server's answer proves it."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from integration.fhir.previous_attempt import UnconfirmedEntry, find_settled, list_matches

from integration.core import decimal_json
from integration.core.model import EntryResult
from integration.fhir.units import UnitEntry

TRIED = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
BEFORE, AFTER = "2026-03-01T11:59:59.999Z", "2026-03-01T13:00:00+01:00"
OURS = {"resourceType": "Patient", "id": "1", "active": True}


def make_entry(
    position: int,
    method: str = "PUT",
    resource: dict[str, Any] | None = None,
    *,
    created: bool = False,
) -> UnconfirmedEntry:
    raw = decimal_json.Raw(b"{}")
    where, name = f"Bundle.entry[{position}]", f"Patient/{position}"
    entry = UnitEntry(
        position=position,
        where=where,
        target=name,
        full_url=None,
        method=method,
        created=created,
        awaits=(),
        body=raw,
    )
    return UnconfirmedEntry(entry=entry, name=name, attempted_at=TRIED, resource=resource)


CREATED, UPDATED, DELETED = (
    make_entry(0, created=True),
    make_entry(1, "PUT", OURS),
    make_entry(2, "DELETE"),
)
PATCHED = make_entry(3, "PATCH")


def make_response(status: str | None, resource: Any = None) -> dict[str, Any]:
    answer: dict[str, Any] = {"response": {"status": status}}
    return answer | ({"resource": resource} if resource else {})


def make_state(updated: str, **elements: Any) -> dict[str, Any]:
    meta = {"versionId": "7", "lastUpdated": updated}
    return make_response("200", {**OURS, "meta": meta, **elements})


def settle(
    *pairs: tuple[UnconfirmedEntry, Any], whole: bool = False, repeat: bool = False
) -> dict[int, EntryResult] | None:
    ones, answers = [unconfirmed for unconfirmed, _ in pairs], [answer for _, answer in pairs]
    return find_settled(ones, answers, atomic=whole, repeat=repeat)


def settle_one(unconfirmed: UnconfirmedEntry, answer: Any) -> EntryResult | None:
    found = settle((unconfirmed, answer))
    assert found is not None
    return found.get(unconfirmed.entry.position)


# -- one entry ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["200", "410 Gone"])
def test_a_create_that_was_there_once_is_done(status: str) -> None:
    found = settle_one(CREATED, make_response(status))
    assert found is not None
    assert (found.is_written, found.location) == (True, "Patient/0")


def test_a_create_that_is_not_there_is_to_be_sent() -> None:
    assert settle_one(CREATED, make_response("404")) is None


@pytest.mark.parametrize("updated", [BEFORE, AFTER])
def test_an_update_that_is_there_is_done(updated: str) -> None:
    found = settle_one(UPDATED, make_state(updated))
    assert found is not None
    assert (found.status, found.location) == (200, "Patient/1/_history/7")


def test_an_older_state_is_to_be_overwritten() -> None:
    assert settle_one(UPDATED, make_state(BEFORE, active=False)) is None


@pytest.mark.parametrize("updated", [AFTER, "", "yesterday", "2026-03-01T12:00:00"])
def test_a_newer_state_or_one_of_unknown_age_is_left_alone(updated: str) -> None:
    found = settle_one(UPDATED, make_state(updated, active=False))
    assert found is not None
    assert (found.status, found.superseded, found.is_written) == (409, True, False)


@pytest.mark.parametrize("status", ["404", "410"])
def test_an_update_of_what_is_not_there_is_to_be_sent(status: str) -> None:
    assert settle_one(UPDATED, make_response(status)) is None


@pytest.mark.parametrize("status", ["404", "410"])
def test_a_delete_of_what_is_not_there_is_done(status: str) -> None:
    found = settle_one(DELETED, make_response(status))
    assert found is not None
    assert found.status == 204


def test_a_delete_spares_what_came_after_it() -> None:
    assert settle_one(DELETED, make_state(BEFORE)) is None
    spared = settle_one(DELETED, make_state(AFTER))
    assert spared is not None
    assert spared.superseded


def test_a_patch_is_sent_again_only_where_nothing_has_changed_since() -> None:
    assert settle_one(PATCHED, make_state(BEFORE)) is None
    unclear = settle_one(PATCHED, make_state(AFTER))
    assert unclear is not None
    assert unclear.is_written
    assert unclear.issues is not None
    assert unclear.issues[0]["severity"] == "warning"


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ({"value": Decimal("1.10")}, {"value": Decimal("1.1")}, True),
        ({"value": Decimal("1.10")}, {"value": Decimal("1.2")}, False),
        ({"list": [1, 2]}, {"list": [2, 1]}, False),
        ({"meta": {"versionId": "1"}}, {}, True),
        ({"meta": {"tag": [{"code": "a"}]}}, {"tag": [{"code": "b"}, {"code": "a"}]}, True),
        ({"meta": {"tag": [{"code": "a"}]}}, {"tag": [{"code": "b"}]}, False),
        ({"meta": {"source": "a"}}, {"source": "b"}, False),
        ({"id": "2"}, {}, False),
        ({"active": False}, {}, False),
        ({"added": "x"}, {}, False),
    ],
)
def test_what_counts_as_the_same(ours: Any, theirs: Any, same: bool) -> None:
    """A server adds versions and tags, and may drop the digits of a decimal."""
    answer = make_state(BEFORE)
    tags = {name: value for name, value in theirs.items() if name in ("tag", "source")}
    answer["resource"]["meta"] |= tags
    answer["resource"] |= {name: value for name, value in theirs.items() if name not in tags}
    found = settle_one(make_entry(1, "PUT", {**OURS, **ours}), answer)
    assert (found is not None) is same


def test_a_conditional_update_is_the_same_under_the_server_s_own_id() -> None:
    ours = {name: value for name, value in OURS.items() if name != "id"}
    assert settle_one(make_entry(1, "PUT", ours), make_state(BEFORE)) is not None


# -- a whole transaction --------------------------------------------------------------------------


def get_statuses(found: dict[int, EntryResult] | None) -> dict[int, int]:
    assert found is not None
    return {position: item.status for position, item in found.items()}


@pytest.mark.parametrize("since", ["200", "404", "410 Gone"])
def test_one_create_proves_its_whole_transaction_whatever_happened_since(since: str) -> None:
    pairs = (
        (CREATED, make_response("200")),
        (UPDATED, make_response(since)),
        (DELETED, make_response(since)),
    )
    assert get_statuses(settle(*pairs, whole=True)) == {0: 200, 1: 200, 2: 204}


def test_an_update_that_is_there_since_the_try_proves_its_whole_transaction() -> None:
    pairs = ((UPDATED, make_state(AFTER)), (DELETED, make_state(AFTER)))
    assert get_statuses(settle(*pairs, whole=True)) == {1: 200, 2: 204}


def test_an_update_that_was_there_before_the_try_proves_nothing_of_the_others() -> None:
    pairs = ((UPDATED, make_state(BEFORE)), (DELETED, make_response("404")))
    assert get_statuses(settle(*pairs, whole=True)) == {}


def test_what_somebody_changed_is_left_alone_in_a_transaction_that_was_not_done() -> None:
    pairs = ((UPDATED, make_state(AFTER, active=False)), (DELETED, make_state(BEFORE)))
    assert get_statuses(settle(*pairs, whole=True)) == {1: 409}


def test_what_the_same_bytes_have_created_before_proves_nothing_of_this_try() -> None:
    pairs = ((CREATED, make_response("200")), (UPDATED, make_state(BEFORE, active=False)))
    assert get_statuses(settle(*pairs, whole=True, repeat=True)) == {0: 200}


def test_in_a_batch_each_entry_is_proven_by_itself() -> None:
    pairs = ((CREATED, make_response("200")), (UPDATED, make_state(BEFORE, active=False)))
    assert get_statuses(settle(*pairs)) == {0: 200}


# -- what proves nothing --------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["401", "403", "429", "500", "", None])
def test_a_read_that_failed_is_no_leave_to_write(status: Any) -> None:
    assert (
        settle((CREATED, make_response("200")), (UPDATED, make_response(status)), whole=True)
        is None
    )


# -- searches -------------------------------------------------------------------------------------


def test_a_search_tells_what_it_found_and_not_what_it_includes() -> None:
    entries = [
        {"resource": {"resourceType": "Patient", "id": "a"}},
        {"resource": {"resourceType": "Organization", "id": "b"}, "search": {"mode": "include"}},
        {"resource": {"resourceType": "OperationOutcome"}, "search": {"mode": "outcome"}},
    ]
    answer = make_response("200", {"resourceType": "Bundle", "entry": entries})
    assert list_matches("Patient?identifier=x", answer) == ["Patient/a"]


def test_a_search_without_a_match_found_nothing() -> None:
    assert list_matches("Patient?x=y", make_response("200", {"resourceType": "Bundle"})) == []


def test_a_search_that_the_server_refuses_is_refused_again_with_the_write() -> None:
    assert list_matches("Patient?x=y", make_response("400")) == []


@pytest.mark.parametrize("status", ["401", "403", "408", "409", "429", "500", "", None])
def test_a_search_that_failed_found_neither_something_nor_nothing(status: Any) -> None:
    assert list_matches("Patient?x=y", make_response(status)) is None


def test_an_answer_without_a_bundle_is_none() -> None:
    assert list_matches("Patient?x=y", make_response("200")) is None
    assert list_matches("Patient?x=y", make_response("200", {"entry": "?"})) is None
