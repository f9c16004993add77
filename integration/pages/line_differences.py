"""What differs between two texts, line by line. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

# Lines of a text that are compared: the time grows with their square.
MAX_LINES = 4000


@dataclass(frozen=True, slots=True)
class MarkedLine:
    """A line, and whether it is in this text alone."""

    text: str
    is_alone: bool = False


def mark_differences(
    one: Sequence[str], other: Sequence[str]
) -> tuple[list[MarkedLine], list[MarkedLine]] | None:
    """Return the lines of both texts, marked; None: they are too long to be compared."""
    if max(len(one), len(other)) > MAX_LINES:
        return None
    # Whether a comma follows says nothing of the line itself.
    bare, other_bare = ([line.removesuffix(",") for line in lines] for lines in (one, other))
    matcher = SequenceMatcher(a=bare, b=other_bare)
    marked: tuple[list[MarkedLine], list[MarkedLine]] = ([], [])
    for tag, begin, end, other_begin, other_end in matcher.get_opcodes():
        is_alone = tag != "equal"
        marked[0].extend(MarkedLine(line, is_alone) for line in one[begin:end])
        marked[1].extend(MarkedLine(line, is_alone) for line in other[other_begin:other_end])
    return marked
