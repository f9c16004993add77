"""The scheme `function-key`: the Functions host has compared the key. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from integration.senders.proofs.proof import Proof, Proven, Secrets, SignedRequest
from integration.senders.proofs.reading import refuse_secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionKey(Proof):
    """A key of the Functions host, in the header x-functions-key or the query. It has no keys of
    its own: the host refuses what comes without it, at an address of its own."""

    def __post_init__(self) -> None:
        refuse_secrets(self)


def verify(proof: FunctionKey, secrets: Secrets, request: SignedRequest, now: datetime) -> Proven:
    """Return that it is proven: nothing reaches the app that the host has not let in."""
    return Proven()


def check_secrets(proof: FunctionKey, secrets: Secrets) -> list[str]:
    """Return nothing: the host has the keys."""
    return []
