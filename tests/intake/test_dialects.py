"""Handshakes and deletes of vendors: answered as each documents it, and nothing else is taken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.errors import Rejected
from integration.intake import dialects
from integration.intake.dialects import Handshake
from integration.senders.proofs.proof import SignedRequest

URL = "https://relay.example/api/senders/lab/fhir"


def made(body: Any = b"", method: str = "POST", url: str = URL, **headers: str) -> SignedRequest:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return SignedRequest(method=method, url=url, headers=named, body=content)


def test_a_challenge_of_redox_is_repeated_whether_it_comes_by_post_or_get() -> None:
    body = {"verification-token": "made-up-token", "challenge": "c-81f2"}
    posted = made(body)
    asked = made(method="GET", url=f"{URL}?challenge=c-81f2&verification-token=made-up-token")
    for request in (posted, asked):
        moved = dialects.move_token("redox", request)
        assert moved.headers["verification-token"] == "made-up-token"
        assert dialects.answer_handshake("redox", moved) == Handshake("c-81f2", {})


def test_a_token_in_the_header_is_not_replaced_by_one_in_the_body() -> None:
    request = made({"verification-token": "other", "challenge": "x"}, verification_token="one")
    assert dialects.move_token("redox", request) == request


def test_a_delivery_of_redox_is_no_challenge() -> None:
    request = made({"resourceType": "Patient"}, verification_token="one")
    assert dialects.answer_handshake("redox", request) is None


def test_a_ping_of_metriport_is_answered_with_its_pong() -> None:
    ping = {"ping": "r-7", "meta": {"messageId": "m-1", "type": "ping"}}
    assert dialects.answer_handshake("metriport", made(ping)) == Handshake({"pong": "r-7"}, {})


def test_event_grid_s_validation_is_answered_and_its_address_is_never_asked() -> None:
    event = {
        "id": "1",
        "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "data": {"validationCode": "v-1", "validationUrl": "https://elsewhere.example/"},
    }
    request = made([event], aeg_event_type="SubscriptionValidation")
    answer = dialects.answer_handshake("event-grid", request)
    assert answer == Handshake({"validationResponse": "v-1"}, {})


def test_cloud_events_are_told_that_they_may_be_sent() -> None:
    request = made(method="OPTIONS", webhook_request_origin="eventgrid.azure.net")
    answer = dialects.answer_preflight("event-grid", request)
    assert answer is not None
    assert answer.headers["WebHook-Allowed-Origin"] == "eventgrid.azure.net"
    assert answer.headers["WebHook-Allowed-Rate"] == "*"


@pytest.mark.parametrize("origin", ["", "a b", "x\r\ny", "a" * 300])
def test_no_origin_is_repeated_that_is_none(origin: str) -> None:
    request = made(method="OPTIONS", webhook_request_origin=origin)
    assert dialects.answer_preflight("event-grid", request) is None


def test_nobody_else_is_answered_a_preflight() -> None:
    request = made(method="OPTIONS", webhook_request_origin="eventgrid.azure.net")
    assert dialects.answer_preflight("fhir", request) is None


@pytest.mark.parametrize("challenge", ["", "a\nb", "<script>\x00", "é", "x" * 201, 7, ["a"]])
def test_what_is_no_plain_text_is_not_repeated(challenge: object) -> None:
    request = made({"verification-token": "t", "challenge": challenge})
    with pytest.raises(Rejected):
        dialects.answer_handshake("redox", request)


def test_a_delete_of_medplum_names_its_resource_in_a_header() -> None:
    request = made({}, x_medplum_deleted_resource="Patient/p-1")
    assert dialects.find_deleted_resource("medplum", request) == ("Patient", "p-1")
    assert dialects.find_deleted_resource("fhir", request) is None


@pytest.mark.parametrize(
    "header", ["Patient", "Patient/", "../Patient/1", "https://x.example/Patient/1", "Nothing/1"]
)
def test_a_delete_of_what_is_no_resource_is_refused(header: str) -> None:
    with pytest.raises(Rejected):
        dialects.find_deleted_resource("medplum", made({}, x_medplum_deleted_resource=header))


def test_a_resource_does_not_become_a_delete_by_a_header_that_nobody_signed() -> None:
    request = made({"resourceType": "Patient"}, x_medplum_deleted_resource="Patient/p-1")
    with pytest.raises(Rejected):
        dialects.find_deleted_resource("medplum", request)


@given(
    st.sampled_from(["fhir", "redox", "metriport", "event-grid", "medplum"]),
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["challenge", "ping", "verification-token", "data"]),
                inner,
                max_size=3,
            )
        ),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode()),
    st.dictionaries(
        st.sampled_from(["aeg-event-type", "x-medplum-deleted-resource", "webhook-request-origin"]),
        st.text(max_size=30) | st.just("SubscriptionValidation"),
        max_size=3,
    ),
)
def test_whatever_comes_is_answered_or_refused(
    dialect: str, body: bytes, headers: dict[str, str]
) -> None:
    request = SignedRequest(method="POST", url=URL, headers=headers, body=body)
    status = 200
    try:
        moved = dialects.move_token(dialect, request)
        dialects.answer_preflight(dialect, moved)
        dialects.answer_handshake(dialect, moved)
        dialects.find_deleted_resource(dialect, moved)
    except Rejected as error:
        status = error.status
    assert status in (200, 400)
