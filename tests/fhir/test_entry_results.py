"""What the FHIR server's answer says about each entry of a unit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from integration.core import decimal_json
from integration.core.errors import Issue
from integration.core.model import EntryResult, Response
from integration.fhir.entry_results import (
    MAX_CONFLICT_ATTEMPTS,
    MAX_RESOURCE_BYTES,
    UnitResults,
    read_response,
    refuse,
)
from integration.fhir.operation_outcome import as_json
from integration.fhir.units import Unit, UnitEntry
from tests.fhir.bundles import make_urn


def entry(
    position: int, target: str | None = None, method: str = "PUT", *, created: bool = False
) -> UnitEntry:
    name = target or f"Patient/{position}"
    raw = decimal_json.Raw(b"{}")
    where = f"Bundle.entry[{position}]"
    return UnitEntry(
        position=position,
        where=where,
        target=name,
        full_url=f"urn:x:{position}",
        method=method,
        created=created,
        awaits=(),
        body=raw,
    )


def make_response(status: Any = "200", **response: Any) -> dict[str, Any]:
    return {"response": {"status": status, **response}}


def bundle(*entries: Any) -> bytes:
    return decimal_json.encode({"resourceType": "Bundle", "entry": list(entries)})


def read_bundle(
    *entries: Any, status: int = 200, attempt: int = 0, of: int | None = None, **headers: str
) -> UnitResults:
    """What a server's answer means to a unit of as many entries, or of `of`."""
    requested = [entry(n) for n in range(len(entries) if of is None else of)]
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    unit = Unit("batch", tuple(requested))
    return read_response(unit, requested, Response(status, names, bundle(*entries)), attempt)


def get_only(found: UnitResults) -> EntryResult:
    (outcome,) = found.settled
    return outcome


def list_unfinished(found: UnitResults) -> list[int]:
    return [item.position for item in found.unfinished]


# -- the status of one entry ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "read"),
    [
        ("200", 200),
        ("201", 201),
        ("201 Created", 201),
        ("204 No Content", 204),
        ("304", 304),
        ("400 Bad Request", 400),
        ("404", 404),
        ("412 Precondition Failed", 412),
        ("422", 422),
    ],
)
def test_a_status_begins_with_three_digits(status: str, read: int) -> None:
    assert get_only(read_bundle(make_response(status))).status == read


@pytest.mark.parametrize(
    "status", ["", "abc", "20", "2010", 2010, 201, None, [], "Created 201", "999"]
)
def test_a_status_that_cannot_be_read_is_no_success(status: Any) -> None:
    found = read_bundle(make_response(status))
    assert found.settled == ()
    assert list_unfinished(found) == [0]


@pytest.mark.parametrize("item", [None, 7, "x", [], {}, {"response": None}, {"response": "200"}])
def test_an_answer_without_a_response_is_no_success(item: Any) -> None:
    assert list_unfinished(read_bundle(item)) == [0]


@pytest.mark.parametrize(("status", "written"), [("200", True), ("201", True), ("204", True), ("304", True), ("400", False), ("404", False), ("412", False)])  # fmt: skip
def test_an_entry_is_written_or_refused_by_its_status(status: str, written: bool) -> None:
    assert get_only(read_bundle(make_response(status))).is_written is written


def test_entries_are_matched_by_their_place() -> None:
    found = read_bundle(make_response("201"), make_response("422"), make_response("200"))
    assert [(item.position, item.status) for item in found.settled] == [
        (0, 201),
        (1, 422),
        (2, 200),
    ]
    assert [item.full_url for item in found.settled] == ["urn:x:0", "urn:x:1", "urn:x:2"]


# -- how many answers -----------------------------------------------------------------------------


