"""The scheme `folder`: the storage account decides who may write into the sender's folder. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from integration.senders.proofs.proof import Proof, Proven, Secrets, SignedRequest, Unproven
from integration.senders.proofs.reading import refuse_secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder(Proof):
    """Its files are in the folder of its name in the inbox (docs/inbox.md). It has no keys of its
    own: who may write there is a matter of the storage account."""

    def __post_init__(self) -> None:
        refuse_secrets(self)


def verify(proof: Folder, secrets: Secrets, request: SignedRequest, now: datetime) -> Proven:
    """Raise Unproven: no request proves who writes into a folder."""
    raise Unproven("its sender puts files into its folder of the inbox, and sends no requests")


def check_secrets(proof: Folder, secrets: Secrets) -> list[str]:
    """Return nothing: the storage account decides."""
    return []
