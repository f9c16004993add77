"""A vendor's request is recognized and proven, and nothing that is printed holds a value of it."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.proof_seeds import BODY, NOW, SECONDS, SECRET, TOKEN, URL, build_jwks, sign_hex
from integration.cli.captured_request import CapturedRequest, parse_captured
from integration.cli.sender_try import Try, try_candidates, try_sender
from integration.core.errors import Unavailable
from integration.fhir.grammar import RESOURCE_TYPES
from integration.senders.load import parse_senders
from integration.senders.proofs.json_web_token import JsonWebToken
from integration.senders.proofs.proof import Proof, Secrets, SignedRequest
from tests.senders.proofs.vendors import VENDORS, Vendor

TITLES = {
    "athenahealth": "hub",
    "Medplum": "Medplum",
    "Metriport": "Metriport",
    "Redox, an older page": "bearer",
    "Redox": "Redox",
    "Elation": "Elation",
    "NexHealth": "NexHealth",
    "Healthie": "Healthie",
    "Flexpa": "Flexpa",
    "Propexo": "Propexo",
    "Junction": "Svix",
    "Google": "jwt",
    "RFC": "http-message-signatures",
    "Container": "certificate",
}
# Who is no vendor of its own: what its headers look like decides.
ISSUERS_UNKNOWN = ("Event Grid with Entra", "SMART Backend Services")


async def add_keys(proof: Proof, secrets: Secrets, request: SignedRequest) -> Secrets:
    return replace(secrets, jwks=build_jwks()) if isinstance(proof, JsonWebToken) else secrets


def build_try(secret: str | None = None, now: datetime = NOW, **others: Any) -> Try:
    found: dict[str, Any] = {
        "read_setting": lambda name: secret,
        "ask_secret": lambda name: None,
        "add_keys": add_keys,
        "now": now,
        **others,
    }
    return Try(**found)


def capture(vendor: Vendor) -> CapturedRequest:
    """The request as a console shows it."""
    request = vendor.build()
    lines = [f"{request.method} {request.url} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    if "content-type" not in request.headers:
        lines.append("Content-Type: application/fhir+json")
    return parse_captured("\r\n".join([*lines, "", ""]).encode("latin-1") + request.body)


def capture_headers(headers: dict[str, str], body: bytes = BODY) -> CapturedRequest:
    found = {name.lower(): value for name, value in headers.items()}
    found.setdefault("content-type", "application/fhir+json")
    return CapturedRequest(method="POST", target=None, headers=found, body=body)


known = {name: vendor for name, vendor in VENDORS.items() if name not in ISSUERS_UNKNOWN}


@pytest.mark.parametrize("name", known)
async def test_a_vendors_request_is_recognized_and_proven(name: str) -> None:
    vendor = VENDORS[name]
    lines, is_proven = await try_candidates(build_try(vendor.secret), capture(vendor))
    assert is_proven, lines
    looks = next(line for line in lines if line.startswith("looks like: "))
    wanted = next((title for start, title in TITLES.items() if name.startswith(start)), "")
    assert vendor.scheme in looks
    assert wanted in looks


@pytest.mark.parametrize("name", VENDORS)
async def test_nothing_that_was_sent_and_no_secret_is_printed(name: str) -> None:
    vendor = VENDORS[name]
    # What a table compares is no secret: a thumbprint, components of a signature.
    public = {"application/json", *vendor.table.get("thumbprints", ()), '"content-digest"'}
    for secret in (vendor.secret, vendor.wrong_key, None):
        lines, _ = await try_candidates(build_try(secret), capture(vendor))
        text = "\n".join(lines)
        assert vendor.secret not in text
        assert vendor.wrong_key not in text
        for value in vendor.headers.values():
            for part in re.split(r"[ ,=:;.]", value):
                assert len(part) < 16 or part not in text or part in public
        assert "Ada" not in text


keyed = [name for name, vendor in known.items() if vendor.scheme != "jwt"]


@pytest.mark.parametrize("name", keyed)
async def test_another_secret_proves_nothing(name: str) -> None:
    vendor = VENDORS[name]
    lines, is_proven = await try_candidates(build_try(vendor.wrong_key), capture(vendor))
    assert not is_proven
    assert any(line.startswith("proof: NOT PROVEN: ") for line in lines)


@pytest.mark.parametrize("name", known)
async def test_the_proposed_table_proves_the_request_when_it_stands_in_the_file(name: str) -> None:
    vendor = VENDORS[name]
    trial = build_try(vendor.secret)
    lines, _ = await try_candidates(trial, capture(vendor))
    table = "\n".join(line[4:] for line in lines if line.startswith("    "))
    (sender,) = parse_senders(table, RESOURCE_TYPES).values()
    told, is_proven = await try_sender(trial, capture(vendor), sender)
    assert is_proven, told


@pytest.mark.parametrize("name", ISSUERS_UNKNOWN)
async def test_keys_are_not_fetched_from_an_address_that_is_a_guess(name: str) -> None:
    vendor = VENDORS[name]
    lines, is_proven = await try_candidates(build_try(), capture(vendor))
    assert not is_proven
    assert any("jwks_url is a guess" in line for line in lines)


async def test_an_issuer_that_does_not_answer_is_told() -> None:
    async def fail(proof: Proof, secrets: Secrets, request: SignedRequest) -> Secrets:
        raise Unavailable("issuer https://www.googleapis.com", "connection failed")

    trial = build_try(add_keys=fail)
    lines, is_proven = await try_candidates(trial, capture(VENDORS["Google Pub/Sub"]))
    assert not is_proven
    assert any("connection failed" in line for line in lines)


timed = [
    name
    for name, vendor in known.items()
    if vendor.has_time and vendor.scheme not in ("jwt", "certificate")
]


@pytest.mark.parametrize("name", timed)
async def test_a_stale_timestamp_is_told_with_the_time_at_which_it_would_hold(name: str) -> None:
    vendor = VENDORS[name]
    later = build_try(vendor.secret, NOW + timedelta(minutes=90))
    lines, is_proven = await try_candidates(later, capture(vendor))
    assert not is_proven
    hint = next(line for line in lines if "would hold" in line)
    assert "the timestamp is 90 minutes old; with --at 2026-01-01T00:00:00Z" in hint
    _, is_proven = await try_candidates(build_try(vendor.secret, NOW), capture(vendor))
    assert is_proven


async def test_a_stale_timestamp_under_a_wrong_secret_is_not_excused() -> None:
    vendor = VENDORS["Flexpa"]
    later = build_try(vendor.wrong_key, NOW + timedelta(minutes=90))
    lines, _ = await try_candidates(later, capture(vendor))
    assert not any("would hold" in line for line in lines)


async def test_what_is_signed_is_found_out_by_the_secret() -> None:
    signature = sign_hex(f"m-1.{SECONDS}.".encode() + BODY)
    headers = {
        "X-Acme-Signature": signature,
        "X-Acme-Timestamp": SECONDS,
        "X-Acme-Message-Id": "m-1",
    }
    lines, is_proven = await try_candidates(
        build_try(SECRET, name="acme"), capture_headers(headers)
    )
    assert is_proven
    assert '    signed = "{id}.{timestamp}.{body}"' in lines
    assert "repeats: known by the id that the proof covers" in lines
    assert not any("known by their bytes alone" in line for line in lines)
    assert (
        "varies from message to message: x-acme-signature, x-acme-timestamp, x-acme-message-id"
        in lines
    )


async def test_the_secret_is_asked_for_once_where_no_setting_holds_it() -> None:
    asked: list[str] = []

    def ask(name: str) -> str:
        asked.append(name)
        return SECRET

    trial = build_try(None, ask_secret=ask, name="acme")
    headers = {"X-Acme-Signature": sign_hex(BODY), "X-Acme-Token": "t" * 20}
    _, is_proven = await try_candidates(trial, capture_headers(headers))
    assert is_proven
    assert asked == ["ACME_SECRET"]
    asked.clear()
    silent = build_try(None, ask_secret=lambda name: asked.append(name), name="acme")
    lines, is_proven = await try_candidates(silent, capture_headers(headers))
    assert not is_proven
    assert asked == ["ACME_SECRET"]
    assert "note: set it in this environment, or name another one with --secret-setting" in lines


async def test_an_end_of_line_that_an_editor_added_is_found() -> None:
    captured = capture_headers({"X-Signature": sign_hex(BODY)}, BODY + b"\n")
    lines, is_proven = await try_candidates(build_try(SECRET), captured)
    assert is_proven
    assert any("which an editor has put there" in line for line in lines)


async def test_a_body_that_was_changed_is_known_by_its_length() -> None:
    headers = {"X-Signature": sign_hex(BODY), "Content-Length": str(len(BODY))}
    captured = capture_headers(headers, BODY.replace(b",", b", "))
    lines, is_proven = await try_candidates(build_try(SECRET), captured)
    assert not is_proven
    assert any(line.startswith("note: Content-Length says") for line in lines)


async def test_a_request_without_any_proof_is_told_what_to_ask_the_vendor_for() -> None:
    lines, is_proven = await try_candidates(build_try(SECRET), capture_headers({}))
    assert not is_proven
    assert lines[1].startswith("looks like: no scheme")
    basic = capture_headers({"Authorization": f"Basic {TOKEN}"})
    lines, _ = await try_candidates(build_try(SECRET), basic)
    assert any("Basic authentication is no scheme" in line for line in lines)


SENDER = """
[acme.proof]
scheme = "hmac"
header = "X-Acme-Signature"
secrets = ["ACME"]
[acme.rights]
types = ["Observation"]
"""


async def test_a_sender_of_the_file_is_told_the_exact_reason() -> None:
    (acme,) = parse_senders(SENDER, RESOURCE_TYPES).values()
    told = [
        (await try_sender(build_try(secret), capture_headers(headers), acme))[0]
        for secret, headers in (
            (SECRET, {"X-Other-Signature": sign_hex(BODY)}),
            (SECRET, {"X-Acme-Signature": sign_hex(b"other")}),
            ("short", {"X-Acme-Signature": sign_hex(BODY)}),
        )
    ]
    reasons = [next(line for line in lines if line.startswith("proof: ")) for lines in told]
    assert reasons == [
        "proof: NOT PROVEN: the header X-Acme-Signature is missing",
        "proof: NOT PROVEN: the signature of the header X-Acme-Signature does not fit the request",
        "proof: NOT PROVEN: the setting ACME has fewer than 16 bytes",
    ]


async def test_a_sender_of_the_file_is_told_which_rights_are_missing() -> None:
    (acme,) = parse_senders(SENDER, RESOURCE_TYPES).values()
    captured = capture_headers({"X-Acme-Signature": sign_hex(BODY)})
    lines, is_proven = await try_sender(build_try(SECRET), captured, acme)
    assert is_proven
    assert "content: FHIR: resource of 1 entry" in lines
    assert "content: rights that it needs: PUT of Patient; no reads" in lines
    assert any(line.startswith("content: rights that are missing: ") for line in lines)


async def test_a_signature_of_the_body_proves_no_delete() -> None:
    (acme,) = parse_senders(SENDER, RESOURCE_TYPES).values()
    captured = replace(
        capture_headers({"X-Acme-Signature": sign_hex(BODY)}),
        method="DELETE",
        target=f"{URL}/Patient/p-1",
    )
    lines, is_proven = await try_sender(build_try(SECRET), captured, acme)
    assert not is_proven
    assert any("only a POST to the base is taken" in line for line in lines)


async def test_a_thin_event_is_told_with_what_can_be_done() -> None:
    lines, _ = await try_candidates(
        build_try(VENDORS["Elation"].secret), capture(VENDORS["Elation"])
    )
    assert any(
        line.startswith("content: a JSON object without resourceType: the relay writes FHIR alone")
        for line in lines
    )


async def test_a_handshake_is_told_as_one() -> None:
    vendor = VENDORS["Metriport"]
    lines, _ = await try_candidates(build_try(vendor.secret), capture(vendor))
    assert lines[-1].startswith("content: a handshake of the dialect")


async def test_a_delete_of_medplum_asks_for_a_base() -> None:
    vendor = VENDORS["Medplum's delete"]
    lines, is_proven = await try_candidates(build_try(vendor.secret), capture(vendor))
    assert is_proven
    assert any("they need base" in line for line in lines)
    assert "content: rights that it needs: DELETE of Patient; no reads" in lines


async def test_a_method_that_no_table_takes_is_told() -> None:
    headers = {
        "Signature-Input": 'a=("@method" "@target-uri" "content-digest");created=1;alg="rsa-v1_5-sha256"',
        "Signature": "a=:AAAA:",
    }
    lines, is_proven = await try_candidates(build_try(SECRET), capture_headers(headers))
    assert not is_proven
    assert any("but not taken: " in line and "algorithm" in line for line in lines)


NAMES = [
    *("signature", "signature-input", "x-acme-signature", "x-hub-signature", "x-acme-timestamp"),
    *("authorization", "x-acme-token", "verification-token", "client-cert", "x-arr-clientcert"),
    *("x-ms-client-principal", "webhook-signature", "webhook-id", "x-medplum-deleted-resource"),
    *("aeg-event-type", "content-type", "content-encoding", "content-length", "x-functions-key"),
]
TEXTS = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        [
            *(sign_hex(BODY), f"sha256={sign_hex(BODY)}", f"t={SECONDS},v1={sign_hex(BODY)}"),
            *(SECONDS, f"Bearer {TOKEN}", 'a=("@method" "x\x7f" "@x");alg="ed25519"', "a=:AAAA:"),
            *("application/json", "gzip", "Patient/p-1", "e30=", "application/fhir+ndjson"),
            "Bearer e30.eyJpc3MiOiJhXHUwMDdmIiwiYXVkIjpbMV19.AA",
            "Bearer eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2EiLCJhdWQiOlsiXHVkODAwIl19.AA",
        ]
    ),
)
BODIES = st.one_of(
    st.binary(max_size=80),
    st.sampled_from([BODY, b"{}", b"[]", b'{"message":{"data":"","messageId":1}}', b"\x1f\x8b"]),
)


@given(
    st.dictionaries(st.sampled_from(NAMES), TEXTS, max_size=5),
    BODIES,
    st.sampled_from(["POST", "GET", "DELETE", "OPTIONS"]),
)
def test_whatever_is_tried_is_proven_or_told_why_not(
    headers: dict[str, str], body: bytes, method: str
) -> None:
    captured = CapturedRequest(method=method, target=None, headers=headers, body=body)
    lines, _ = asyncio.run(try_candidates(build_try(SECRET), captured))
    assert any(line.startswith(("looks like: ", "proof: ")) for line in lines)
