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
    lines: Sequence[str], other_lines: Sequence[str]
) -> tuple[list[MarkedLine], list[MarkedLine]] | None:
    """Return the lines of both texts, marked; None: they are too long to be compared."""
    if max(len(lines), len(other_lines)) > MAX_LINES:
        return None
    # Whether a comma follows says nothing of the line itself.
    matcher = SequenceMatcher(a=_strip_commas(lines), b=_strip_commas(other_lines))
    marked: tuple[list[MarkedLine], list[MarkedLine]] = ([], [])
    for tag, begin, end, other_begin, other_end in matcher.get_opcodes():
        is_alone = tag != "equal"
        marked[0].extend(MarkedLine(line, is_alone) for line in lines[begin:end])
        marked[1].extend(MarkedLine(line, is_alone) for line in other_lines[other_begin:other_end])
    return marked


def _strip_commas(lines: Sequence[str]) -> list[str]:
    return [line.removesuffix(",") for line in lines]
