"""The scheme `token-header`: a token that both sides know, in a header of its own. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from integration.senders.proofs.proof import Proof, Proven, Secrets, SignedRequest, Unproven
from integration.senders.proofs.reading import (
    HeaderName,
    get_keys,
    match_any,
    parse_keys,
    parse_token,
    read_header,
    require_secrets,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenHeader(Proof):
    """A token in a header, as Redox sends `verification-token`. The settings hold tokens of 16
    characters or more. It covers nothing of the request: who sees one can send others."""

    header: HeaderName
    """The header that holds the token and nothing else."""

    def __post_init__(self) -> None:
        require_secrets(self)


def verify(proof: TokenHeader, secrets: Secrets, request: SignedRequest, now: datetime) -> Proven:
    """Return that the token is one of the secrets. Raises Unproven."""
    tokens = get_keys(parse_keys(proof, secrets, parse_token))
    if not match_any(tokens, [read_header(request, proof.header).encode()]):
        raise Unproven(f"the token of the header {proof.header} is not the one of this sender")
    return Proven()


def check_secrets(proof: TokenHeader, secrets: Secrets) -> list[str]:
    """Return what is wrong with the settings that hold the tokens, without their values."""
    return parse_keys(proof, secrets, parse_token)[1]
