"""Public keys of Ed25519, and what they verify. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from integration.senders.proofs.reading import DECODERS

KEY_BYTES = 32
SIGNATURE_BYTES = 64

# The points of a small order, to which zeros and other placeholders belong: anybody can make
# signatures that fit such a key, and OpenSSL takes it. By their coordinate y, in the field of
# https://www.rfc-editor.org/rfc/rfc8032#section-5.1.
_FIELD = 2**255 - 19
_SMALL_ORDER = frozenset(
    {
        0,
        1,
        _FIELD - 1,
        int.from_bytes(
            bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
            "little",
        ),
        int.from_bytes(
            bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
            "little",
        ),
    }
)


def parse_public_key(value: str, encoding: str) -> bytes | str:
    """Return the 32 bytes of a public key in hex or base64, or what is wrong with it."""
    key = DECODERS[encoding](value)
    if key is None:
        return f"does not hold {encoding}"
    if len(key) != KEY_BYTES:
        return f"does not hold a public key of {KEY_BYTES} bytes"
    if int.from_bytes(key, "little") % 2**255 % _FIELD in _SMALL_ORDER:
        return "holds a key that anybody can sign for"
    return key


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
