"""The scheme `hub`: WebSub's X-Hub-Signature. Pure.

https://www.w3.org/TR/websub/#signing-content: `method=hex` of an HMAC over the body.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from integration.senders.proofs.proof import Proof, Proven, Secrets, SignedRequest, Unproven
from integration.senders.proofs.reading import (
    HeaderName,
    decode_hex,
    get_keys,
    match_any,
    parse_keys,
    parse_secret_text,
    read_header,
    require_secrets,
)

Algorithm = Literal["sha256", "sha384", "sha512"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub(Proof):
    """`X-Hub-Signature: method=hex` over the body, as WebSub has it and athenahealth sends it. The
    settings hold the secret as text, at least 16 bytes. Nothing covers a time: what was captured
    can be sent again."""

    header: HeaderName = "X-Hub-Signature"
    """The header that holds the method and the signature."""

    algorithms: Annotated[tuple[Algorithm, ...], Meta(min_length=1)] = ("sha256",)
    """The methods that are taken; the header says which one it is. sha1 is never taken."""

    def __post_init__(self) -> None:
        require_secrets(self)


def verify(proof: Hub, secrets: Secrets, request: SignedRequest, now: datetime) -> Proven:
    """Return that the body is signed with one of the secrets. Raises Unproven."""
    keys = get_keys(parse_keys(proof, secrets, parse_secret_text))
    method, _, text = read_header(request, proof.header).partition("=")
    algorithm = next((name for name in proof.algorithms if name == method.lower()), None)
    if algorithm is None:
        raise Unproven(f"the header {proof.header} names a method that is not taken")
    signature = decode_hex(text)
    if not signature:
        raise Unproven(f"the header {proof.header} is not method=hex")
    if not match_any((hmac.digest(key, request.body, algorithm) for key in keys), [signature]):
        raise Unproven(f"the signature of the header {proof.header} does not fit the body")
    return Proven()


def check_secrets(proof: Hub, secrets: Secrets) -> list[str]:
    """Return what is wrong with the settings that hold the secrets, without their values."""
    return parse_keys(proof, secrets, parse_secret_text)[1]