@pytest.mark.parametrize(("answers", "requested", "proven"), [(2, 2, True), (3, 2, True), (1, 2, False), (0, 2, False), (4, 2, False)])  # fmt: skip
def test_answers_count_only_in_the_right_number_or_with_one_of_the_servers_own(
    answers: int, requested: int, proven: bool
) -> None:
    found = read_bundle(*[make_response()] * answers, of=requested)
    assert (len(found.settled), len(found.unfinished)) == ((2, 0) if proven else (0, 2))


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"entry":7}', b'{"entry":[{"response"', b"null", b"\xff"],
)
def test_an_answer_that_cannot_be_read_proves_nothing(body: bytes) -> None:
    requested = [entry(0), entry(1)]
    found = read_response(
        Unit("transaction", tuple(requested)), requested, Response(200, {}, body), 0
    )
    assert found.settled == ()
    assert list_unfinished(found) == [0, 1]


ODD = [
    {"resource": {"resourceType": "Patient", "id": "0", "meta": None}},
    {"resource": {"resourceType": "Patient", "id": "0", "meta": "x"}},
    {"resource": {"resourceType": "Patient", "id": "0", "meta": {"versionId": 7}}},
    {"resource": {"resourceType": None}},
    {"resource": "x"},
    {"resource": []},
]


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_resource_beside_a_good_status_does_no_harm(odd: dict[str, Any]) -> None:
    found = get_only(read_bundle({**make_response("201"), **odd}))
    assert (found.status, found.location) == (201, "Patient/0")


# -- what passes by itself ------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["429", "500", "502", "503 Service Unavailable", "504"])
def test_an_entry_that_was_throttled_or_failed_is_left_for_later(status: str) -> None:
    found = read_bundle(
        make_response("201"), make_response(status), make_response("201"), retry_after="7"
    )
    assert [item.position for item in found.settled] == [0, 2]
    assert list_unfinished(found) == [1]
    assert found.retry_after == 7


@pytest.mark.parametrize("status", [408, 409])
@pytest.mark.parametrize(
    ("attempt", "settled"),
    [(0, False), (MAX_CONFLICT_ATTEMPTS - 1, False), (MAX_CONFLICT_ATTEMPTS, True)],
)
def test_conflicts_and_time_outs_are_tried_again_a_few_times(
    status: int, attempt: int, settled: bool
) -> None:
    assert bool(read_bundle(make_response(str(status)), attempt=attempt).settled) is settled
    assert bool(read_bundle(of=1, status=status, attempt=attempt).settled) is settled


@pytest.mark.parametrize("attempt", [0, 100])
def test_throttling_is_never_counted(attempt: int) -> None:
    assert list_unfinished(read_bundle(make_response("429"), attempt=attempt)) == [0]
    assert list_unfinished(read_bundle(status=429, of=1, attempt=attempt)) == [0]


# -- the unit as a whole --------------------------------------------------------------------------

ISSUES = [{"severity": "error", "code": "invalid", "diagnostics": "no", "expression": ["Patient"]}]
OUTCOME = decimal_json.encode({"resourceType": "OperationOutcome", "issue": ISSUES})


@pytest.mark.parametrize("status", [400, 404, 405, 412, 413, 422])
def test_a_refused_unit_refuses_every_entry_with_the_servers_issues(status: int) -> None:
    requested = [entry(0), entry(1)]
    found = read_response(
        Unit("transaction", tuple(requested)), requested, Response(status, {}, OUTCOME), 0
    )
    assert [(item.position, item.status, item.issues) for item in found.settled] == [
        (0, status, ISSUES),
        (1, status, ISSUES),
    ]
    assert found.unfinished == ()
    assert not any(item.is_written for item in found.settled)


@pytest.mark.parametrize("status", [400, 408, 409, 413, 422])
def test_a_batch_that_is_refused_as_a_whole_is_sent_in_halves(status: int) -> None:
    found = read_bundle(status=status, of=5, attempt=MAX_CONFLICT_ATTEMPTS)
    assert [[entry.position for entry in half] for half in found.halves] == [[0, 1], [2, 3, 4]]
    assert (found.settled, found.unfinished) == ((), ())


@pytest.mark.parametrize("status", [404, 405, 410])
def test_a_wrong_address_refuses_a_batch_at_once(status: int) -> None:
    found = read_bundle(status=status, of=3)
    assert [item.status for item in found.settled] == [status] * 3
    assert found.halves == ()


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"issue":7}', b"[]"])
def test_a_refusal_without_an_outcome_is_a_refusal(body: bytes) -> None:
    found = read_response(Unit("batch", (entry(0),)), [entry(0)], Response(400, {}, body), 0)
    assert get_only(found).issues is None


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 599])
def test_a_failed_unit_leaves_every_entry_for_later(status: int) -> None:
    found = read_bundle(status=status, of=3, attempt=100, retry_after="30")
    assert (found.settled, list_unfinished(found)) == ((), [0, 1, 2])
    assert found.retry_after == 30


