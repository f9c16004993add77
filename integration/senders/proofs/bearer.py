"""The scheme `bearer`: a token that both sides know, in Authorization. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from integration.senders.proofs.proof import Proof, Proven, Secrets, SignedRequest, Unproven
from integration.senders.proofs.reading import (
    get_keys,
    match_any,
    parse_keys,
    parse_token,
    read_bearer,
    require_secrets,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer(Proof):
    """`Authorization: Bearer TOKEN`, as FHIR servers send it from the header of a subscription's
    channel. The settings hold tokens of 16 characters or more. It covers nothing of the request:
    who sees one can send others."""

    def __post_init__(self) -> None:
        require_secrets(self)


def verify(proof: Bearer, secrets: Secrets, request: SignedRequest, now: datetime) -> Proven:
    """Return that the token is one of the secrets. Raises Unproven."""
    tokens = get_keys(parse_keys(proof, secrets, parse_token))
    if not match_any(tokens, [read_bearer(request).encode()]):
        raise Unproven("the token of the header Authorization is not the one of this sender")
    return Proven()


def check_secrets(proof: Bearer, secrets: Secrets) -> list[str]:
    """Return what is wrong with the settings that hold the tokens, without their values."""
    return parse_keys(proof, secrets, parse_token)[1]
