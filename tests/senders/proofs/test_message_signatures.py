"""The scheme `http-message-signatures`: what a signature of RFC 9421 must cover, and when."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from http_message_signatures import algorithms

from fuzz.proof_seeds import (
    BODY,
    ED25519,
    ED25519_PUBLIC,
    NOW,
    OLD_SECRET,
    SECRET,
    URL,
    build_request,
    build_rsa_key,
    sign_message,
)
from tests.senders.proofs.proving import check, prove, read_table, refuse, set_header

SCHEME = "http-message-signatures"
TABLE: dict[str, Any] = {"secrets": ["A"], "algorithm": "hmac-sha256", "key_format": "text"}
PLAIN = build_request({"Content-Type": "application/fhir+json"})
COVERED = ("@method", "@target-uri", "content-digest")


def write_pem(key: Any) -> str:
    """Its public key."""
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode().strip()


@pytest.mark.parametrize("left_out", COVERED)
def test_what_the_table_names_must_be_covered(left_out: str) -> None:
    covered = tuple(name for name in COVERED if name != left_out)
    request = sign_message(PLAIN, covered=covered)
    assert "cover" in refuse(SCHEME, TABLE, [SECRET], _add_digest(request))
    if left_out != "content-digest":
        prove(SCHEME, {**TABLE, "components": covered}, [SECRET], request)


def _add_digest(request: Any) -> Any:
    digest = base64.b64encode(hashlib.sha256(request.body).digest()).decode()
    return set_header(request, "Content-Digest", f"sha-256=:{digest}:")


def test_a_body_needs_a_digest_whatever_the_table_names() -> None:
    request = _add_digest(sign_message(PLAIN, covered=("@method",)))
    table = {**TABLE, "components": ["@method"]}
    refuse(SCHEME, table, [SECRET], request)
    refuse(SCHEME, table, [SECRET], set_header(request, "Content-Digest", None))


def test_an_empty_body_needs_no_digest() -> None:
    empty = replace(PLAIN, body=b"", method="DELETE")
    request = sign_message(empty, covered=("@method", "@target-uri"))
    prove(SCHEME, TABLE, [SECRET], request)
    # A body that was put in later.
    refuse(SCHEME, TABLE, [SECRET], replace(request, body=BODY))
    refuse(SCHEME, TABLE, [SECRET], _add_digest(replace(request, body=BODY)))


def test_the_digest_is_made_anew_of_the_body() -> None:
    request = sign_message(PLAIN)
    prove(SCHEME, TABLE, [SECRET], request)
    for body in (BODY + b" ", b"", BODY[:-1]):
        refuse(SCHEME, TABLE, [SECRET], replace(request, body=body))
        refuse(SCHEME, TABLE, [SECRET], _add_digest(replace(request, body=body)))


def test_a_digest_of_sha_512_is_taken_and_one_of_another_hash_is_not() -> None:
    for name, digest, is_taken in (
        ("sha-512", hashlib.sha512(BODY).digest(), True),
        ("md5", hashlib.md5(BODY, usedforsecurity=False).digest(), False),
        ("sha-256", hashlib.sha512(BODY).digest(), False),
    ):
        value = f"{name}=:{base64.b64encode(digest).decode()}:"
        covered = ("@method", "@target-uri", "x-digest")
        signed = sign_message(set_header(PLAIN, "X-Digest", value), covered=covered)
        # The library signs only digests that it knows, so this one is signed under another name.
        text = signed.headers["signature-input"].replace("x-digest", "content-digest")
        request = _sign_again(set_header(signed, "Content-Digest", value), text)
        if is_taken:
            prove(SCHEME, TABLE, [SECRET], request)
        else:
            refuse(SCHEME, TABLE, [SECRET], request)


def _sign_again(request: Any, signature_input: str) -> Any:
    """The request with the signature of a base that is written here."""
    import hmac

    value = signature_input.removeprefix("sig1=")
    base = "\n".join(
        [
            f'"@method": {request.method}',
            f'"@target-uri": {request.url}',
            f'"content-digest": {request.headers["content-digest"]}',
            f'"@signature-params": {value}',
        ]
    )
    digest = base64.b64encode(hmac.digest(SECRET.encode(), base.encode(), "sha256")).decode()
    changed = set_header(request, "Signature-Input", signature_input)
    return set_header(changed, "Signature", f"sig1=:{digest}:")


def test_the_relays_clock_counts_and_no_other() -> None:
    request = sign_message(PLAIN)
    for seconds in (-30, 0, 330):
        prove(SCHEME, TABLE, [SECRET], request, NOW + timedelta(seconds=seconds))
    assert "ahead" in refuse(SCHEME, TABLE, [SECRET], request, NOW - timedelta(seconds=31))
    assert "too old" in refuse(SCHEME, TABLE, [SECRET], request, NOW + timedelta(seconds=331))
    short = {**TABLE, "max_age": 10, "leeway": 0}
    prove(SCHEME, short, [SECRET], request, NOW + timedelta(seconds=10))
    refuse(SCHEME, short, [SECRET], request, NOW + timedelta(seconds=11))


def test_a_signature_that_has_expired_is_refused() -> None:
    request = sign_message(PLAIN, expires=NOW + timedelta(seconds=60))
    prove(SCHEME, TABLE, [SECRET], request, NOW + timedelta(seconds=90))
    assert "expired" in refuse(SCHEME, TABLE, [SECRET], request, NOW + timedelta(seconds=91))


@pytest.mark.parametrize("created", ["", ";created=1.5", ';created="1767225600"', ";created"])
def test_a_signature_without_the_time_of_its_making_is_refused(created: str) -> None:
    value = f'sig1=("@method" "@target-uri" "content-digest"){created};keyid="k"'
    refuse(SCHEME, TABLE, [SECRET], _sign_again(sign_message(PLAIN), value))
    good = value.replace(f"){created};", ");created=1767225600;")
    prove(SCHEME, TABLE, [SECRET], _sign_again(sign_message(PLAIN), good))


def test_a_signature_that_names_another_algorithm_is_refused() -> None:
    value = (
        'sig1=("@method" "@target-uri" "content-digest");created=1767225600;keyid="k";alg="ed25519"'
    )
    refuse(SCHEME, TABLE, [SECRET], _sign_again(sign_message(PLAIN), value))


def test_the_id_of_the_key_may_be_fixed() -> None:
    request = sign_message(PLAIN)
    prove(SCHEME, {**TABLE, "key_id": "relay-test"}, [SECRET], request)
    refuse(SCHEME, {**TABLE, "key_id": "other"}, [SECRET], request)


def test_of_several_signatures_a_tag_chooses() -> None:
    first = sign_message(PLAIN, tag="relay")
    second = sign_message(PLAIN, tag="other", key=OLD_SECRET.encode())
    both = first
    for name in ("signature", "signature-input"):
        other = second.headers[name].replace("sig1=", "sig2=")
        both = set_header(both, name, f"{first.headers[name]}, {other}")
    refuse(SCHEME, TABLE, [SECRET], both)
    prove(SCHEME, {**TABLE, "tag": "relay"}, [SECRET], both)
    refuse(SCHEME, {**TABLE, "tag": "other"}, [SECRET], both)
    refuse(SCHEME, {**TABLE, "tag": "relay"}, [SECRET], second)


@pytest.mark.parametrize(
    "url",
    [f"{URL}#x", "https://user@relay.example/api/fhir", "https://relay.example:443/api/fhir",
     "http://relay.example/api/fhir", f"{URL}?", "", "/api/fhir"],
)  # fmt: skip
def test_the_address_is_compared_as_it_was_signed(url: str) -> None:
    refuse(SCHEME, TABLE, [SECRET], replace(sign_message(PLAIN), url=url))


def test_an_at_sign_may_stand_in_the_query() -> None:
    request = replace(PLAIN, url=f"{URL}?mail=a@example.org")
    prove(SCHEME, TABLE, [SECRET], sign_message(request))


@pytest.mark.parametrize("end", ["\r\n ", "\r\n\t", "\n", "\r", "\x00", "\x0b", "\u00a0"])
def test_a_covered_header_is_compared_as_it_came_and_not_unfolded(end: str) -> None:
    request = sign_message(PLAIN)
    value = request.headers["content-type"]
    for changed in (value + end, value[:11] + end + value[11:]):
        refuse(SCHEME, TABLE, [SECRET], set_header(request, "Content-Type", changed))


def test_headers_together_are_bounded() -> None:
    request = sign_message(PLAIN)
    many = {f"x-{number}": "x" * 8000 for number in range(9)}
    assert "characters" in refuse(
        SCHEME, TABLE, [SECRET], replace(request, headers={**request.headers, **many})
    )


P256 = ec.derive_private_key(7**50, ec.SECP256R1())
P384 = ec.derive_private_key(7**50, ec.SECP384R1())
PEMS = [
    ("ed25519", algorithms.ED25519, ED25519),
    ("rsa-pss-sha512", algorithms.RSA_PSS_SHA512, build_rsa_key()),
    ("ecdsa-p256-sha256", algorithms.ECDSA_P256_SHA256, P256),
]


@pytest.mark.parametrize(("name", "algorithm", "key"), PEMS, ids=[name for name, _, _ in PEMS])
def test_a_public_key_may_stand_as_pem_in_one_line(name: str, algorithm: Any, key: Any) -> None:
    table = {**TABLE, "algorithm": name, "key_format": "pem"}
    request = sign_message(PLAIN, algorithm=algorithm, key=key)
    for value in (write_pem(key), write_pem(key).replace("\n", "\\n")):
        prove(SCHEME, table, [value], request)
    for _, _, other in PEMS:
        if other is not key:
            assert "does not hold a key for" in check(SCHEME, table, [write_pem(other)])[0]
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode().strip()
    assert "private key" in check(SCHEME, table, [private])[0]
    assert "PEM" in check(SCHEME, table, ["-----BEGIN PUBLIC KEY-----"])[0]


def test_a_key_of_another_curve_or_too_short_is_refused() -> None:
    table = {**TABLE, "algorithm": "ecdsa-p256-sha256", "key_format": "pem"}
    assert "does not hold a key for" in check(SCHEME, table, [write_pem(P384)])[0]
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505
    table = {**TABLE, "algorithm": "rsa-pss-sha512", "key_format": "pem"}
    assert "2048 bits" in check(SCHEME, table, [write_pem(short)])[0]


@pytest.mark.parametrize(
    ("key_format", "value"),
    [("base64", ED25519_PUBLIC), ("hex", base64.b64decode(ED25519_PUBLIC).hex())],
)
def test_a_key_of_ed25519_may_stand_as_its_bytes(key_format: str, value: str) -> None:
    table = {**TABLE, "algorithm": "ed25519", "key_format": key_format}
    request = sign_message(PLAIN, algorithm=algorithms.ED25519, key=ED25519)
    prove(SCHEME, table, [value], request)
    for wrong in (value[:-4], "#", "A" * 43 + "=", "00" * 32):
        assert len(check(SCHEME, table, [wrong])) == 1
        refuse(SCHEME, table, [wrong], request)


@pytest.mark.parametrize(
    ("key_format", "value"),
    [("hex", SECRET.encode().hex()), ("base64", base64.b64encode(SECRET.encode()).decode())],
)
def test_a_shared_key_may_be_written_in_hex_or_base64(key_format: str, value: str) -> None:
    prove(SCHEME, {**TABLE, "key_format": key_format}, [value], sign_message(PLAIN))


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": "rsa-v1_5-sha256"},
        {"algorithm": None},
        {"key_format": "pem"},
        {"algorithm": "ed25519", "key_format": "text"},
        {"algorithm": "rsa-pss-sha512", "key_format": "base64"},
        {"components": []},
        {"components": ["@Method"]},
        {"components": ["@status"]},
        {"components": ['"@query-param";name="a"']},
        {"components": [""]},
        {"max_age": 3601},
    ],
)
def test_a_table_whose_keys_do_not_fit_each_other_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        read_table(SCHEME, {**TABLE, **changes})
