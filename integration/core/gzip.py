"""Content that came with gzip, never more of it in memory than is wanted."""

from __future__ import annotations

import zlib

# What follows a member of gzip is copied for the next one, so members are fed in pieces.
_PIECE = 4096


def decompress(data: bytes, max_bytes: int) -> bytes:
    """https://www.rfc-editor.org/rfc/rfc1952: several members may follow each other."""
    parts, room = [], max_bytes + 1
    member = zlib.decompressobj(wbits=31)
    for start in range(0, len(data), _PIECE):
        piece = data[start : start + _PIECE]
        while piece and room:
            if member.eof:
                member = zlib.decompressobj(wbits=31)
            parts.append(member.decompress(piece, room))
            room -= len(parts[-1])
            piece = member.unused_data
    if room and not member.eof:
        raise zlib.error("the last member is cut off")
    return b"".join(parts)
