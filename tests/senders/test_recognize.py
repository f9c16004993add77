"""Schemes are recognized by headers and encodings; what is signed when, by the same."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest

from fuzz.proof_seeds import BODY, ED25519_PUBLIC, NOW, SECONDS, TOKEN, build_request, build_seeds
from integration.senders.proofs.registry import SCHEMES
from integration.senders.recognize import recognize
from integration.senders.signed_time import find_signed_time
from tests.senders.proofs.proving import read_table
from tests.senders.proofs.vendors import VENDORS


def list_schemes(headers: dict[str, str]) -> list[str]:
    return [item.scheme for item in recognize(build_request(headers)) if not item.is_guess]


@pytest.mark.parametrize(
    ("value", "scheme", "keys"),
    [
        ("ab" * 32, "hmac", {}),
        ("AB" * 48, "hmac", {"algorithm": "sha384"}),
        (base64.b64encode(b"x" * 32).decode(), "hmac", {"encoding": "base64"}),
        (base64.b64encode(b"x" * 64).decode(), "ed25519", {}),
        ("cd" * 64, "ed25519", {"encoding": "hex"}),
        ("v1=" + "ab" * 32, "hmac", {"prefix": "v1="}),
        (
            base64.urlsafe_b64encode(b"\xfb\xff" * 16).decode().rstrip("="),
            "hmac",
            {"encoding": "base64url"},
        ),
    ],
)
def test_a_signature_is_known_by_its_length_and_encoding(
    value: str, scheme: str, keys: dict[str, str]
) -> None:
    first = recognize(build_request({"X-Acme-Signature": value}))[0]
    assert (first.scheme, first.keys) == (scheme, {"header": "x-acme-signature", **keys})
    assert first.varying == ("x-acme-signature",)


def test_a_token_is_the_same_in_each_message() -> None:
    (found,) = recognize(build_request({"X-Api-Key": TOKEN}))
    assert (found.scheme, found.varying) == ("token-header", ())


def test_several_headers_are_several_candidates() -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Signature": "ab" * 32}
    assert list_schemes(headers) == ["hmac", "bearer"]


def test_ordinary_headers_are_no_proof() -> None:
    headers = {
        "Host": "relay.example",
        "Accept": "*/*",
        "X-Request-Id": "7",
        "User-Agent": "x" * 40,
    }
    assert recognize(build_request(headers)) == []


def test_every_scheme_is_recognized_by_a_request_of_it() -> None:
    found = {
        candidate.scheme
        for seed in build_seeds()
        for candidate in recognize(seed.request)
        if candidate.scheme == seed.scheme
    }
    key = {item.scheme for item in recognize(build_request({"x-functions-key": "k"}))}
    assert found | key == set(SCHEMES) - {"folder"}  # which sends no requests


def test_a_candidate_holds_nothing_of_a_body_or_a_key() -> None:
    for vendor in VENDORS.values():
        text = repr(recognize(vendor.build()))
        assert vendor.secret not in text
        assert ED25519_PUBLIC not in text
        assert "Ada" not in text


def test_the_time_that_a_request_states_is_found() -> None:
    for name, vendor in VENDORS.items():
        signed = find_signed_time(read_table(vendor.scheme, vendor.build_table()), vendor.build())
        if vendor.has_time and vendor.scheme != "certificate":
            assert signed is not None, name
            assert abs(signed - NOW) <= timedelta(hours=1), name
        else:
            assert signed is None, name


def test_what_is_no_time_is_none() -> None:
    proof = read_table("standard-webhooks", {"secrets": ["A"]})
    for text in ("", "soon", "-1", SECONDS + "0", "9" * 40):
        request = build_request({"webhook-timestamp": text}, BODY)
        assert find_signed_time(proof, request) is None
