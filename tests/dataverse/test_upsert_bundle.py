"""`msind_UpsertBundle`: what is asked, and what its answer says of each row."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from integration.core import decimal_json
from integration.dataverse.upsert_bundle import (
    Action,
    build_request,
    describe_problems,
    parse_response,
)
from tests.builders import MARKER

ROW = "0b6d3d3e-9c4b-4a53-8f1f-6f0f8a2f4c11"
PATIENT = {"resourceType": "Patient", "id": "p1"}

Json = dict[str, Any]


def result(table: str, action: int, status: int, **more: Any) -> Json:
    """As documented; the numbers are the last digit of theirs."""
    return {
        "@odata.type": "#Microsoft.Dynamics.CRM.msind_upsertfhirbundleresult",
        "msind_fhirresourceid": "p1",
        "msind_fhirresourcetype": "Patient",
        "msind_resultingrecordid": ROW,
        "msind_resultingrecordtype": table,
        "msind_requestactionperformed": 935000000 + action,
        "msind_requeststatus": 935000000 + status,
        "msind_requeststatusdetail": f"{MARKER} is no value of Patient.identifier",
        **more,
    }


def said(*results: Json, fine: bool = False) -> bytes:
    body = {"msind_Status": fine, "msind_StatusDetail": MARKER, "msind_Results": list(results)}
    return json.dumps(body).encode()


def test_a_resource_goes_as_a_batch_response_in_text() -> None:
    asked = build_request(PATIENT, "delivery 1")
    assert (asked.method, asked.path) == ("POST", "api/data/v9.2/msind_UpsertBundle")
    assert asked.headers["odata-version"] == "4.0"
    sent = json.loads(asked.body or b"")
    assert sent.keys() == {"msind_JSON", "msind_BundleTag"}
    assert sent["msind_BundleTag"] == "delivery 1"
    assert json.loads(sent["msind_JSON"]) == {
        "resourceType": "Bundle",
        "type": "batch-response",
        "entry": [{"resource": PATIENT, "response": {"status": "200"}}],
    }


def test_decimals_keep_their_digits() -> None:
    asked = build_request({**PATIENT, "extension": [{"valueDecimal": Decimal("1.10")}]}, "")
    assert '"valueDecimal":1.10}' in decimal_json.decode(asked.body or b"")["msind_JSON"]


def test_all_went_well_only_where_every_row_says_so() -> None:
    root, child = result("contact", 0, 0), result("msemr_contactlink", 2, 0)
    found = parse_response(said(root, child, fine=True), "Patient/p1")
    assert found.succeeded
    assert describe_problems(found) == ()
    assert found.root is not None
    assert (found.root.row, found.root.action) == (ROW, Action.CREATED)


@pytest.mark.parametrize(("status", "name"), [(1, "warning"), (2, "error"), (7, "error")])
def test_a_row_may_be_written_though_its_children_were_not(status: int, name: str) -> None:
    child = result("msemr_contactlink", 2, status, msind_resultingrecordid=None)
    found = parse_response(said(result("contact", 1, 2), child, child), "Patient/p1")
    assert not found.succeeded
    assert found.root is not None
    assert (found.root.row, found.root.action) == (ROW, Action.UPDATED)
    assert describe_problems(found) == ("contact: error", f"msemr_contactlink: {name}")


def test_a_row_without_a_key_is_not_written() -> None:
    failed = result("contact", 0, 2)
    del failed["msind_resultingrecordid"]
    found = parse_response(said(failed), "Patient/p1")
    assert found.root is None
    assert describe_problems(found) == ("contact: error",)


def test_a_child_s_row_is_never_taken_for_the_resource_s() -> None:
    found = parse_response(said(result("msemr_contactlink", 2, 0), fine=True), "Patient/p1")
    assert found.root is None


def test_an_answer_about_other_resources_says_nothing_of_this_one() -> None:
    other = result("contact", 0, 0, msind_fhirresourceid="p2")
    found = parse_response(said(other, fine=True), "Patient/p1")
    assert (found.root, found.succeeded) == (None, False)
    assert "entity map" in describe_problems(found)[0]


def test_a_failure_that_no_row_tells_of_is_noted() -> None:
    found = parse_response(said(result("contact", 0, 0)), "Patient/p1")
    assert not found.succeeded
    assert describe_problems(found) == (
        "msind_UpsertBundle did not succeed and does not say for which row",
    )


@pytest.mark.parametrize("table", [MARKER, f"contact {MARKER}", 7, None, "x" * 101])
def test_notes_hold_names_of_tables_and_no_text(table: Any) -> None:
    row = {"msind_resultingrecordid": f"{MARKER}{ROW}"}
    found = parse_response(said(result(table, 0, 2, **row)), "Patient/p1")
    assert found.root is None
    assert describe_problems(found) == ("a row: error",)
    assert MARKER not in repr(found)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"msind_Results": {}}', said(result("contact", 0, 0))[:-9]]
)
def test_what_is_no_answer_is_none(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"response|JSON"):
        parse_response(body, "Patient/p1")
