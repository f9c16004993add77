"""The scheme `ed25519`: a signature with a private key of the sender, in a header. Pure.

https://www.rfc-editor.org/rfc/rfc8032
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from integration.senders.proofs.ed25519_keys import SIGNATURE_BYTES, parse_public_key, verify_any
from integration.senders.proofs.proof import Proven, Secrets, SignedRequest, Unproven
from integration.senders.proofs.reading import get_keys, parse_keys
from integration.senders.proofs.signed_text import SignedText, read_signed_parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Ed25519(SignedText):
    """An Ed25519 signature in a header, as Elation sends it over the body. The settings hold public
    keys: nothing in them is secret, but who can change them can let others in."""

    encoding: Literal["base64", "hex"] = "base64"
    """How the signature is written."""

    key_format: Literal["base64", "hex"] = "base64"
    """How the settings hold the 32 bytes of the public key."""


def verify(proof: Ed25519, secrets: Secrets, request: SignedRequest, now: datetime) -> Proven:
    """Return the id, if it is signed. Raises Unproven."""
    keys = get_keys(_parse_keys(proof, secrets))
    encoding = proof.encoding
    parts = read_signed_parts(proof, request, now, encoding=encoding, length=SIGNATURE_BYTES)
    if not verify_any(keys, parts.signatures, parts.texts):
        raise Unproven(f"the signature of the header {proof.header} does not fit the request")
    return Proven(message_id=parts.message_id)


def check_secrets(proof: Ed25519, secrets: Secrets) -> list[str]:
    """Return what is wrong with the settings that hold the keys, without their values."""
    return _parse_keys(proof, secrets)[1]


def _parse_keys(proof: Ed25519, secrets: Secrets) -> tuple[list[bytes], list[str]]:
    return parse_keys(proof, secrets, lambda value: parse_public_key(value, proof.key_format))
