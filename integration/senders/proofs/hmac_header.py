"""The scheme `hmac`: a keyed hash in a header, over a text that the table describes. Pure."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from integration.senders.proofs.proof import Proven, Secrets, SignedRequest, Unproven
from integration.senders.proofs.reading import (
    get_keys,
    match_any,
    parse_encoded_secret,
    parse_keys,
    parse_secret_text,
)
from integration.senders.proofs.signed_text import SignedText, read_signed_parts


@dataclass(frozen=True, slots=True, kw_only=True)
class HmacHeader(SignedText):
    """An HMAC in a header, as Medplum, Metriport, NexHealth, Flexpa, Healthie and others send it,
    each in a way of its own. Without `{timestamp}` what was captured can be sent again."""

    algorithm: Literal["sha256", "sha384", "sha512"] = "sha256"
    """The hash."""

    encoding: Literal["hex", "base64", "base64url"] = "hex"
    """How the signature is written."""

    key_format: Literal["text", "hex", "base64"] = "text"
    """How the settings hold the key. `text`: its characters are the key, as with most vendors.
    A key has at least 16 bytes."""


def verify(proof: HmacHeader, secrets: Secrets, request: SignedRequest, now: datetime) -> Proven:
    """Return the id, if it is signed. Raises Unproven."""
    keys = get_keys(_parse_keys(proof, secrets))
    length = hashlib.new(proof.algorithm).digest_size
    parts = read_signed_parts(proof, request, now, encoding=proof.encoding, length=length)
    hashes = [hmac.digest(key, text, proof.algorithm) for key in keys for text in parts.texts]
    if not match_any(hashes, parts.signatures):
        raise Unproven(f"the signature of the header {proof.header} does not fit the request")
    return Proven(message_id=parts.message_id)


def check_secrets(proof: HmacHeader, secrets: Secrets) -> list[str]:
    """Return what is wrong with the settings that hold the keys, without their values."""
    return _parse_keys(proof, secrets)[1]


def _parse_keys(proof: HmacHeader, secrets: Secrets) -> tuple[list[bytes], list[str]]:
    def parse(value: str) -> bytes | str:
        if proof.key_format == "text":
            return parse_secret_text(value)
        return parse_encoded_secret(value, proof.key_format)

    return parse_keys(proof, secrets, parse)
