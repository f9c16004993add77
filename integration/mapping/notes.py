"""What the notes of a row say: of which element, why, and where the map has it. Pure.

The engine writes `subject: why @ path (file:line)`; other notes have no path, or no subject.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from integration.core.flow import UnmappedElement

# Where in a map the rule stands.
_PLACE = re.compile(r" \(([^()]+\.\w+(?::\d+)?)\)$")
# How many there were in this resource.
_NUMBER = re.compile(r"^\d+ more than ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a row could not take. `subject`: the column, table or element; `path`: in the resource;
    `place`: file and line of the map. What a note does not name is ""."""

    subject: str
    why: str
    path: str
    place: str


def parse_note(note: str) -> Note:
    """Take a note apart."""
    text, _, where = note.rpartition(" @ ")
    if not text:
        text, where = note, ""
    subject, colon, why = text.partition(": ")
    if not colon:
        subject, why = "", text
    found = _PLACE.search(where)
    return Note(
        subject=subject, why=why, path=_PLACE.sub("", where), place=found[1] if found else ""
    )


def name_unmapped(type_: str, note: str) -> UnmappedElement:
    """Return what a note of a resource of this type has in common with those of others: the
    element and the reason, and not the place and the number."""
    found = parse_note(note)
    why = _NUMBER.sub("more than ", found.why)
    return UnmappedElement(type_, found.path, f"{found.subject}: {why}" if found.subject else why)
