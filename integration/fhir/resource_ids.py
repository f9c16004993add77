"""The id of a created resource: the same whenever the same delivery is processed. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha1
from uuid import UUID

from integration.fhir.entries import Entry

# This app's own namespace: https://www.rfc-editor.org/rfc/rfc4122#section-4.3
_NAMESPACE = UUID("5f0c1d4e-3c5b-5b57-9f43-0d7c2a9b8e11").bytes

_PLACEHOLDER = "urn:uuid:"

# Matches every placeholder of this app, and nothing longer or shorter.
PLACEHOLDER = re.compile(rb"urn:uuid:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Naming:
    """What ids are derived from, besides the entry. A urn:uuid alone is not enough: some interfaces
    send the same placeholder in every message, and one patient would overwrite another.

    `trusts_uuids`: this sender's do name the same resource each time, as those of a bulk export.
    """

    sender: str
    key: str
    trusts_uuids: bool = False


def derive_id(naming: Naming, entry: Entry) -> str:
    """Return the id of the resource that `entry` creates: the UUID of its fullUrl where it is
    trusted, else a UUIDv5 of sender, delivery key and fullUrl, or position where there is none."""
    if naming.trusts_uuids and (stated := parse_placeholder(entry.full_url or "")):
        return stated
    return _derive_uuid(naming, entry, "id")


def parse_placeholder(url: str) -> str | None:
    """Return the UUID of a `urn:uuid:`, in lower case; None for any other text."""
    folded = url.lower()
    is_placeholder = PLACEHOLDER.fullmatch(folded.encode(errors="replace")) is not None
    return folded.removeprefix(_PLACEHOLDER) if is_placeholder else None


def derive_placeholder(naming: Naming, entry: Entry) -> str:
    """Return a urn for an entry whose id only the server can say. No sender can guess it."""
    return f"{_PLACEHOLDER}{_derive_uuid(naming, entry, 'placeholder')}"


def _derive_uuid(naming: Naming, entry: Entry, use: str) -> str:
    local = f"url {entry.full_url}" if entry.full_url else f"position {entry.position}"
    name = "\n".join((use, naming.sender, naming.key, local))
    # What uuid.uuid5 does, in a third of the time: there is one for each entry.
    digest = bytearray(sha1(_NAMESPACE + name.encode(), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
