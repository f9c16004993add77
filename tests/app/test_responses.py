"""What senders and operators read: OperationOutcomes, response bundles, lists, health."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import azure.functions as func
import httpx
import pytest

from integration.app import error_handlers, responses
from integration.app.raw_query import parse_query
from integration.app.settings import ReaderHeaders
from integration.core.errors import (
    Issue,
    MethodNotAllowed,
    Misconfigured,
    Overloaded,
    Rejected,
    Unavailable,
)
from integration.core.model import Delivery, EntryResult, RowResult, Status
from integration.intake.accept import Accepted
from integration.intake.subscriptions import Acknowledged
from integration.journal.audit_entry import AccessKind, AuditEntry, Reader, build_access
from integration.journal.audit_log import AuditPage
from integration.journal.store import Page
from integration.operations.deliveries import DeliveryStatus, ReplayPage
from integration.operations.health import OK, Answering, CheckedStates, UpstreamState
from tests.builders import MARKER
from tests.conftest import told_by

ID = "019caaee-c260-7000-8000-000000000001"
DONE = Delivery(
    id=ID,
    sender="default",
    key="k",
    digest="d",
    accepted=datetime(2026, 3, 2, tzinfo=UTC),
    status=Status.DONE,
    kind="transaction",
    entries=2,
    bytes=10,
    lanes=1,
    units=3,
)


def asked(
    url: str = "http://host/api/deliveries", headers: dict[str, str] | None = None, **params: str
) -> func.HttpRequest:
    url = f"{url}?{urlencode(params)}" if params else url
    return func.HttpRequest("GET", url, headers=headers or {}, params=params, body=b"")


def read(response: func.HttpResponse) -> Any:
    return json.loads(response.get_body())


async def answer_error(error: Exception) -> func.HttpResponse:
    @error_handlers.endpoint()
    async def function(_: func.HttpRequest, query: Mapping[str, str]) -> func.HttpResponse:
        raise error

    return await function(asked())


# --- errors ------------------------------------------------------------------------------------


async def test_a_refusal_is_an_operation_outcome_with_the_element(
    caplog: pytest.LogCaptureFixture,
) -> None:
    issue = Issue("required", "the bundle has no type", "Bundle.type")
    response = await answer_error(Rejected(issue, status=422))
    assert response.status_code == 422
    assert response.mimetype == "application/fhir+json"
    assert read(response) == {
        "resourceType": "OperationOutcome",
        "issue": [
            {
                "severity": "error",
                "code": "required",
                "diagnostics": "the bundle has no type",
                "expression": ["Bundle.type"],
            }
        ],
    }
    assert caplog.records == []


async def test_a_wrong_method_is_answered_with_the_right_ones() -> None:
    response = await answer_error(MethodNotAllowed("PUT", "DELETE"))
    assert (response.status_code, response.headers["Allow"]) == (405, "PUT, DELETE")


@pytest.mark.parametrize(("wish", "reported"), [(None, "30"), (0.2, "1"), (90, "90")])
async def test_trouble_of_an_upstream_asks_the_sender_to_try_again(
    wish: float | None, reported: str
) -> None:
    response = await answer_error(Unavailable("storage", "ServiceRequestError", wish))
    assert (response.status_code, response.headers["Retry-After"]) == (503, reported)
    assert read(response)["issue"][0]["code"] == "transient"
    assert "ServiceRequestError" not in response.get_body().decode()


async def test_a_busy_worker_asks_the_sender_to_try_again() -> None:
    response = await answer_error(Overloaded(9.5))
    assert (response.status_code, response.headers["Retry-After"]) == (503, "10")
    assert read(response)["issue"][0]["code"] == "throttled"


async def test_a_missing_setting_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    response = await answer_error(Misconfigured("set FHIR_URL"))
    assert response.status_code == 500
    assert "FHIR_URL" in read(response)["issue"][0]["diagnostics"]
    (record,) = caplog.records
    assert (record.levelno, record.message) == (logging.ERROR, "request.misconfigured")


async def test_who_may_be_anybody_is_told_no_setting(caplog: pytest.LogCaptureFixture) -> None:
    @error_handlers.public_sender_endpoint
    async def function(_: func.HttpRequest) -> func.HttpResponse:
        raise Misconfigured("sender lab: the setting LAB_TOKEN is not set")

    response = await function(asked())
    assert response.status_code == 500
    assert b"lab" not in response.get_body().lower()
    (record,) = caplog.records
    assert "LAB_TOKEN" in told_by([record])


async def test_a_fault_of_our_own_is_told_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    response = await answer_error(ValueError(f"not a date: {MARKER}"))
    assert response.status_code == 500
    assert read(response)["resourceType"] == "OperationOutcome"
    assert MARKER not in response.get_body().decode()
    (record,) = caplog.records
    assert "ValueError at test_responses.py:" in told_by([record])
    assert MARKER not in told_by([record])


async def test_a_queue_s_endpoint_hands_on_no_text_of_a_fault() -> None:
    """The host logs an exception with everything that is chained to it."""

    @error_handlers.trigger
    async def function(_: func.QueueMessage) -> None:
        try:
            raise KeyError(MARKER)
        except KeyError as error:
            raise ValueError(MARKER) from error

    with pytest.raises(RuntimeError) as caught:
        await function(func.QueueMessage(body=b"{}"))
    shown = "".join(traceback.format_exception(caught.value))
    assert MARKER not in shown
    assert "ValueError at test_responses.py:" in str(caught.value)


# --- a delivery on its way ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["handshake", "heartbeat", "event-notification"])
def test_a_notification_with_nothing_to_process_is_answered_200(kind: str) -> None:
    """Else a subscription would not become active."""
    response = responses.build_accepted(asked("https://host/api/fhir"), Acknowledged(kind))
    assert response.status_code == 200
    assert "Content-Location" not in response.headers
    (issue,) = json.loads(response.get_body())["issue"]
    assert issue["severity"] == "information"
    assert kind in issue["diagnostics"]


def test_an_accepted_delivery_is_told_where_to_ask() -> None:
    refused = (Issue("invalid", "line 2 is not JSON", "line 2"),)
    response = responses.build_accepted("https://host/api/fhir", Accepted(ID, refused))
    assert response.status_code == 202
    assert response.headers["Content-Location"] == f"https://host/api/fhir/deliveries/{ID}"
    assert [issue["severity"] for issue in read(response)["issue"]] == ["information", "error"]
    assert ID in read(response)["issue"][0]["diagnostics"]


@pytest.mark.parametrize(
    ("delivery", "progress"),
    [
        (replace(DONE, status=Status.ACCEPTED), "accepted: 2 entries"),
        (
            replace(DONE, status=Status.PROCESSING, lanes=7, lanes_done=3),
            "processing: 3 of 7 lanes done",
        ),
    ],
    ids=["accepted", "processing"],
)
def test_a_delivery_on_its_way_tells_its_progress(delivery: Delivery, progress: str) -> None:
    response = responses.build_delivery_status(DeliveryStatus(delivery), DONE.accepted)
    assert response.status_code == 202
    assert response.headers["X-Progress"] == progress
    assert int(response.headers["Retry-After"]) > 0
    assert response.get_body() == b""


def test_a_parked_delivery_tells_why() -> None:
    parked = replace(DONE, status=Status.PARKED, reason="FHIR server: answered 500")
    response = responses.build_delivery_status(DeliveryStatus(parked, [], []), DONE.accepted)
    assert response.status_code == 202
    assert "X-Progress" in response.headers
    assert "FHIR server: answered 500" in read(response)["issue"][0]["diagnostics"]


@pytest.mark.parametrize(
    ("for_operator", "after", "retry", "severity"),
    [
        (False, 8, 9, "information"),
        (False, -5, 1, "information"),
        (True, 60, 300, "warning"),
        (True, 900, 901, "warning"),
    ],
)
def test_a_delivery_that_waits_tells_why_and_when_to_ask_again(
    for_operator: bool, after: float, retry: int, severity: str
) -> None:
    now = DONE.accepted
    waiting = replace(
        DONE,
        status=Status.PROCESSING,
        reason="FHIR server: answered 503",
        waiting=now - timedelta(minutes=5),
        attempts=4,
        next_attempt=now + timedelta(seconds=after),
        for_operator=for_operator,
    )
    response = responses.build_delivery_status(DeliveryStatus(waiting), now)
    assert (response.status_code, response.headers["Retry-After"]) == (202, str(retry))
    (issue,) = read(response)["issue"]
    assert issue["severity"] == severity
    for told in ("answered 503", "failed: 4", "since 20", "next one: 20"):
        assert told in issue["diagnostics"]


def test_what_waits_for_a_person_is_asked_for_rarely() -> None:
    parked = replace(DONE, status=Status.PARKED, reason="the cause", parked=DONE.accepted)
    response = responses.build_delivery_status(DeliveryStatus(parked), DONE.accepted)
    assert int(response.headers["Retry-After"]) >= 600
    assert "parked since 20" in read(response)["issue"][0]["diagnostics"]


def test_a_cancelled_delivery_is_no_longer_there() -> None:
    cancelled = replace(DONE, status=Status.CANCELLED)
    response = responses.build_delivery_status(
        DeliveryStatus(cancelled, [EntryResult(0, 201)], []), DONE.accepted
    )
    assert response.status_code == 404
    assert "cancelled" in read(response)["issue"][0]["diagnostics"]


def test_a_finished_delivery_is_its_response_bundle_in_the_sender_s_order() -> None:
    issue = {"severity": "error", "code": "invariant", "diagnostics": "no"}
    outcomes = [
        EntryResult(
            0,
            201,
            full_url="urn:uuid:1",
            location="Patient/p1/_history/1",
            etag='W/"1"',
            last_modified="2026-03-02T00:00:00Z",
        ),
        EntryResult(1, 422, issues=[issue]),
    ]
    response = responses.build_delivery_status(DeliveryStatus(DONE, outcomes, []), DONE.accepted)
    assert (response.status_code, response.mimetype) == (200, "application/fhir+json")
    assert read(response) == {
        "resourceType": "Bundle",
        "type": "transaction-response",
        "entry": [
            {
                "fullUrl": "urn:uuid:1",
                "response": {
                    "status": "201",
                    "location": "Patient/p1/_history/1",
                    "etag": 'W/"1"',
                    "lastModified": "2026-03-02T00:00:00Z",
                },
            },
            {
                "response": {
                    "status": "422",
                    "outcome": {"resourceType": "OperationOutcome", "issue": [issue]},
                }
            },
        ],
    }


@pytest.mark.parametrize("kind", ["batch", "resource", "ndjson"])
def test_what_was_no_transaction_is_answered_as_a_batch(kind: str) -> None:
    response = responses.build_delivery_status(
        DeliveryStatus(replace(DONE, kind=kind), [EntryResult(0, 204)], []), DONE.accepted
    )
    assert read(response)["type"] == "batch-response"


def test_lost_atomicity_and_unmapped_values_are_told_beside_what_the_server_said() -> None:
    issue = {"severity": "warning", "code": "invariant", "diagnostics": "said by the server"}
    outcomes = [
        EntryResult(0, 201, location="Patient/p1/_history/1", issues=[issue]),
        EntryResult(1, 201, location="Patient/p2/_history/1"),
    ]
    rows = [
        RowResult(
            delivery=ID,
            resource="Patient/p1",
            table="contact",
            row="k",
            action="created",
            version="1",
            notes=("lastname: cut",),
        )
    ]
    body = read(
        responses.build_delivery_status(
            DeliveryStatus(replace(DONE, split=True), outcomes, rows), DONE.accepted
        )
    )
    first, second = (item["response"] for item in body["entry"])
    reported = [entry["diagnostics"] for entry in first["outcome"]["issue"]]
    assert reported[0] == "said by the server"
    assert any("lastname: cut" in text for text in reported)
    assert any("3 units" in text for text in reported)
    assert "outcome" not in second
    assert len(issue) == 3


def test_a_cancellation_is_answered_without_a_body() -> None:
    response = responses.build_cancelled(DONE)
    assert (response.status_code, response.get_body()) == (202, b"")


# --- lists and health --------------------------------------------------------------------------


def test_a_page_has_the_address_of_the_next_one() -> None:
    req = asked(status="done", _count="1", code="a-function-key")
    query = parse_query(req.url, ("status", "_count"))
    response = responses.build_delivery_page(req, query, Page((DONE,), ID))
    body = read(response)
    assert response.mimetype == "application/json"
    assert body["next"] == f"http://host/api/deliveries?status=done&_count=1&after={ID}"
    assert body["deliveries"][0]["id"] == ID
    assert body["deliveries"][0]["status"] == "done"
    assert "finished" not in body["deliveries"][0]


def test_the_address_of_the_next_page_keeps_what_was_asked() -> None:
    req = asked(reason="answered 503 & more", since="2026-03-02T01:15:00+05:30", code="a-key")
    query = parse_query(req.url, ("reason", "since"))
    page = responses.build_delivery_page(req, query, ReplayPage((DONE,), ID))
    address = httpx.URL(read(page)["next"])
    assert dict(address.params) == {
        "reason": "answered 503 & more",
        "since": "2026-03-02T01:15:00+05:30",
        "after": ID,
    }


def test_a_dry_run_is_asked_for_in_so_many_words() -> None:
    assert not responses.is_dry_run({})
    assert not responses.is_dry_run({"dry-run": "false"})
    assert responses.is_dry_run({"dry-run": "true"})
    for other in ("1", "True", ""):
        with pytest.raises(Rejected, match="dry-run must be true or false"):
            responses.is_dry_run({"dry-run": other})


def test_a_plan_is_told_as_json() -> None:
    response = responses.build_plan({"kind": "batch"})
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert read(response) == {"kind": "batch"}


def test_the_last_page_has_no_next_one() -> None:
    assert "next" not in read(responses.build_delivery_page(asked(), {}, Page((DONE,), None)))


def test_health_is_an_answer_for_probes() -> None:
    checked = datetime(2026, 3, 2, tzinfo=UTC)
    well = responses.build_upstreams(CheckedStates({"storage": OK}, checked, 60))
    states = {"status": "ok", "checked": "2026-03-02T00:00:00Z", "storage": "ok"}
    assert (well.status_code, read(well)) == (200, states)
    assert well.headers["Cache-Control"] == "private, max-age=60"
    slow = CheckedStates({"storage": UpstreamState(Answering.SLOWLY, "4 s")}, checked, 9)
    slowly = responses.build_upstreams(slow)
    assert (slowly.status_code, read(slowly)["status"]) == (200, "degraded")
    trouble = {"storage": OK, "fhir": UpstreamState(Answering.REFUSES, "answered 500")}
    ill = responses.build_upstreams(CheckedStates(trouble, checked, 3))
    assert (ill.status_code, read(ill)["status"]) == (503, "degraded")
    assert ill.headers["Cache-Control"] == "private, max-age=3"


# --- who asks ----------------------------------------------------------------------------------

BOTH = ReaderHeaders("X-Sender", "X-User")


@pytest.mark.parametrize(
    ("named", "headers", "reader"),
    [
        (ReaderHeaders(), {"X-Sender": "lab", "X-User": "nurse"}, Reader()),
        (BOTH, {"x-sender": "lab", "X-USER": " nurse "}, Reader(sender="lab", user="nurse")),
        (BOTH, {"X-Sender": " "}, Reader()),
        (BOTH, {"X-User": "a\nb\x00" + "c" * 999}, Reader(user=f"ab{'c' * 254}")),
    ],
)
def test_who_asks_is_what_the_named_headers_say(
    named: ReaderHeaders, headers: dict[str, str], reader: Reader
) -> None:
    req = func.HttpRequest("GET", "http://host/api/any", headers=headers, body=b"")
    assert responses.build_reader(req, named) == reader


def test_audit_events_are_lines_and_lead_to_the_next_page() -> None:
    time = datetime(2026, 3, 2, tzinfo=UTC)
    access = build_access(AccessKind.ROW, ["Patient/p1"])
    entry = AuditEntry(id="a", time=time, reader=Reader(sender="lab"), access=access)
    query = {"_format": "application/fhir ndjson", "sender": "lab"}
    response = responses.build_audit_page(asked(), query, AuditPage((entry, entry), "next"))
    assert response.mimetype == "application/fhir+ndjson"
    lines = response.get_body().decode().splitlines()
    assert [json.loads(line)["resourceType"] for line in lines] == ["AuditEvent"] * 2
    address, rel = response.headers["Link"].split("; ")
    assert rel == 'rel="next"'
    assert dict(httpx.URL(address.strip("<>")).params)["after"] == "next"
    last = responses.build_audit_page(asked(), {}, AuditPage((entry,), None))
    assert "Link" not in last.headers
    assert read(last) == {
        "audit": [
            {
                "id": "a",
                "time": "2026-03-02T00:00:00Z",
                "sender": "lab",
                "kind": "row",
                "action": "read",
                "status": 200,
                "types": ["Patient"],
                "resources": ["Patient/p1"],
                "number": 1,
            }
        ]
    }


# --- what intake is asked ----------------------------------------------------------------------


def test_a_request_is_handed_on_as_it_was_signed() -> None:
    req = func.HttpRequest(
        "PUT",
        "http://anything.example/api/senders/lab/fhir/Patient?identifier=a%7Cb&x=",
        headers={"Content-Type": "application/json", "IF-MATCH": 'W/"1"'},
        body=b"{}",
    )
    signed = responses.build_signed_request(req, "https://relay.example")
    assert (signed.method, signed.body) == ("PUT", b"{}")
    assert signed.url == "https://relay.example/api/senders/lab/fhir/Patient?identifier=a%7Cb&x="
    assert signed.headers == {"content-type": "application/json", "if-match": 'W/"1"'}


def test_addresses_begin_with_what_is_configured_and_not_with_what_the_caller_says() -> None:
    req = asked("http://anything.example/api/fhir")
    assert responses.find_root(req, "https://relay.example") == "https://relay.example"
    assert responses.find_root(req, None) == "http://anything.example"


# --- what is signed --------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["/api/", "/API/", "/Api/"])
@pytest.mark.parametrize("public_url", [None, "https://relay.example"])
def test_an_address_keeps_its_path_and_query_however_it_is_spelt(
    prefix: str, public_url: str | None
) -> None:
    """The host's routes ignore case. Without its query a dry run would write."""
    rest = "senders/lab/fhir?dry-run=true&x=/api/"
    req = asked(f"http://host{prefix}{rest}")
    root = responses.find_root(req, public_url)
    assert root == (public_url or "http://host")
    assert responses.build_signed_request(req, root).url == f"{root}{prefix}{rest}"
