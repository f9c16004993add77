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


@dataclass(frozen=True, slots=True)
class ChangedLine:
    """A line of two texts. `sign`: "-" of the first alone, "+" of the second alone, " " of both,
    "@" where lines of both are left out; `number`: in its text, from 1."""

    sign: str
    number: int
    text: str


def list_changed_lines(before: str, after: str, around: int = 3) -> list[ChangedLine] | None:
    """Return the lines in which two texts differ, with some around them; None: they are too long
    to be compared."""
    lines, others = before.splitlines(), after.splitlines()
    if max(len(lines), len(others)) > MAX_LINES:
        return None
    found: list[ChangedLine] = []
    for group in SequenceMatcher(a=lines, b=others, autojunk=False).get_grouped_opcodes(around):
        if found:
            found.append(ChangedLine("@", 0, ""))
        for tag, begin, end, other_begin, other_end in group:
            if tag == "equal":
                found += _number(" ", lines[begin:end], other_begin)
                continue
            found += _number("-", lines[begin:end], begin)
            found += _number("+", others[other_begin:other_end], other_begin)
    return found


def _number(sign: str, lines: Sequence[str], begin: int) -> list[ChangedLine]:
    return [ChangedLine(sign, number, line) for number, line in enumerate(lines, begin + 1)]