@pytest.mark.parametrize("status", [201, 202, 204, 206, 302, 304, 307])
def test_only_a_bundle_with_200_proves_that_a_unit_was_written(status: int) -> None:
    # A gateway on the way may answer so; taken as written, or as refused, entries would be lost.
    found = read_bundle(status=status, of=2)
    assert (found.settled, list_unfinished(found)) == ((), [0, 1])


# -- where it lives now ---------------------------------------------------------------------------

STORED = {
    "resourceType": "Patient",
    "id": "0",
    "meta": {"versionId": "3", "lastUpdated": "2024-05-06T07:08:09.1Z"},
}


@pytest.mark.parametrize(
    "location",
    ["Patient/0/_history/3", "https://a.example/r4/Patient/0/_history/3"],
)
def test_a_location_is_kept_without_the_servers_address(location: str) -> None:
    assert (
        get_only(read_bundle(make_response("201", location=location))).location
        == "Patient/0/_history/3"
    )


def test_location_version_and_time_come_from_the_resource_where_the_response_has_none() -> None:
    found = get_only(read_bundle({**make_response("201"), "resource": STORED}))
    assert found.location == "Patient/0/_history/3"
    assert found.etag == 'W/"3"'
    assert found.last_modified == "2024-05-06T07:08:09.1Z"


@pytest.mark.parametrize("stated", ["4", 'W/"4"'])
def test_an_etag_is_told_as_the_header_has_it_where_the_server_states_the_version_alone(
    stated: str,
) -> None:
    assert get_only(read_bundle(make_response("200", etag=stated))).etag == 'W/"4"'


def test_what_the_response_says_goes_before_the_resource() -> None:
    response = make_response(
        "201", location="Patient/0/_history/4", etag='W/"4"', lastModified="then"
    )
    found = get_only(read_bundle({**response, "resource": STORED}))
    assert (found.location, found.etag) == ("Patient/0/_history/4", 'W/"4"')
    assert found.last_modified == "then"


def test_a_location_that_cannot_be_read_is_taken_from_the_resource() -> None:
    found = get_only(
        read_bundle({**make_response("201", location="somewhere"), "resource": STORED})
    )
    assert found.location == "Patient/0/_history/3"


def test_without_either_a_resource_lives_where_it_was_sent() -> None:
    assert get_only(read_bundle(make_response("200"))).location == "Patient/0"


def test_an_outcome_in_the_place_of_the_resource_is_no_resource() -> None:
    outcome = {"resourceType": "OperationOutcome", "id": "x"}
    assert (
        get_only(read_bundle({**make_response("201"), "resource": outcome})).location == "Patient/0"
    )


def test_a_conditional_entry_lives_only_where_the_server_says() -> None:
    requested = [entry(0, make_urn(0))]
    body = bundle(make_response("201"))
    found = read_response(Unit("batch", tuple(requested)), requested, Response(200, {}, body), 0)
    assert get_only(found).location is None


