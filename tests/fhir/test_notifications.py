"""What the notification of a subscription says, and which resources it brings or names."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.errors import Rejected
from integration.core.model import DeliveryRequest
from integration.fhir import bundle
from integration.fhir.fetched import NOT_FETCHED, TOO_LARGE, FetchedResponse
from integration.fhir.notifications import Notification, add_fetched
from integration.fhir.plan import Plan, plan
from integration.fhir.resource_ids import Naming
from integration.fhir.subscription_status import SubscriptionStatus, describe_gap, find_gap
from tests.fhir.notices import (
    HOME,
    SUBSCRIPTION,
    VERSIONS,
    make_deletion,
    make_full_entry,
    make_named_entry,
    make_notification,
)
from tests.randomness import limit_examples

MARKER = "Zzyzx"
ANNA = {"resourceType": "Patient", "id": "anna"}


def read(made: dict[str, Any]) -> Notification:
    contents = bundle.read(json.dumps(made).encode(), DeliveryRequest("POST"))
    assert isinstance(contents, Notification)
    return contents


def catch_refusal(made: dict[str, Any]) -> Rejected:
    with pytest.raises(Rejected) as caught:
        read(made)
    assert MARKER not in repr(caught.value.issues)
    return caught.value


def list_sent(contents: Any) -> list[tuple[str, str]]:
    """(method, url) of each write, unit by unit."""
    planned = plan(contents, Naming("clinic", "key-1"))
    bodies = [
        json.loads(bytes(entry.body))["request"]
        for lane in planned.lanes
        for unit in lane.units
        for entry in unit.entries
    ]
    return [(body["method"], body["url"]) for body in bodies]


def map_refused(planned: Plan) -> dict[int, tuple[str, str]]:
    return {entry.position: (issue.code, issue.severity) for entry, issue in planned.refused}


def plan_contents(contents: Any) -> Plan:
    return plan(contents, Naming("clinic", "key-1"))


# -- the status -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_the_status_is_read_the_same_in_each_version_of_fhir(version: str) -> None:
    events = ((3, f"{HOME}/Patient/anna"), (4, None))
    made = make_notification(version=version, events=events, since=9)
    assert read(made).status == SubscriptionStatus(
        type="event-notification",
        subscription=SUBSCRIPTION,
        event_count=9,
        event_numbers=(3, 4),
        focuses=(f"{HOME}/Patient/anna",),
    )


@pytest.mark.parametrize("kind", ["handshake", "heartbeat"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_handshake_and_a_heartbeat_bring_nothing(kind: str, version: str) -> None:
    contents = read(make_notification(version=version, kind=kind, since=2))
    assert (contents.status.type, contents.has_content) == (kind, False)
    assert (contents.kind, list_sent(contents)) == ("notification", [])


@pytest.mark.parametrize("kind", ["handshake", "heartbeat"])
def test_what_a_heartbeat_brings_all_the_same_is_refused_and_not_lost(kind: str) -> None:
    assert (
        catch_refusal(make_notification(make_full_entry(ANNA), kind=kind)).issues[0].code
        == "invalid"
    )


@pytest.mark.parametrize("kind", ["query-status", "query-event"])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_answer_to_a_query_is_refused_with_a_reason(kind: str, version: str) -> None:
    error = catch_refusal(make_notification(version=version, kind=kind))
    assert (error.status, error.issues[0].code) == (422, "not-supported")
    assert kind in error.issues[0].text


def make_changed(**elements: Any) -> dict[str, Any]:
    """A notification whose status says something else."""
    made = make_notification(version="R5")
    made["entry"][0]["resource"] |= elements
    return made


BAD_STATUS = [
    ("another type", make_changed(type=MARKER), "value"),
    ("no type", make_changed(type=None), "value"),
    ("a type that is a list", make_changed(type=[MARKER]), "value"),
    ("no subscription", make_changed(subscription=None), "required"),
    ("a subscription that is text", make_changed(subscription=MARKER), "required"),
    ("a count that is text", make_changed(eventsSinceSubscriptionStart=MARKER), "value"),
    ("a count below nought", make_changed(eventsSinceSubscriptionStart=-1), "value"),
    ("a count beyond all", make_changed(eventsSinceSubscriptionStart="9" * 19), "value"),
    ("a count that is an object", make_changed(eventsSinceSubscriptionStart={"a": MARKER}), "value"),
    ("a number that is text", make_changed(notificationEvent=[{"eventNumber": MARKER}]), "value"),
    ("another resource", make_changed(resourceType="Patient"), "invalid"),
    ("no status at all", {"resourceType": "Bundle", "type": "subscription-notification", "entry": [7]}, "invalid"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("made", "code"), [case[1:] for case in BAD_STATUS], ids=[case[0] for case in BAD_STATUS]
)
def test_a_bad_status_is_refused_and_not_quoted(made: dict[str, Any], code: str) -> None:
    (found,) = catch_refusal(made).issues
    assert (found.code, found.expression) == (code, "Bundle.entry[0].resource")


@limit_examples(60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["name", "part", "valueCode", "focus"]), inner)
        ),
        max_leaves=8,
    )
)
def test_a_status_of_any_shape_is_read_or_refused(shape: Any) -> None:
    for version, element in (("R4", "parameter"), ("R5", "notificationEvent")):
        made = make_notification(version=version)
        made["entry"][0]["resource"][element] = shape
        with contextlib.suppress(Rejected):
            read(made)


def test_a_history_of_parameters_that_is_no_status_is_a_history() -> None:
    entry = {
        "resource": {"resourceType": "Parameters", "id": "p"},
        "request": {"method": "PUT", "url": "Parameters/p"},
    }
    made = {"resourceType": "Bundle", "type": "history", "entry": [entry]}
    assert bundle.read(json.dumps(made).encode(), DeliveryRequest("POST")).kind == "history"


# -- what it brings -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "GET"])
def test_a_resource_is_written_by_its_own_identity_whatever_was_done(
    version: str, method: str
) -> None:
    contents = read(make_notification(make_full_entry(ANNA, method), version=version))
    assert list_sent(contents) == [("PUT", "Patient/anna")]
    assert map_refused(plan_contents(contents)) == {0: ("informational", "information")}


def test_in_r5_an_entry_may_do_without_a_request() -> None:
    entry = {"fullUrl": f"{HOME}/Patient/anna", "resource": ANNA}
    assert list_sent(read(make_notification(entry, version="R5"))) == [("PUT", "Patient/anna")]


def test_a_delete_deletes() -> None:
    made = make_notification(make_deletion("Patient/anna"), make_full_entry({**ANNA, "id": "bert"}))
    assert sorted(list_sent(read(made))) == [("DELETE", "Patient/anna"), ("PUT", "Patient/bert")]


def test_the_same_resource_again_is_written_oldest_first() -> None:
    versions = [make_full_entry({**ANNA, "meta": {"versionId": str(n)}}) for n in (2, 3, 1)]
    (lane,) = plan_contents(read(make_notification(*versions))).lanes
    assert [[entry.position for entry in unit.entries] for unit in lane.units] == [[3], [1], [2]]


BAD = [
    ("no object", 7, "structure"),
    ("no request and nothing named", {}, "required"),
    ("a read of a type", {"request": {"method": "GET", "url": "Patient"}}, "required"),
    ("a placeholder", {"fullUrl": "urn:uuid:1", "request": {"method": "POST", "url": "Patient"}}, "required"),
    ("another method", {"request": {"method": MARKER, "url": "Patient"}}, "value"),
    ("a url of nothing", {"request": {"method": "PUT", "url": MARKER}}, "value"),
    ("no resource of R4", {"resource": {"resourceType": MARKER}}, "value"),
    ("no id", {"resource": {"resourceType": "Patient"}}, "required"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "code"), [c[1:] for c in BAD], ids=[c[0] for c in BAD])
def test_a_bad_entry_is_refused_by_its_place(bad: Any, code: str) -> None:
    _, good, other = read(make_notification(make_full_entry(ANNA), bad)).entries
    found = other.refusal
    assert found is not None
    assert good.refusal is None
    assert found.code == code
    assert (found.expression or "").startswith("Bundle.entry[2]")


def test_the_issues_are_bounded() -> None:
    assert len(catch_refusal(make_notification(*([7] * 1000))).issues) == 20


# -- what it names --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_an_entry_without_a_resource_is_wanted_from_where_it_lives(version: str) -> None:
    contents = read(make_notification(make_named_entry("Patient/anna"), version=version))
    assert contents.urls_to_fetch == {1: f"{HOME}/Patient/anna"}


def test_until_it_is_fetched_it_is_refused_by_the_name_of_the_setting() -> None:
    contents = read(make_notification(make_named_entry("Patient/anna")))
    ((_, _), (entry, issue)) = plan_contents(contents).refused
    assert (entry.position, issue.severity, issue.code) == (1, "error", "not-supported")
    assert "FETCH_FROM" in issue.text


@pytest.mark.parametrize(
    ("entry", "address"),
    [
        ({"request": {"method": "PUT", "url": "Patient/anna"}}, f"{HOME}/Patient/anna"),
        ({"fullUrl": "Patient/anna"}, f"{HOME}/Patient/anna"),
        (
            {"request": {"method": "GET", "url": f"{HOME}/r4/Patient/anna"}},
            f"{HOME}/r4/Patient/anna",
        ),
        ({"request": {"method": "GET", "url": "Patient/bert"}}, "https://far.example/Patient/bert"),
    ],
)
def test_a_name_without_a_full_url_lives_where_its_request_its_focus_or_the_subscription_does(
    entry: dict[str, Any], address: str
) -> None:
    events = ((1, "https://far.example/Patient/bert"),)
    contents = read(make_notification(entry, version="R5", events=events))
    assert contents.urls_to_fetch[1] == address


def test_a_focus_without_an_entry_is_wanted_after_the_sender_s_own_entries() -> None:
    events = ((1, f"{HOME}/Patient/anna"), (2, "Patient/bert"), (3, "Patient/bert/_history/2"))
    contents = read(make_notification(make_full_entry(ANNA), events=events))
    assert contents.urls_to_fetch == {2: f"{HOME}/Patient/bert"}
    assert [entry.position for entry in contents.entries] == [0, 1, 2]


def test_the_focus_of_a_deleted_resource_is_not_wanted() -> None:
    made = make_notification(make_deletion("Patient/anna"), events=((1, f"{HOME}/Patient/anna"),))
    assert read(made).urls_to_fetch == {}


def test_a_focus_that_is_no_address_is_told_and_not_passed_over() -> None:
    contents = read(make_notification(events=((1, f"urn:uuid:{MARKER}"),)))
    assert map_refused(plan_contents(contents))[1] == ("not-supported", "error")
    assert contents.urls_to_fetch == {}


FETCHED = FetchedResponse(200, json.dumps({**ANNA, "active": True}).encode())


def test_what_was_fetched_is_written_in_place_of_its_name() -> None:
    contents = add_fetched(read(make_notification(make_named_entry("Patient/anna"))), {1: FETCHED})
    assert list_sent(contents) == [("PUT", "Patient/anna")]
    assert contents.entries[1].full_url == f"{HOME}/Patient/anna"


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_deleted_by_now_is_told_and_not_written(status: int) -> None:
    contents = add_fetched(
        read(make_notification(make_named_entry("Patient/anna"))), {1: FetchedResponse(status)}
    )
    assert map_refused(plan_contents(contents))[1] == ("deleted", "information")


OTHER = [
    FetchedResponse(200, b'{"resourceType": "Patient", "id": "Zzyzx"}'),
    FetchedResponse(200, b'{"resourceType": "Group", "id": "anna"}'),
    FetchedResponse(200, b'{"resourceType": "Zzyzx", "id": "anna"}'),
    FetchedResponse(200, b'{"resourceType": "Bundle", "type": "searchset"}'),
    FetchedResponse(200, b"<html>Zzyzx</html>"),
    FetchedResponse(200, b"[" * 100_000),
    FetchedResponse(200),
    FetchedResponse(302),
    FetchedResponse(400),
    FetchedResponse(NOT_FETCHED),
    FetchedResponse(TOO_LARGE),
]


@pytest.mark.parametrize(
    "answer", OTHER, ids=lambda answer: f"{answer.status} {answer.body[:40]!r}"
)
def test_any_other_answer_is_refused_and_not_quoted(answer: FetchedResponse) -> None:
    contents = add_fetched(read(make_notification(make_named_entry("Patient/anna"))), {1: answer})
    found = plan_contents(contents)
    assert map_refused(found)[1][1] == "error"
    assert list_sent(contents) == []
    assert MARKER not in repr([issue for _, issue in found.refused])


# -- gaps -----------------------------------------------------------------------------------------


def status(kind: str, since: int | None, *numbers: int) -> SubscriptionStatus:
    return SubscriptionStatus(
        type=kind,
        subscription="Subscription/s1",
        event_count=since,
        event_numbers=numbers,
        focuses=(),
    )


@pytest.mark.parametrize(
    ("stated", "before", "gap"),
    [
        (status("event-notification", 7, 7), 3, (4, 6)),
        (status("event-notification", 9, 6, 5), 3, (4, 4)),
        (status("event-notification", 4, 4), 3, None),
        (status("event-notification", 3, 3), 3, None),
        (status("event-notification", 9, 2), 3, None),
        (status("event-notification", 5), 3, (4, 4)),
        (status("event-notification", None), 3, None),
        (status("event-notification", 1, 1), 0, None),
        (status("event-notification", 2, 2), 0, (1, 1)),
        (status("heartbeat", 3), 3, None),
        (status("heartbeat", 5), 3, (4, 5)),
        (status("heartbeat", None), 3, None),
    ],
)
def test_a_gap_is_what_lies_between_the_last_event_and_the_first_of_this(
    stated: SubscriptionStatus, before: int, gap: tuple[int, int] | None
) -> None:
    assert find_gap(stated, before) == gap


def test_a_gap_is_told_in_words() -> None:
    assert describe_gap((4, 6)) == "events 4 to 6 of the subscription were not received"
    assert describe_gap((4, 4)) == "event 4 of the subscription was not received"


# -- examples from elsewhere ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "expected", "entries"),
    [
        ("handshake", "handshake", 0, 1),
        ("heartbeat", "heartbeat", 0, 1),
        ("empty_notification", "event-notification", 0, 1),
        ("id_only_notification", "event-notification", 1, 2),
        ("full_resource_notification", "event-notification", 0, 2),
    ],
)
def test_examples_from_elsewhere_are_read(
    name: str, kind: str, expected: int, entries: int
) -> None:
    folder = os.environ.get("BUNDLES_DIR")
    if not folder:
        pytest.skip("BUNDLES_DIR names no folder of bundles")
    found = [*Path(folder).rglob(f"{name}_bundle_example.json")]
    if not found:
        pytest.skip("the folder has no notifications")
    contents = read(json.loads(found[0].read_bytes()))
    assert contents.status.type == kind
    assert (len(contents.urls_to_fetch), len(contents.entries)) == (expected, entries)
