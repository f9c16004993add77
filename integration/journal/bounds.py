"""How much text a row of a table takes: the first of it is kept, the rest is counted. Pure.

A property takes 64 KiB, which is 32,768 characters of UTF-16, and an entity 1 MiB:
https://learn.microsoft.com/rest/api/storageservices/understanding-the-table-service-data-model
A write above that fails with PropertyValueTooLarge, however often it is tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from integration.core.model import RowResult

# Characters of all notes of one row together. As JSON a character may take six: \\u0000.
MAX_NOTES_LENGTH = 4000

# Characters of any other text, such as the reason why a delivery is parked.
MAX_TEXT_LENGTH = 4000

# Room for "and 1000000 more".
_TAIL = 24


def bound_notes(notes: Sequence[str]) -> tuple[str, ...]:
    """Return as many of the first notes as fit, and at the end how many more there are."""
    if sum(len(note) + 1 for note in notes) <= MAX_NOTES_LENGTH:
        return tuple(notes)
    kept: list[str] = []
    room = MAX_NOTES_LENGTH - _TAIL
    for note in notes:
        room -= len(note) + 1
        if room < 0:
            break
        kept.append(note)
    if not kept:  # the first one alone is too long
        kept.append(bound_text(notes[0], MAX_NOTES_LENGTH - _TAIL - 1))
    more = len(notes) - len(kept)
    return (*kept, f"and {more} more") if more else tuple(kept)


def bound_text(text: str, limit: int = MAX_TEXT_LENGTH) -> str:
    """Return the beginning of a text, with an ellipsis where it is cut."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def bound_texts(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with every text among them bounded."""
    return {
        name: bound_text(value) if type(value) is str else value for name, value in values.items()
    }


def bound_row_result(result: RowResult) -> RowResult:
    """Return a row result with the notes and remarks that fit."""
    notes, remarks = bound_notes(result.notes), bound_notes(result.remarks)
    return replace(result, notes=notes, remarks=remarks)
