"""Fetch the public keys of the issuers whose tokens senders prove themselves with."""

from __future__ import annotations

from collections.abc import Mapping

from integration.app.http_clients import ClientContext
from integration.intake.identify import AddKeys
from integration.senders.model import Sender
from integration.senders.proofs.proof import Proof, Secrets, SignedRequest


def open_key_sets(senders: Mapping[str, Sender], context: ClientContext) -> AddKeys:
    """Return what adds the keys of its issuer to the secrets of a sender."""

    async def add_keys(proof: Proof, secrets: Secrets, request: SignedRequest) -> Secrets:
        return secrets

    return add_keys
