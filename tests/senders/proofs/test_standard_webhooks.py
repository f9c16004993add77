"""The scheme `standard-webhooks`, and another verifier of it as a second opinion."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from fuzz.proof_seeds import (
    BODY,
    ED25519_PUBLIC,
    NOW,
    OLD_WHSEC,
    SECONDS,
    WHSEC,
    build_request,
    sign_ed25519,
    sign_webhook,
)
from integration.senders.proofs.proof import SignedRequest
from tests.senders.proofs.proving import check, prove, refuse, set_header

TABLE: dict[str, Any] = {"secrets": ["A"]}
SCHEME = "standard-webhooks"
GOOD = sign_webhook("m-1", SECONDS, BODY)


def build_webhook(
    signature: str = GOOD, message_id: str = "m-1", timestamp: str = SECONDS, body: bytes = BODY
) -> SignedRequest:
    """A webhook with this signature."""
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": signature,
    }
    return build_request(headers, body)


def test_several_signatures_may_stand_in_the_header() -> None:
    other = sign_webhook("m-1", SECONDS, BODY, OLD_WHSEC)
    for signature in (f"{other} {GOOD}", f"{GOOD} {other}", f"v9,anything {GOOD}"):
        assert prove(SCHEME, TABLE, [WHSEC], build_webhook(signature)).message_id == "m-1"
    refuse(SCHEME, TABLE, [WHSEC], build_webhook(other))
    assert "more than 16" in refuse(SCHEME, TABLE, [WHSEC], build_webhook(f"{other} " * 16 + GOOD))


@pytest.mark.parametrize(
    "signature",
    [
        GOOD.removeprefix("v1,"),
        GOOD.replace("v1,", "v2,"),
        GOOD.replace("v1,", "v1a,"),
        GOOD.replace(",", ", "),
        GOOD.rstrip("="),
        f"{GOOD}=",
        f"{GOOD[:9]}!{GOOD[9:]}",
        f"{GOOD} junk",
        f"{GOOD} v1,AAAA",
        f"{GOOD}  {GOOD}",
        "v1,",
        ",",
    ],
)
def test_a_signature_that_is_not_as_it_should_be_is_refused(signature: str) -> None:
    refuse(SCHEME, TABLE, [WHSEC], build_webhook(signature))


@pytest.mark.parametrize(
    ("message_id", "is_taken"),
    [("i" * 256, True), ("a~!-/", True), ("i" * 257, False), ("a.b", False), ("a b", False)],
)
def test_an_id_is_bounded_and_holds_no_full_stop(message_id: str, is_taken: bool) -> None:
    request = build_webhook(sign_webhook(message_id, SECONDS, BODY), message_id)
    if is_taken:
        assert prove(SCHEME, TABLE, [WHSEC], request).message_id == message_id
    else:
        refuse(SCHEME, TABLE, [WHSEC], request)


@pytest.mark.parametrize("timestamp", [f"{SECONDS}.9", f" {SECONDS}0", "1e9", "\u0661" * 10, "-1"])
def test_a_timestamp_is_a_whole_number(timestamp: str) -> None:
    signature = sign_webhook("m-1", timestamp, BODY)
    refuse(SCHEME, TABLE, [WHSEC], build_webhook(signature, timestamp=timestamp))


def test_a_timestamp_may_differ_by_the_tolerance_both_ways() -> None:
    for seconds in (-300, 300):
        prove(SCHEME, TABLE, [WHSEC], build_webhook(), NOW + timedelta(seconds=seconds))
    for seconds in (-301, 301):
        refuse(SCHEME, TABLE, [WHSEC], build_webhook(), NOW + timedelta(seconds=seconds))
    refuse(
        SCHEME, {**TABLE, "tolerance": 10}, [WHSEC], build_webhook(), NOW + timedelta(seconds=11)
    )


def test_the_names_of_svix_are_taken_alike_but_not_mixed() -> None:
    request = build_webhook()
    names = {name.replace("webhook", "svix"): value for name, value in request.headers.items()}
    assert prove(SCHEME, TABLE, [WHSEC], build_request(names)).message_id == "m-1"
    mixed = set_header(build_request(names), "webhook-signature", GOOD)
    refuse(SCHEME, TABLE, [WHSEC], mixed)


def test_a_public_key_takes_no_hmac_and_a_secret_no_ed25519() -> None:
    text = f"m-1.{SECONDS}.".encode() + BODY
    asymmetric = build_webhook(f"v1a,{sign_ed25519(text)}")
    prove(SCHEME, TABLE, [f"whpk_{ED25519_PUBLIC}"], asymmetric)
    refuse(SCHEME, TABLE, [WHSEC], asymmetric)
    # Whoever knows the public key could make this.
    forged = sign_webhook("m-1", SECONDS, BODY, f"whsec_{ED25519_PUBLIC}")
    refuse(SCHEME, TABLE, [f"whpk_{ED25519_PUBLIC}"], build_webhook(forged))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", "does not begin with whsec_"),
        ("whsec_###", "does not hold base64 after whsec_"),
        ("whsec_" + base64.b64encode(b"x" * 23).decode(), "24 to 64 bytes"),
        ("whsec_" + base64.b64encode(b"x" * 65).decode(), "24 to 64 bytes"),
        ("whpk_AAAA", "32 bytes after whpk_"),
        ("whpk_###", "does not hold base64 after whpk_"),
        (f"whsk_{ED25519_PUBLIC}", "private key"),
    ],
)
def test_what_is_wrong_with_a_setting_is_told(value: str, why: str) -> None:
    (problem,) = check(SCHEME, TABLE, [value])
    assert why in problem
    assert value not in problem
    refuse(SCHEME, TABLE, [value], build_webhook())


def test_a_secret_may_leave_its_padding_away() -> None:
    prove(SCHEME, TABLE, [WHSEC.rstrip("=")], build_webhook())


@given(
    message_id=st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True),
    body=st.text(max_size=80),
    change=st.sampled_from(["nothing", "body", "id", "signature"]),
)
def test_another_verifier_is_of_the_same_opinion(message_id: str, body: str, change: str) -> None:
    other = Webhook(WHSEC)
    # That library has no clock to hand in.
    now = datetime.now(UTC)
    timestamp = str(int(now.timestamp()))
    data = body.encode(errors="replace")
    signature = other.sign(message_id, datetime.fromtimestamp(int(timestamp), UTC), data.decode())
    request = build_webhook(
        signature.replace("v1,", "v1,A")[:-2] + "=" if change == "signature" else signature,
        message_id + ("x" if change == "id" else ""),
        timestamp,
        data + (b"x" if change == "body" else b""),
    )
    if change == "nothing":
        assert prove(SCHEME, TABLE, [WHSEC], request, now).message_id == message_id
        other.verify(request.body, dict(request.headers), json_parse=False)
    else:
        refuse(SCHEME, TABLE, [WHSEC], request, now)
        with pytest.raises(WebhookVerificationError):
            other.verify(request.body, dict(request.headers), json_parse=False)
