"""The scheme `http-message-signatures`: RFC 9421, with the digest of RFC 9530. Pure.

https://www.rfc-editor.org/rfc/rfc9421, https://www.rfc-editor.org/rfc/rfc9530. Not Healthie, whose
headers look alike: that is a case of `hmac`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta

from integration.senders.proofs.ed25519_keys import parse_public_key
from integration.senders.proofs.proof import Proof, Proven, Secrets, SignedRequest, Unproven
from integration.senders.proofs.reading import (
    Tolerance,
    get_keys,
    parse_encoded_secret,
    parse_keys,
    parse_secret_text,
    read_header,
    require_secrets,
)

# A covered header may be any; all of a request together are bounded, too.
_MAX_HEADERS = 65_536
_MAX_PRINCIPAL = 256
_DIGEST = "content-digest"

_FORMATS = {
    "hmac-sha256": ("text", "base64", "hex"),
    "ed25519": ("pem", "base64", "hex"),
    "rsa-pss-sha512": ("pem",),
    "ecdsa-p256-sha256": ("pem",),
}
_MIN_RSA_BITS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageSignatures(Proof):
    """The headers Signature-Input, Signature and Content-Digest of RFC 9421 and 9530. The table
    fixes the algorithm, the age and what must be covered; the digest is made anew of the body.
    Exactly one signature is taken, unless `tag` chooses."""

    algorithm: Literal["hmac-sha256", "ed25519", "rsa-pss-sha512", "ecdsa-p256-sha256"]
    """The algorithm. A signature that names another is refused."""

    key_format: Literal["text", "base64", "hex", "pem"]
    """How the settings hold the key. For hmac-sha256 `text`, `base64` or `hex` of at least 16
    bytes; for ed25519 `pem`, or `base64` or `hex` of the 32 bytes; for the others `pem`: a public
    key, whose lines may be parted by `\\n` in two characters."""

    max_age: Tolerance = 300
    """Seconds since the time `created`, which a signature must have."""

    leeway: Annotated[int, Meta(ge=0, le=300)] = 30
    """Seconds by which the clocks of the sender and the relay may differ."""

    components: Annotated[tuple[str, ...], Meta(min_length=1)] = (
        "@method",
        "@target-uri",
        "content-digest",
    )
    """What must be covered, as RFC 9421 names it. `content-digest` is always needed where there is
    a body."""

    tag: str | None = None
    """The signature's parameter `tag`, if there are several signatures."""

    key_id: str | None = None
    """The signature's parameter `keyid`, exactly. None: any, since the table fixes the key."""

    def __post_init__(self) -> None:
        require_secrets(self)
        if self.key_format not in _FORMATS[self.algorithm]:
            formats = ", ".join(_FORMATS[self.algorithm])
            raise ValueError(f"key_format: {self.algorithm} takes {formats}")
        if any(not name or name != name.lower() or '"' in name for name in self.components):
            raise ValueError("components: they are lower-case names without parameters")
        if any(
            name.startswith("@") and name not in _DERIVED_COMPONENTS for name in self.components
        ):
            raise ValueError(f"components: of @ there are {', '.join(_DERIVED_COMPONENTS)}")


_DERIVED_COMPONENTS = (
    "@method",
    "@target-uri",
    "@authority",
    "@scheme",
    "@request-target",
    "@path",
    "@query",
)


def verify(
    proof: MessageSignatures, secrets: Secrets, request: SignedRequest, now: datetime
) -> Proven:
    """Return the id of the key, which is covered. Raises Unproven."""
    keys = get_keys(parse_keys(proof, secrets, lambda value: _parse_key(proof, value)))
    headers = _read_headers(request)
    # The library would leave a fragment and credentials out of what it compares.
    if "#" in request.url or "@" in request.url.partition("?")[0]:
        raise Unproven("the address holds a fragment or credentials")
    required = [name for name in proof.components if name != _DIGEST]
    if _DIGEST in headers or request.body:
        required.append(_DIGEST)
    # The library takes 60 ms to import.
    from integration.senders.proofs import rfc9421

    check = rfc9421.Check(
        algorithm=proof.algorithm,
        required=tuple(required),
        tag=proof.tag,
        key_id=proof.key_id,
        max_age=proof.max_age,
        leeway=proof.leeway,
    )
    message = rfc9421.Message(method=request.method, url=request.url, headers=headers)
    reason = "there is no setting with a key"
    for key in keys:
        found = rfc9421.verify_message(check, message, request.body, key, now)
        if found.is_proven:
            key_id = found.text
            return Proven(principal=key_id if len(key_id) <= _MAX_PRINCIPAL else None)
        reason = found.text
    raise Unproven(reason)


def check_secrets(proof: MessageSignatures, secrets: Secrets) -> list[str]:
    """Return what is wrong with the settings that hold the keys, without their values."""
    return parse_keys(proof, secrets, lambda value: _parse_key(proof, value))[1]


def _read_headers(request: SignedRequest) -> Mapping[str, str]:
    """Return the headers within bounds, those of the signature strictly."""
    if sum(len(name) + len(value) for name, value in request.headers.items()) > _MAX_HEADERS:
        raise Unproven(f"the headers have more than {_MAX_HEADERS} characters")
    # The library would unfold a value over two lines before it compares it.
    if any("\n" in value or "\r" in value for value in request.headers.values()):
        raise Unproven("a header holds the end of a line")
    names = ["Signature-Input", "Signature", *(["Content-Digest"] if request.body else [])]
    for name in names:
        read_header(request, name)
    if _DIGEST in request.headers:
        read_header(request, "Content-Digest")
    return request.headers


def _parse_key(proof: MessageSignatures, value: str) -> Any:
    """Return a secret's bytes or a public key, or as a str what is wrong with the value."""
    if proof.algorithm == "hmac-sha256":
        if proof.key_format == "text":
            return parse_secret_text(value)
        return parse_encoded_secret(value, proof.key_format)
    return _parse_public_key(proof, value)


def _parse_public_key(proof: MessageSignatures, value: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if proof.key_format != "pem":
        raw = parse_public_key(value, proof.key_format)
        return raw if isinstance(raw, str) else ed25519.Ed25519PublicKey.from_public_bytes(raw)
    if "PRIVATE KEY" in value:
        return "holds a private key, which only the sender may know"
    try:
        key = load_pem_public_key(value.replace("\\n", "\n").encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "does not hold a public key as PEM"
    if proof.algorithm == "ed25519" and isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if proof.algorithm == "rsa-pss-sha512" and isinstance(key, rsa.RSAPublicKey):
        return key if key.key_size >= _MIN_RSA_BITS else f"has fewer than {_MIN_RSA_BITS} bits"
    if (
        proof.algorithm == "ecdsa-p256-sha256"
        and isinstance(key, ec.EllipticCurvePublicKey)
        and isinstance(key.curve, ec.SECP256R1)
    ):
        return key
    return f"does not hold a key for {proof.algorithm}"
