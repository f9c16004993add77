"""The scheme `jwt`: which tokens of an issuer are taken."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from fuzz.proof_seeds import (
    ISSUER,
    NOW,
    SECONDS,
    build_claims,
    build_ec_key,
    build_jwks,
    build_request,
    build_rsa_key,
    sign_token,
)
from integration.senders.proofs.json_web_token import read_key_id
from integration.senders.proofs.proof import Proven, Secrets, SignedRequest, Unproven
from tests.senders.proofs.proving import check, prove, read_table, refuse

AUDIENCE = "https://relay.example"
TABLE: dict[str, Any] = {
    "issuer": ISSUER,
    "jwks_url": f"{ISSUER}/keys",
    "audiences": [AUDIENCE],
}
MOMENT = int(SECONDS)


def build_bearer(token: str) -> SignedRequest:
    """A request with this token."""
    return build_request({"Authorization": f"Bearer {token}"})


def take(token: str, now: datetime = NOW, **changes: Any) -> Proven:
    """What the proof says of a token."""
    return prove("jwt", {**TABLE, **changes}, Secrets(jwks=build_jwks()), build_bearer(token), now)


def turn_away(token: str, now: datetime = NOW, **changes: Any) -> str:
    """Why a token is not taken."""
    return refuse("jwt", {**TABLE, **changes}, Secrets(jwks=build_jwks()), build_bearer(token), now)


def encode_part(part: Any) -> str:
    """A part of a token."""
    text = part if isinstance(part, bytes) else msgspec.json.encode(part)
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "ES384"])
def test_a_token_says_who_and_is_taken_once(algorithm: str) -> None:
    found = take(sign_token(build_claims(), algorithm))
    assert found.principal == "client-1"
    assert found.once is not None
    # As long as the token could be taken, with the leeway of the clocks.
    assert found.once.until == datetime.fromtimestamp(MOMENT + 330, UTC)
    again = take(sign_token(build_claims(), algorithm))
    assert again.once == found.once
    other = take(sign_token(build_claims(jti="j-2"), algorithm))
    assert other.once is not None
    assert other.once.id != found.once.id


def test_a_used_token_of_one_issuer_does_not_use_up_that_of_another() -> None:
    here = take(sign_token(build_claims()))
    there = take(
        sign_token(build_claims(iss="https://other.example")), issuer="https://other.example"
    )
    assert here.once is not None
    assert there.once is not None
    assert here.once.id != there.once.id


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "ES384"])
def test_an_algorithm_that_the_table_does_not_name_is_refused(algorithm: str) -> None:
    others = [name for name in ("RS256", "RS384", "ES384") if name != algorithm]
    assert "algorithm" in turn_away(sign_token(build_claims(), algorithm), algorithms=others)


@pytest.mark.parametrize(
    "algorithm", ["none", "HS256", "HS384", "RS512", "PS256", "ES256", "EdDSA"]
)
def test_no_table_can_name_another_algorithm(algorithm: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="algorithms"):
        read_table("jwt", {**TABLE, "algorithms": [algorithm]})


def test_a_token_without_signature_or_with_a_shared_key_is_refused() -> None:
    claims = encode_part(build_claims())
    for algorithm in ("none", "None", "NONE"):
        header = encode_part({"alg": algorithm, "kid": "rsa-1"})
        assert "algorithm" in turn_away(f"{header}.{claims}.")
    # The public key as the secret of an HMAC.
    pem = build_rsa_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    text = f"{encode_part({'alg': 'HS256', 'kid': 'rsa-1'})}.{claims}"
    signature = hmac.digest(pem, text.encode(), hashlib.sha256)
    assert "algorithm" in turn_away(f"{text}.{encode_part(signature)}")


def test_a_key_of_another_kind_or_algorithm_is_refused() -> None:
    token = sign_token(build_claims(), "RS256", "ec-1")
    assert "not signed" in turn_away(token)
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - it must be refused
    p256 = ec.derive_private_key(12345, ec.SECP256R1())
    keys: list[Mapping[str, Any]] = [
        {**build_jwks()["rsa-1"], "alg": "RS384"},
        RSAAlgorithm.to_jwk(short.public_key(), as_dict=True),
        ECAlgorithm.to_jwk(p256.public_key(), as_dict=True),
        ECAlgorithm.to_jwk(build_ec_key(8).public_key(), as_dict=True),
        {"kty": "RSA", "n": "AA", "e": "AQAB"},
        {"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"},
        {"kty": "RSA"},
        {},
    ]
    for key in keys:
        for algorithm in ("RS256", "ES384"):
            secrets = Secrets(jwks={"k": key})
            request = build_bearer(sign_token(build_claims(), algorithm, "k"))
            assert "not signed" in refuse("jwt", TABLE, secrets, request)


def test_a_short_key_is_refused_although_it_has_signed() -> None:
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - it must be refused
    with pytest.warns(jwt.warnings.InsecureKeyLengthWarning):
        token = jwt.encode(build_claims(), short, algorithm="RS256", headers={"kid": "k"})
    jwks = {"k": RSAAlgorithm.to_jwk(short.public_key(), as_dict=True)}
    assert "not signed" in refuse("jwt", TABLE, Secrets(jwks=jwks), build_bearer(token))


def test_es384_takes_no_key_of_another_curve_although_it_has_signed() -> None:
    key = ec.derive_private_key(12345, ec.SECP256R1())
    text = encode_part({"alg": "ES384", "kid": "k"}) + "." + encode_part(build_claims())
    signature = ECAlgorithm(ECAlgorithm.SHA384).sign(text.encode(), key)
    jwks = {"k": ECAlgorithm.to_jwk(key.public_key(), as_dict=True)}
    request = build_bearer(f"{text}.{encode_part(signature)}")
    assert "not signed" in refuse("jwt", TABLE, Secrets(jwks=jwks), request)


def test_a_key_that_the_issuer_has_not_published_is_refused() -> None:
    assert "published no key" in turn_away(sign_token(build_claims(), kid="other"))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"iss": f"{ISSUER}/"}, "another issuer"),
        ({"iss": [ISSUER]}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"aud": f"{AUDIENCE}/"}, "another audience"),
        ({"aud": []}, "another audience"),
        ({"aud": None}, "no audience"),
        ({"aud": {AUDIENCE: 1}}, "no audience"),
        ({"aud": [[AUDIENCE]]}, "another audience"),
        ({"aud": ["x"] * 16 + [AUDIENCE]}, "no audience"),
        ({"exp": MOMENT - 30}, "expired"),
        ({"exp": MOMENT + 3631}, "too far ahead"),
        ({"exp": None}, "exp"),
        ({"exp": str(MOMENT + 60)}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": -1}, "exp"),
        ({"exp": 1e300}, "exp"),
        ({"exp": MOMENT + 60.5}, "exp"),
        ({"nbf": MOMENT + 31}, "nbf"),
        ({"nbf": "now"}, "nbf"),
        ({"iat": MOMENT + 31}, "iat"),
        ({"iat": None}, "iat"),
        ({"jti": None}, "jti"),
        ({"jti": ""}, "jti"),
        ({"jti": 7}, "jti"),
        ({"jti": "j" * 257}, "jti"),
    ],
)
def test_a_token_with_another_claim_is_refused(changes: dict[str, Any], why: str) -> None:
    # PyJWT would not write some of these.
    text = encode_part({"alg": "ES384", "kid": "ec-1"}) + "." + encode_part(build_claims(**changes))
    algorithm = ECAlgorithm(ECAlgorithm.SHA384)
    signature = algorithm.sign(text.encode(), build_ec_key())
    assert why in turn_away(f"{text}.{encode_part(signature)}")


def test_claims_that_are_no_object_are_refused() -> None:
    algorithm = ECAlgorithm(ECAlgorithm.SHA384)
    for claims in (b"", b"[]", b"null", b"[" * 3000, b'{"iss":"\xff"}', b"{}"):
        text = encode_part({"alg": "ES384", "kid": "ec-1"}) + "." + encode_part(claims)
        turn_away(f"{text}.{encode_part(algorithm.sign(text.encode(), build_ec_key()))}")


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": [AUDIENCE, "other"]},
        {"exp": MOMENT - 29},
        {"exp": MOMENT + 3630},
        {"exp": float(MOMENT + 60)},
        {"iat": MOMENT + 30},
        {"nbf": MOMENT + 30},
    ],
)
def test_a_claim_within_its_bounds_is_taken(changes: dict[str, Any]) -> None:
    take(sign_token(build_claims(**changes)))


def test_who_has_no_name_is_proven_without_one() -> None:
    claims = build_claims()
    del claims["sub"]
    assert take(sign_token(claims)).principal is None


def test_an_access_token_is_taken_again_where_the_table_says_so() -> None:
    claims = build_claims()
    del claims["jti"]
    token = sign_token(claims)
    assert take(token, jti="reused").once is None
    assert "jti" in turn_away(token)


def test_the_relays_clock_counts_and_no_other() -> None:
    token = sign_token(build_claims())
    assert "expired" in turn_away(token, NOW + timedelta(seconds=330))
    take(token, NOW + timedelta(seconds=329))
    ahead = turn_away(token, NOW - timedelta(seconds=31))
    assert "ahead" in ahead
    # Long ago by the machine's own clock, and in time by the one that is given.
    old = build_claims(iat=MOMENT - 10**8, exp=MOMENT - 10**8 + 60)
    take(sign_token(old), NOW - timedelta(seconds=10**8))


@pytest.mark.parametrize(
    ("claims", "is_taken"),
    [
        ({"email": "push@example.org", "email_verified": True}, True),
        ({"email": "push@example.org", "email_verified": False}, False),
        ({"email": "push@example.org", "email_verified": 1}, False),
        ({"email": "push@example.org", "email_verified": "true"}, False),
        ({"email": "other@example.org", "email_verified": True}, False),
        ({"email": "push@example.org"}, False),
        ({"email": ["push@example.org"], "email_verified": True}, False),
        ({}, False),
    ],
)
def test_claims_that_the_table_names_must_be_there_and_equal(
    claims: dict[str, Any], is_taken: bool
) -> None:
    wanted = {"email": "push@example.org", "email_verified": True}
    token = sign_token(build_claims(**claims))
    if is_taken:
        take(token, claims=wanted)
    else:
        assert "claim email" in turn_away(token, claims=wanted)


@pytest.mark.parametrize(
    "token",
    [
        "a.b.c",
        "..",
        "a",
        encode_part(b"[" * 4000) + ".e30.AAAA",
        encode_part({"alg": "ES384"}) + ".e30.AAAA",
        encode_part({"alg": "ES384", "kid": 1}) + ".e30.AAAA",
        encode_part({"alg": "ES384", "kid": ""}) + ".e30.AAAA",
        encode_part({"alg": ["ES384"], "kid": "ec-1"}) + ".e30.AAAA",
        encode_part({"alg": "ES384", "kid": "k" * 257}) + ".e30.AAAA",
        encode_part({"alg": "ES384", "kid": "ec-1", "crit": ["x"]}) + ".e30.AAAA",
        encode_part({"alg": "ES384", "kid": "ec-1", "b64": False, "crit": ["b64"]}) + "..AAAA",
        encode_part([]) + ".e30.AAAA",
    ],
)
def test_what_is_no_token_is_refused(token: str) -> None:
    turn_away(token)


def test_keys_that_the_token_brings_itself_are_not_taken() -> None:
    own = build_ec_key(11)
    headers = {
        "kid": "ec-1",
        "jwk": ECAlgorithm.to_jwk(own.public_key(), as_dict=True),
        "jku": "https://attacker.example/keys",
    }
    token = jwt.encode(build_claims(), own, algorithm="ES384", headers=headers)
    assert "not signed" in turn_away(token)


def test_the_key_is_named_before_it_is_fetched() -> None:
    assert read_key_id(build_bearer(sign_token(build_claims()))) == "ec-1"
    for request in (build_request({}), build_bearer("a.b.c")):
        with pytest.raises(Unproven):
            read_key_id(request)


@pytest.mark.parametrize(
    "url",
    ["https://a.example/keys", "http://localhost:8080/k", "http://127.0.0.1/k", "http://[::1]/k"],
)
def test_keys_are_fetched_over_https_or_from_this_machine(url: str) -> None:
    assert check("jwt", {**TABLE, "jwks_url": url}, Secrets()) == []


@pytest.mark.parametrize(
    "url",
    ["http://a.example/keys", "ftp://a.example", "https://", "/keys", "", "http://localhost.a.example",
     "http://[::1", "file:///keys"],
)  # fmt: skip
def test_keys_are_not_fetched_from_anywhere_else(url: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        read_table("jwt", {**TABLE, "jwks_url": url})


@pytest.mark.parametrize(
    "changes", [{"audiences": []}, {"issuer": ""}, {"max_age": 0}, {"leeway": 301}, {"jti": "no"}]
)
def test_a_table_that_would_take_too_much_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        read_table("jwt", {**TABLE, **changes})
