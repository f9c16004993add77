"""What an earlier try has done, as far as the server's answer proves it."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from integration.core import decimal_json
from integration.core.model import EntryResult
from integration.fhir.previous_attempt import UnconfirmedEntry, find_settled, list_matches
from integration.fhir.units import UnitEntry

TRIED = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
BEFORE, AFTER = "2026-03-01T11:59:59.999Z", "2026-03-01T13:00:00+01:00"
OURS = {"resourceType": "Patient", "id": "1", "active": True}


def asked(
    position: int,
    method: str = "PUT",
    resource: dict[str, Any] | None = None,
    *,
    created: bool = False,
) -> UnconfirmedEntry:
    raw = decimal_json.Raw(b"{}")
    where, name = f"Bundle.entry[{position}]", f"Patient/{position}"
    entry = UnitEntry(position, where, name, None, method, created, (), raw)
    return UnconfirmedEntry(entry, name, TRIED, resource)


CREATED, UPDATED, DELETED = asked(0, created=True), asked(1, "PUT", OURS), asked(2, "DELETE")
PATCHED = asked(3, "PATCH")


def said(status: str | None, resource: Any = None) -> dict[str, Any]:
    answer: dict[str, Any] = {"response": {"status": status}}
    return answer | ({"resource": resource} if resource else {})


def there(updated: str, **elements: Any) -> dict[str, Any]:
    meta = {"versionId": "7", "lastUpdated": updated}
    return said("200", {**OURS, "meta": meta, **elements})


def inquired(
    *pairs: tuple[UnconfirmedEntry, Any], whole: bool = False, repeat: bool = False
) -> dict[int, EntryResult] | None:
    ones, answers = [one for one, _ in pairs], [answer for _, answer in pairs]
    return find_settled(ones, answers, atomic=whole, repeat=repeat)


def only(one: UnconfirmedEntry, answer: Any) -> EntryResult | None:
    found = inquired((one, answer))
    assert found is not None
    return found.get(one.entry.position)


# -- one entry ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["200", "410 Gone"])
def test_a_create_that_was_there_once_is_done(status: str) -> None:
    found = only(CREATED, said(status))
    assert found is not None
    assert (found.is_written, found.location) == (True, "Patient/0")


def test_a_create_that_is_not_there_is_to_be_sent() -> None:
    assert only(CREATED, said("404")) is None


@pytest.mark.parametrize("updated", [BEFORE, AFTER])
def test_an_update_that_is_there_is_done(updated: str) -> None:
    found = only(UPDATED, there(updated))
    assert found is not None
    assert (found.status, found.location) == (200, "Patient/1/_history/7")


def test_an_older_state_is_to_be_overwritten() -> None:
    assert only(UPDATED, there(BEFORE, active=False)) is None


@pytest.mark.parametrize("updated", [AFTER, "", "yesterday", "2026-03-01T12:00:00"])
def test_a_newer_state_or_one_of_unknown_age_is_left_alone(updated: str) -> None:
    found = only(UPDATED, there(updated, active=False))
    assert found is not None
    assert (found.status, found.superseded, found.is_written) == (409, True, False)


@pytest.mark.parametrize("status", ["404", "410"])
def test_an_update_of_what_is_not_there_is_to_be_sent(status: str) -> None:
    assert only(UPDATED, said(status)) is None


@pytest.mark.parametrize("status", ["404", "410"])
def test_a_delete_of_what_is_not_there_is_done(status: str) -> None:
    found = only(DELETED, said(status))
    assert found is not None
    assert found.status == 204


def test_a_delete_spares_what_came_after_it() -> None:
    assert only(DELETED, there(BEFORE)) is None
    spared = only(DELETED, there(AFTER))
    assert spared is not None
    assert spared.superseded


def test_a_patch_is_sent_again_only_where_nothing_has_changed_since() -> None:
    assert only(PATCHED, there(BEFORE)) is None
    unclear = only(PATCHED, there(AFTER))
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
    answer = there(BEFORE)
    tags = {name: value for name, value in theirs.items() if name in ("tag", "source")}
    answer["resource"]["meta"] |= tags
    answer["resource"] |= {name: value for name, value in theirs.items() if name not in tags}
    found = only(asked(1, "PUT", {**OURS, **ours}), answer)
    assert (found is not None) is same


def test_a_conditional_update_is_the_same_under_the_server_s_own_id() -> None:
    ours = {name: value for name, value in OURS.items() if name != "id"}
    assert only(asked(1, "PUT", ours), there(BEFORE)) is not None


# -- a whole transaction --------------------------------------------------------------------------


def statuses(found: dict[int, EntryResult] | None) -> dict[int, int]:
    assert found is not None
    return {position: item.status for position, item in found.items()}


@pytest.mark.parametrize("since", ["200", "404", "410 Gone"])
def test_one_create_proves_its_whole_transaction_whatever_happened_since(since: str) -> None:
    pairs = ((CREATED, said("200")), (UPDATED, said(since)), (DELETED, said(since)))
    assert statuses(inquired(*pairs, whole=True)) == {0: 200, 1: 200, 2: 204}


def test_an_update_that_is_there_since_the_try_proves_its_whole_transaction() -> None:
    pairs = ((UPDATED, there(AFTER)), (DELETED, there(AFTER)))
    assert statuses(inquired(*pairs, whole=True)) == {1: 200, 2: 204}


def test_an_update_that_was_there_before_the_try_proves_nothing_of_the_others() -> None:
    pairs = ((UPDATED, there(BEFORE)), (DELETED, said("404")))
    assert statuses(inquired(*pairs, whole=True)) == {}


def test_what_somebody_changed_is_left_alone_in_a_transaction_that_was_not_done() -> None:
    pairs = ((UPDATED, there(AFTER, active=False)), (DELETED, there(BEFORE)))
    assert statuses(inquired(*pairs, whole=True)) == {1: 409}


def test_what_the_same_bytes_have_created_before_proves_nothing_of_this_try() -> None:
    pairs = ((CREATED, said("200")), (UPDATED, there(BEFORE, active=False)))
    assert statuses(inquired(*pairs, whole=True, repeat=True)) == {0: 200}


def test_in_a_batch_each_entry_is_proven_by_itself() -> None:
    pairs = ((CREATED, said("200")), (UPDATED, there(BEFORE, active=False)))
    assert statuses(inquired(*pairs)) == {0: 200}


# -- what proves nothing --------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["401", "403", "429", "500", "", None])
def test_a_read_that_failed_is_no_leave_to_write(status: Any) -> None:
    assert inquired((CREATED, said("200")), (UPDATED, said(status)), whole=True) is None


# -- searches -------------------------------------------------------------------------------------


def test_a_search_tells_what_it_found_and_not_what_it_includes() -> None:
    entries = [
        {"resource": {"resourceType": "Patient", "id": "a"}},
        {"resource": {"resourceType": "Organization", "id": "b"}, "search": {"mode": "include"}},
        {"resource": {"resourceType": "OperationOutcome"}, "search": {"mode": "outcome"}},
    ]
    answer = said("200", {"resourceType": "Bundle", "entry": entries})
    assert list_matches("Patient?identifier=x", answer) == ["Patient/a"]


def test_a_search_without_a_match_found_nothing() -> None:
    assert list_matches("Patient?x=y", said("200", {"resourceType": "Bundle"})) == []


def test_a_search_that_the_server_refuses_is_refused_again_with_the_write() -> None:
    assert list_matches("Patient?x=y", said("400")) == []


@pytest.mark.parametrize("status", ["401", "403", "408", "409", "429", "500", "", None])
def test_a_search_that_failed_found_neither_something_nor_nothing(status: Any) -> None:
    assert list_matches("Patient?x=y", said(status)) is None


def test_an_answer_without_a_bundle_is_none() -> None:
    assert list_matches("Patient?x=y", said("200")) is None
    assert list_matches("Patient?x=y", said("200", {"entry": "?"})) is None
