"""What senders and operators see of a delivery."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
import pytest

from integration.core.model import Delivery, EntryResult, RowResult, Status
from integration.operations.views import build_response_bundle, describe_delivery, describe_progress

NOW = datetime.fromisoformat("2024-05-06T07:08:09Z")
DELIVERY = Delivery(
    id="0190a1b2-0000-7000-8000-000000000001",
    sender="clinic",
    key="k",
    digest="d",
    accepted=NOW,
    status=Status.DONE,
    kind="transaction",
    entries=2,
    bytes=1000,
    units=3,
)
WRITTEN = EntryResult(
    position=0,
    status=201,
    full_url="urn:a",
    location="Patient/1/_history/2",
    etag='W/"2"',
    last_modified="2024-05-06T07:08:09Z",
    unit="0.0",
)
REFUSED = EntryResult(
    1, 422, full_url=None, issues=[{"severity": "error", "code": "value", "diagnostics": "no"}]
)
ROW = RowResult(
    delivery=DELIVERY.id,
    resource="Patient/1",
    table="contact",
    row="k",
    action="created",
    version="2",
    notes=("suffix: cut @ name",),
)


def shown(
    *outcomes: EntryResult, rows: tuple[RowResult, ...] = (), **changes: Any
) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = build_response_bundle(
        replace(DELIVERY, **changes), outcomes, rows
    )["entry"]
    return entries


@pytest.mark.parametrize(
    ("kind", "type_"),
    [
        ("transaction", "transaction-response"),
        ("batch", "batch-response"),
        ("resource", "batch-response"),
        ("collection", "batch-response"),
        ("history", "batch-response"),
        ("ndjson", "batch-response"),
    ],
)
def test_the_response_is_a_bundle_of_its_kind(kind: str, type_: str) -> None:
    answer = build_response_bundle(replace(DELIVERY, kind=kind), [WRITTEN], ())
    assert (answer["resourceType"], answer["type"]) == ("Bundle", type_)


def test_a_page_that_was_not_followed_is_reported_with_the_first_entry() -> None:
    first, second = shown(WRITTEN, WRITTEN, kind="searchset", more=True)
    (issue,) = first["response"]["outcome"]["issue"]
    assert issue["severity"] == "information"
    assert "next page" in issue["diagnostics"]
    assert "outcome" not in second["response"]


def test_a_gap_is_reported_with_the_first_entry() -> None:
    gap = "events 4 to 6 of the subscription were not received"
    first, second = shown(WRITTEN, WRITTEN, kind="notification", gap=gap)
    (issue,) = first["response"]["outcome"]["issue"]
    assert (issue["severity"], issue["code"]) == ("warning", "incomplete")
    assert issue["diagnostics"] == gap
    assert "outcome" not in second["response"]


def test_the_result_of_a_read_keeps_every_digit() -> None:
    text = '{"resourceType":"Observation","value":1.10}'
    answer = build_response_bundle(DELIVERY, [replace(WRITTEN, resource=text)], ())
    assert f'"resource":{text},"response":' in msgspec.json.encode(answer).decode()


def test_a_written_entry_has_its_location() -> None:
    assert shown(WRITTEN) == [
        {
            "fullUrl": "urn:a",
            "response": {
                "status": "201",
                "location": "Patient/1/_history/2",
                "etag": 'W/"2"',
                "lastModified": "2024-05-06T07:08:09Z",
            },
        }
    ]


def test_a_refused_entry_has_the_reason() -> None:
    outcome = {"resourceType": "OperationOutcome", "issue": REFUSED.issues}
    assert shown(REFUSED) == [{"response": {"status": "422", "outcome": outcome}}]


def test_entries_have_the_order_of_the_sender() -> None:
    assert [item["response"]["status"] for item in shown(WRITTEN, REFUSED)] == ["201", "422"]


def test_notes_about_a_row_are_shown_with_its_resource() -> None:
    row = replace(ROW, remarks=("numbers: 1 removed",))
    first, second = shown(WRITTEN, replace(WRITTEN, location="Patient/9"), rows=(row,))
    assert first["response"]["outcome"]["issue"] == [
        {
            "severity": "information",
            "code": "informational",
            "diagnostics": "contact row k: created",
        },
        {
            "severity": "information",
            "code": "incomplete",
            "diagnostics": "contact row: suffix: cut @ name",
        },
        {
            "severity": "information",
            "code": "informational",
            "diagnostics": "contact row: numbers: 1 removed",
        },
    ]
    assert "outcome" not in second["response"]


def test_notes_about_a_row_are_added_to_the_servers_issues_and_change_none() -> None:
    warned = replace(WRITTEN, issues=[{"severity": "warning", "code": "value"}])
    ((item),) = shown(warned, rows=(ROW,))
    assert [found["code"] for found in item["response"]["outcome"]["issue"]] == [
        "value",
        "informational",
        "incomplete",
    ]
    assert warned.issues == [{"severity": "warning", "code": "value"}]


@pytest.mark.parametrize(
    ("row", "severity", "told"),
    [
        (None, "information", "Patient/1: its row is not written yet"),
        ({"action": "updated", "notes": ()}, "information", "contact row k: updated"),
        (
            {"action": "refused", "row": None, "notes": ("answered 400",)},
            "warning",
            "contact row is not written, but refused: answered 400",
        ),
        (
            {"action": "parked", "row": None, "notes": ()},
            "warning",
            "contact row is not written, but parked",
        ),
    ],
)
def test_the_answer_tells_what_became_of_each_row(
    row: dict[str, Any] | None, severity: str, told: str
) -> None:
    rows = () if row is None else (replace(ROW, **row),)
    (item,) = shown(replace(WRITTEN, queued=["Patient/1"]), rows=rows)
    (issue,) = item["response"]["outcome"]["issue"]
    assert (issue["severity"], issue["diagnostics"]) == (severity, told)


def test_of_a_resource_that_is_not_mirrored_no_row_is_told() -> None:
    assert "outcome" not in shown(WRITTEN)[0]["response"]
    gone = replace(ROW, action="absent", row=None, notes=())
    assert "outcome" not in shown(WRITTEN, rows=(gone,))[0]["response"]


def test_a_split_transaction_says_so() -> None:
    first, second = shown(WRITTEN, REFUSED, split=True)
    (issue,) = first["response"]["outcome"]["issue"]
    assert issue["code"] == "informational"
    assert "3 units" in issue["diagnostics"]
    assert second["response"]["outcome"]["issue"] == REFUSED.issues


def test_a_whole_transaction_has_no_such_note() -> None:
    assert "outcome" not in shown(WRITTEN)[0]["response"]


def test_a_delivery_without_results_is_a_bundle_without_entries() -> None:
    body = build_response_bundle(replace(DELIVERY, split=True), [], [])
    assert body == {"resourceType": "Bundle", "type": "transaction-response"}


def test_progress_counts_lanes_once_they_are_queued() -> None:
    carried = replace(DELIVERY, status=Status.PROCESSING, lanes=7, lanes_done=3)
    assert describe_progress(carried) == "processing: 3 of 7 lanes done"
    assert describe_progress(replace(DELIVERY, status=Status.ACCEPTED)) == "accepted: 2 entries"


@pytest.mark.parametrize("status", list(Status))
def test_progress_fits_its_header(status: Status) -> None:
    many = replace(DELIVERY, status=status, entries=10**12, lanes=10**12, lanes_done=10**12)
    assert len(describe_progress(many)) <= 100


def test_the_description_leaves_out_what_is_not_known() -> None:
    found = describe_delivery(DELIVERY)
    assert (found["id"], found["status"], found["accepted"]) == (DELIVERY.id, "done", NOW)
    assert {"finished", "reason"}.isdisjoint(found)
    assert describe_delivery(replace(DELIVERY, finished=NOW))["finished"] == NOW


def test_the_description_keeps_what_is_zero_or_false() -> None:
    found = describe_delivery(DELIVERY)
    assert (found["written"], found["split"]) == (0, False)
