"""What the notes of a row have in common with those of others: the element, not the count. Pure."""

from __future__ import annotations

import re

from integration.core.flow import UnmappedElement

# Where in a map the rule stands.
_PLACE = re.compile(r" \([^()]+\.\w+(:\d+)?\)$")
# How many there were in this resource.
_NUMBER = re.compile(r": \d+ more than ")


def parse_note(type_: str, note: str) -> UnmappedElement:
    """Return what a note of a resource of this type says, as `note @ path (file:line)`."""
    text, _, path = note.rpartition(" @ ")
    if not text:
        return UnmappedElement(type_, "", note)
    return UnmappedElement(type_, _PLACE.sub("", path), _NUMBER.sub(": more than ", text))