def test_what_is_deleted_or_refused_lives_nowhere() -> None:
    requested = [entry(0, method="DELETE"), entry(1)]
    body = bundle(make_response("204"), make_response("422"))
    found = read_response(Unit("batch", tuple(requested)), requested, Response(200, {}, body), 0)
    assert [item.location for item in found.settled] == [None, None]


def test_the_issues_of_an_entry_are_kept_and_point_into_the_bundle() -> None:
    found = get_only(
        read_bundle(
            make_response("422", outcome={"resourceType": "OperationOutcome", "issue": ISSUES})
        )
    )
    assert found.issues == [ISSUES[0] | {"expression": ["Bundle.entry[0].resource"]}]


@pytest.mark.parametrize(
    "outcome", [None, [], "x", {}, {"issue": "no list"}, {"issue": 7}, {"issue": [7]}]
)
def test_issues_in_another_shape_are_none(outcome: Any) -> None:
    assert get_only(read_bundle(make_response("422", outcome=outcome))).issues is None


# -- issues ---------------------------------------------------------------------------------------


def test_an_entry_that_is_not_sent_says_why() -> None:
    found = refuse(entry(3), Issue("processing", "not sent"), 424)
    assert (found.position, found.status, found.full_url) == (3, 424, "urn:x:3")
    assert found.issues == [{"severity": "error", "code": "processing", "diagnostics": "not sent"}]
    assert not found.is_written


def test_an_issue_with_a_place_states_it_as_a_list() -> None:
    assert as_json(Issue("value", "no", "Patient.id", "warning")) == {
        "severity": "warning",
        "code": "value",
        "diagnostics": "no",
        "expression": ["Patient.id"],
    }


# -- reads ----------------------------------------------------------------------------------------

PLACEHOLDER = "urn:uuid:0b6d3d3e-9c4b-4a53-8f1f-000000000001"


def read_as(method: str, answered: dict[str, Any]) -> EntryResult:
    requested = entry(0, PLACEHOLDER, method)
    response = Response(200, {}, bundle(answered))
    return get_only(read_response(Unit("batch", (requested,)), [requested], response, 0))


def test_what_a_read_finds_is_kept_to_the_digit_and_writes_nothing() -> None:
    resource = decimal_json.Raw(b'{"resourceType":"Observation","id":"o","value":1.10}')
    found = read_as(
        "GET", {"resource": resource, **make_response(location="Observation/o/_history/1")}
    )
    assert found.resource == '{"resourceType":"Observation","id":"o","value":1.10}'
    assert found.location is None


@pytest.mark.parametrize("method", ["PUT", "HEAD", "DELETE", "PATCH"])
def test_only_a_get_brings_a_resource(method: str) -> None:
    assert (
        read_as(method, {"resource": {"resourceType": "Patient"}, **make_response()}).resource
        is None
    )


@pytest.mark.parametrize("status", ["304", "404", "410"])
def test_a_read_that_found_nothing_brings_none(status: str) -> None:
    found = read_as("GET", make_response(status))
    assert (found.status, found.resource) == (int(status), None)


def test_an_answer_that_is_too_large_is_told_and_not_kept() -> None:
    large = {"resourceType": "Binary", "data": "x" * MAX_RESOURCE_BYTES}
    found = read_as("GET", {"resource": large, **make_response()})
    assert (found.status, found.resource) == (200, None)
    assert found.issues is not None
    assert found.issues[0]["code"] == "too-long"
    assert "read it from the FHIR server" in found.issues[0]["diagnostics"]


@pytest.mark.parametrize("status", [200, 422])
def test_what_the_plan_had_to_note_is_told_with_the_outcome(status: int) -> None:
    note = Issue("not-found", "names no entry", "Bundle.entry[0]", "warning")
    requested = replace(entry(0), notes=(note,), same=((1, None),))
    response = Response(status, {}, bundle(make_response("201")))
    first, second = read_response(Unit("batch", (requested,)), [requested], response, 0).settled
    assert [reported["severity"] for reported in first.issues or ()] == ["warning"]
    assert second.issues is None
