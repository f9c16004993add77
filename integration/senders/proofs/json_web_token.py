"""The scheme `jwt`: a signed token of an issuer that is trusted, as bearer. Pure.

https://www.rfc-editor.org/rfc/rfc7519, and https://www.rfc-editor.org/rfc/rfc8725 on what to check.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from integration.senders.proofs.jwk_set import MAX_ID
from integration.senders.proofs.proof import Once, Proof, Proven, Secrets, SignedRequest, Unproven
from integration.senders.proofs.reading import read_bearer, refuse_secrets

Algorithm = Literal["RS256", "RS384", "ES384"]
Text = Annotated[str, Meta(min_length=1)]

_KEY_TYPES = {"RS256": "RSA", "RS384": "RSA", "ES384": "EC"}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MIN_RSA_BITS = 2048
_MAX_RSA_BITS = 8192
_MAX_AUDIENCES = 16

# Issuers from whom each of very many has a token for an audience of its own choice:
# https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions
# https://learn.microsoft.com/entra/identity-platform/access-tokens
_OPEN_ISSUERS = (
    "https://accounts.google.com",
    "accounts.google.com",
    "https://login.microsoftonline.com/",
    "https://sts.windows.net/",
)
# 9999-12-31: what is later is no date.
_MAX_SECONDS = 253_402_300_799


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonWebToken(Proof):
    """`Authorization: Bearer` with a token that an issuer has signed: of SMART Backend Services, of
    Entra, of Google Pub/Sub. The relay fetches the issuer's public keys; no secret is kept. The
    token covers nothing of the request."""

    issuer: Text
    """The claim `iss`, exactly."""

    jwks_url: Text
    """Where the issuer publishes its keys: https, or http at this machine."""

    audiences: Annotated[tuple[Text, ...], Meta(min_length=1)]
    """The claim `aud` must be one of these, or hold one of them."""

    algorithms: Annotated[tuple[Algorithm, ...], Meta(min_length=1)] = ("RS384", "ES384", "RS256")
    """How the token may be signed."""

    max_age: Annotated[int, Meta(ge=60, le=86_400)] = 3600
    """Seconds that the claim `exp` may lie ahead at most."""

    leeway: Annotated[int, Meta(ge=0, le=300)] = 30
    """Seconds by which the clocks of the issuer and the relay may differ."""

    claims: Mapping[str, str | bool | int] = field(default_factory=dict)
    """Claims that the token must have, with exactly these values: for Google Pub/Sub
    `{email = "push@project.iam.gserviceaccount.com", email_verified = true}`."""

    jti: Literal["once", "reused"] = "once"
    """`once`: the token must have the claim `jti`, and is taken a single time, as SMART wants it.
    `reused`: access tokens, which their holders use until they end."""

    def __post_init__(self) -> None:
        refuse_secrets(self)
        parts = urlsplit(self.jwks_url)
        is_local = parts.scheme == "http" and parts.hostname in _LOOPBACK
        if not (parts.scheme == "https" and parts.hostname) and not is_local:
            raise ValueError("jwks_url: it must be https, or http at localhost")
        if self.issuer.startswith(_OPEN_ISSUERS) and not self.claims:
            raise ValueError(
                "claims: name whose token it must be, since many have one of this issuer"
            )


@dataclass(frozen=True, slots=True)
class _Header:
    alg: str
    kid: str


def verify(proof: JsonWebToken, secrets: Secrets, request: SignedRequest, now: datetime) -> Proven:
    """Return the claim `sub`, and what is to be used once. Raises Unproven."""
    token = read_bearer(request)
    header = _read_token_header(token)
    if header.alg not in proof.algorithms:
        raise Unproven("the token is signed by an algorithm that is not taken")
    key = secrets.jwks.get(header.kid)
    if key is None:
        raise Unproven("the issuer has published no key of the id that the token names")
    claims = _verify_signature(token, header.alg, key)
    until = _check_claims(proof, claims, now.timestamp())
    return Proven(principal=_read_subject(claims), once=_build_once(proof, claims, until))


def check_secrets(proof: JsonWebToken, secrets: Secrets) -> list[str]:
    """Return nothing: there are no secrets."""
    return []


def may_prove_both(first: JsonWebToken, second: JsonWebToken) -> bool:
    """Whether one token may fit both tables: nothing tells their senders apart."""
    if first.issuer != second.issuer or not set(first.audiences) & set(second.audiences):
        return False
    shared = first.claims.keys() & second.claims.keys()
    return all(first.claims[name] == second.claims[name] for name in shared)


def read_key_id(request: SignedRequest) -> str:
    """Return the id of the key with which the token says it is signed, for who fetches keys.

    Nothing of it is proven. Raises Unproven if there is no token, or none that names a key.
    """
    return _read_token_header(read_bearer(request)).kid


def _read_token_header(token: str) -> _Header:
    import jwt

    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise Unproven("the bearer is not a JSON Web Token") from None
    alg, kid = header.get("alg"), header.get("kid")
    if not isinstance(alg, str) or not isinstance(kid, str) or not 0 < len(kid) <= MAX_ID:
        raise Unproven("the token does not name its algorithm and its key (alg, kid)")
    return _Header(alg, kid)


def _verify_signature(token: str, algorithm: str, key: Mapping[str, str]) -> dict[str, Any]:
    """Return the claims of a token that is signed with this key."""
    import jwt

    try:
        public = _load_key(key, algorithm)
        payload = jwt.PyJWS().decode_complete(token, public, algorithms=[algorithm])["payload"]
    except (jwt.PyJWTError, ValueError, TypeError, NotImplementedError):
        raise Unproven("the token is not signed with the key that it names") from None
    try:
        return msgspec.json.decode(payload, type=dict[str, Any])
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise Unproven("the token's claims are not a JSON object") from None


def _load_key(key: Mapping[str, str], algorithm: str) -> Any:
    """Return a public key that fits the algorithm. Raises ValueError, or an error of PyJWT."""
    from jwt.algorithms import ECAlgorithm, RSAAlgorithm

    if key.get("kty") != _KEY_TYPES[algorithm] or key.get("alg", algorithm) != algorithm:
        raise ValueError("the key is for another algorithm")
    if algorithm == "ES384":
        if key.get("crv") != "P-384":
            raise ValueError("the key is of another curve")
        return ECAlgorithm.from_jwk(dict(key))
    public: Any = RSAAlgorithm.from_jwk(dict(key))
    if not _MIN_RSA_BITS <= public.key_size <= _MAX_RSA_BITS:
        raise ValueError("the key is too short, or too long")
    return public


def _check_claims(proof: JsonWebToken, claims: Mapping[str, Any], now: float) -> int:
    """Return when the token is no longer taken, in seconds since 1970. Raises Unproven."""
    if claims.get("iss") != proof.issuer:
        raise Unproven("the token is of another issuer")
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or len(audiences) > _MAX_AUDIENCES:
        raise Unproven("the token names no audience")
    if not any(wanted in audiences for wanted in proof.audiences):
        raise Unproven("the token is for another audience")
    until = _read_seconds(claims, "exp") + proof.leeway
    if until <= now:
        raise Unproven("the token has expired")
    if until > now + proof.max_age + 2 * proof.leeway:
        raise Unproven("the token's claim exp lies too far ahead")
    for name in ("nbf", "iat"):
        if name in claims and _read_seconds(claims, name) > now + proof.leeway:
            raise Unproven(f"the token's claim {name} lies ahead")
    for name, wanted in proof.claims.items():
        # A claim of 1 is not one of true.
        if type(claims.get(name)) is not type(wanted) or claims[name] != wanted:
            raise Unproven(f"the token's claim {name} is missing or another")
    return until


def _read_seconds(claims: Mapping[str, Any], name: str) -> int:
    value = claims.get(name)
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= _MAX_SECONDS:
        raise Unproven(f"the token's claim {name} is missing or no time")
    return value


def _read_subject(claims: Mapping[str, Any]) -> str | None:
    subject = claims.get("sub")
    return subject if isinstance(subject, str) and 0 < len(subject) <= MAX_ID else None


def _build_once(proof: JsonWebToken, claims: Mapping[str, Any], until: int) -> Once | None:
    """Return what is remembered of a token: until it is no longer taken, which is after `exp`."""
    if proof.jti == "reused":
        return None
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= MAX_ID:
        raise Unproven("the token's claim jti is missing, longer than 256 characters, or no text")
    text = msgspec.json.encode([proof.issuer, jti])
    ends = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=until)
    return Once(id=hashlib.sha256(text).hexdigest(), until=ends)
