"""The versions that entries found at their first attempt, by position, as a row holds them. Pure.

A property takes 64 KiB, and a version is an id of at most 64 characters
(https://hl7.org/fhir/R4/datatypes.html#id), so those of one unit fit.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

# Entries whose versions fit into one property.
MAX_ENTRIES = 500

_decoder = msgspec.json.Decoder(dict[int, str])


def encode_bases(bases: Mapping[int, str]) -> bytes:
    """Return the versions as one property of a row."""
    return msgspec.json.encode(bases) if bases else b""


def decode_bases(data: bytes) -> dict[int, str]:
    """Return the versions by position."""
    return _decoder.decode(data) if data else {}
