"""How far a job came: its cursor, as its row holds it. Pure.

What needs attention is listed with the newest first, and is worked on with the oldest first. So the
list is read through once, which counts it and cuts it into segments; then one segment after the
other is read again, from the last to the first, each backwards. The keys of a list are texts that
rise from the newest to the oldest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import msgspec

# Things in a segment, until there are so many segments that each takes twice as many. The key of
# a segment takes 40 characters, the two ids of a thing 90, and a property of a table 32,768.
SEGMENT = 500
MAX_SEGMENTS = 500

# Things after which progress is saved. What a killed worker has done since is looked at again.
PART = 100

# Above every character of a key.
_BEHIND = "~"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """Where the work of a job goes on."""

    is_counted: bool = False
    after: str | None = None  # while it counts: where the next page begins
    # Behind which key each segment begins; the last one is worked on next.
    starts: tuple[str, ...] = ()
    size: int = SEGMENT
    filled: int = 0  # how many things the last segment has
    last: str = ""  # the key of the last thing that was counted
    # While it works: the last segment ends before this key. Of open deliveries: the last one that
    # was worked on.
    end: str | None = None
    # The things of the part that is worked on next, each with the id of its delivery. What was
    # done about them is not listed any more: whoever repeats the part knows them by this.
    under_way: tuple[tuple[str, str], ...] = ()


def count_key(cursor: Cursor, key: str) -> Cursor:
    """Return the cursor after one more thing was counted."""
    starts, size, filled = cursor.starts or ("",), cursor.size, cursor.filled
    if filled >= size:
        starts, filled = (*starts, cursor.last), 0
        if len(starts) > MAX_SEGMENTS:
            starts, size = starts[::2], size * 2
            filled = 0
    return replace(cursor, starts=starts, size=size, filled=filled + 1, last=key)


def end_segment(cursor: Cursor) -> Cursor:
    """Return the cursor after the last segment was worked on: the next one ends with the key
    behind which that began."""
    end = cursor.starts[-1] + _BEHIND
    return replace(cursor, starts=cursor.starts[:-1], end=end, under_way=())


def begin_part(cursor: Cursor, things: Iterable[tuple[str, str]]) -> Cursor:
    """Return the cursor before a part of the work: ids of its things, and of their deliveries."""
    return replace(cursor, under_way=tuple(things))


def encode_cursor(cursor: Cursor) -> str:
    """Return a cursor as text."""
    return msgspec.json.encode(cursor).decode()


def decode_cursor(text: str) -> Cursor:
    """Return what `encode_cursor` was given; the beginning for an empty text."""
    return msgspec.json.decode(text, type=Cursor) if text else Cursor()
