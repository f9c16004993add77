"""Which id a created resource gets: the same for the same bytes, and for nothing else. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID, uuid5

from integration.fhir.entries import Entry

# A namespace of our own: https://www.rfc-editor.org/rfc/rfc4122#section-4.3
_NAMESPACE = UUID("5f0c1d4e-3c5b-5b57-9f43-0d7c2a9b8e11")

_PLACEHOLDER = "urn:uuid:"

# What every placeholder looks like, and nothing longer or shorter.
PLACEHOLDER = re.compile(rb"urn:uuid:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Naming:
    """From what ids are derived. Never from a urn:uuid alone: some interfaces send the same
    placeholder in every message, and one patient would be written over another."""

    sender: str
    key: str


def derive_id(naming: Naming, entry: Entry) -> str:
    """The id of what `entry` creates: UUIDv5 of sender, delivery key and fullUrl or position."""
    return str(_derive_uuid(naming, entry, "id"))


def derive_placeholder(naming: Naming, entry: Entry) -> str:
    """A urn for an entry whose id only the server can say, unlike any a sender could send."""
    return f"{_PLACEHOLDER}{_derive_uuid(naming, entry, 'placeholder')}"


def _derive_uuid(naming: Naming, entry: Entry, use: str) -> UUID:
    local = f"url {entry.full_url}" if entry.full_url else f"position {entry.position}"
    return uuid5(_NAMESPACE, "\n".join((use, naming.sender, naming.key, local)))
