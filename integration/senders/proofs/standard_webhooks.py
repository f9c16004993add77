"""The scheme `standard-webhooks`, which Svix and whoever it serves sends, too. Pure.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from datetime import datetime

from integration.senders.proofs.ed25519_keys import SIGNATURE_BYTES, parse_public_key, verify_any
from integration.senders.proofs.proof import Proof, Proven, Secrets, SignedRequest, Unproven
from integration.senders.proofs.reading import (
    Tolerance,
    decode_base64,
    get_keys,
    match_any,
    parse_keys,
    read_header,
    read_timestamp,
    require_secrets,
)

# Visible ASCII but the full stop, which parts the id from what is signed after it.
_ID = re.compile(r"[!-\-/-~]{1,256}")
_MAX_SIGNATURES = 16
_LENGTHS = {"v1": 32, "v1a": SIGNATURE_BYTES}


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardWebhooks(Proof):
    """The headers webhook-id, -timestamp and -signature, or the same as svix-*: HMAC-SHA256 (`v1`)
    or Ed25519 (`v1a`) over `id.timestamp.body`. The settings hold `whsec_` and base64 of 24 to 64
    bytes, or `whpk_` and base64 of a public key. What repeats share is the id."""

    tolerance: Tolerance = 300
    """Seconds that the timestamp may lie behind or ahead of the relay's clock."""

    def __post_init__(self) -> None:
        require_secrets(self)


@dataclass(frozen=True, slots=True)
class _Key:
    version: str
    value: bytes


def verify(
    proof: StandardWebhooks, secrets: Secrets, request: SignedRequest, now: datetime
) -> Proven:
    """Return the id, which is covered. Raises Unproven."""
    keys = get_keys(parse_keys(proof, secrets, _parse_key))
    prefix = "webhook" if "webhook-signature" in request.headers else "svix"
    message_id = read_header(request, f"{prefix}-id")
    timestamp = read_header(request, f"{prefix}-timestamp")
    signatures = _read_signatures(read_header(request, f"{prefix}-signature"))
    if not _ID.fullmatch(message_id):
        raise Unproven("the id is longer than 256 characters, or holds a space or full stop")
    read_timestamp(timestamp, now, proof.tolerance, in_milliseconds=False)
    text = f"{message_id}.{timestamp}.".encode() + request.body
    hmacs = [hmac.digest(key.value, text, "sha256") for key in keys if key.version == "v1"]
    publics = [key.value for key in keys if key.version == "v1a"]
    if match_any(hmacs, signatures["v1"]):
        return Proven(message_id=message_id)
    if publics and signatures["v1a"] and verify_any(publics, signatures["v1a"], [text]):
        return Proven(message_id=message_id)
    raise Unproven("no signature fits the id, the timestamp and the body")


def check_secrets(proof: StandardWebhooks, secrets: Secrets) -> list[str]:
    """Return what is wrong with the settings that hold the keys, without their values."""
    return parse_keys(proof, secrets, _parse_key)[1]


def _read_signatures(text: str) -> dict[str, list[bytes]]:
    """Return the signatures by their versions. Those of other versions are passed over, as the
    specification wants it."""
    found: dict[str, list[bytes]] = {version: [] for version in _LENGTHS}
    parts = text.split(" ")
    if len(parts) > _MAX_SIGNATURES:
        raise Unproven(f"there are more than {_MAX_SIGNATURES} signatures")
    for part in parts:
        version, comma, encoded = part.partition(",")
        if not version or not comma:
            raise Unproven("a signature is not version,base64")
        if version in found:
            value = decode_base64(encoded)
            if value is None or len(value) != _LENGTHS[version]:
                raise Unproven("a signature is not base64 of the length of its version")
            found[version].append(value)
    return found


def _parse_key(value: str) -> _Key | str:
    prefix, _, encoded = value.partition("_")
    if prefix == "whpk":
        public = parse_public_key(encoded, "base64")
        return f"{public} after whpk_" if isinstance(public, str) else _Key("v1a", public)
    if prefix == "whsk":
        return "holds a private key (whsk_), which only the sender may know: take the one of whpk_"
    if prefix != "whsec":
        return "does not begin with whsec_ or whpk_"
    # Some vendors leave the padding away.
    secret = decode_base64(encoded.rstrip("=") + "=" * (-len(encoded.rstrip("=")) % 4))
    if secret is None:
        return "does not hold base64 after whsec_"
    return _Key("v1", secret) if 24 <= len(secret) <= 64 else "does not hold 24 to 64 bytes"
