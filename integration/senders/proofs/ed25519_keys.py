"""Public keys of Ed25519, and what they verify. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from integration.senders.proofs.reading import DECODERS

KEY_BYTES = 32
SIGNATURE_BYTES = 64


def parse_public_key(value: str, encoding: str) -> bytes | str:
    """Return the 32 bytes of a public key in hex or base64, or what is wrong with it."""
    key = DECODERS[encoding](value)
    if key is None:
        return f"does not hold {encoding}"
    return key if len(key) == KEY_BYTES else f"does not hold a public key of {KEY_BYTES} bytes"


def verify_any(keys: Iterable[bytes], signatures: Sequence[bytes], texts: Sequence[bytes]) -> bool:
    """Whether one of the keys verifies one of the signatures over one of the texts."""
    # A cold start does without it.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    for key in keys:
        public = Ed25519PublicKey.from_public_bytes(key)
        for signature in signatures:
            for text in texts:
                try:
                    public.verify(signature, text)
                except InvalidSignature:
                    continue
                return True
    return False
