"""Decompress gzip, within a limit on the memory that it takes."""

from __future__ import annotations

import zlib

# zlib copies what follows a member, so the data is fed in pieces.
_PIECE = 4096


def decompress(data: bytes, max_bytes: int) -> bytes:
    """Decompress up to `max_bytes` and one more, which shows that there is more.

    Several members may follow each other: https://www.rfc-editor.org/rfc/rfc1952
    Raises zlib.error for data that is damaged or cut off.
    """
    parts, remaining = [], max_bytes + 1
    member = zlib.decompressobj(wbits=31)
    for start in range(0, len(data), _PIECE):
        piece = data[start : start + _PIECE]
        while piece and remaining:
            if member.eof:
                member = zlib.decompressobj(wbits=31)
            parts.append(member.decompress(piece, remaining))
            remaining -= len(parts[-1])
            piece = member.unused_data
    if remaining and not member.eof:
        raise zlib.error("the last member is cut off")
    return b"".join(parts)
