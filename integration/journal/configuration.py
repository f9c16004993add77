"""The configuration: maps, senders and data routes, as documents with versions. The contract of its
store, and a memory one.

The files of the package are version 0. A later version holds only what differs from them, so the
next release of the package still reaches all other documents. A version is never changed: to roll
back is to publish an earlier one again. docs/decisions/0046-the-configuration-has-versions.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from typing import Protocol

from integration.journal.bounds import bound_text

SENDERS = "senders.toml"
DATA_ROUTES = "data-routes.toml"
MAPS_FOLDER = "maps/"

# Stands in place of a digest: the document of the package is not in use either.
LEFT_OUT = ""

# Documents of a version: their names and digests are one property of a row, which takes 32,768
# characters. https://learn.microsoft.com/rest/api/storageservices/understanding-the-table-service-data-model
MAX_DOCUMENTS = 200

# Bytes of a document, and characters of a reason and of a name.
MAX_DOCUMENT = 500_000
MAX_WHY_LENGTH = 500
MAX_NAME_LENGTH = 200

_MAP_NAME = re.compile(r"maps/[a-z0-9][a-z0-9_-]{0,60}\.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationVersion:
    """One version. `documents`: the digests of what differs from the package, by name. `restores`:
    the version that a roll back has published again."""

    number: int = 0
    documents: Mapping[str, str] = field(default_factory=dict)
    published: datetime | None = None
    published_by: str = ""
    why: str = ""
    restores: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """Changes that somebody prepares. `base`: the version that they were made on; `changes`: the
    digests of the changed documents by name, None: as the package has it."""

    id: str
    base: int
    changes: Mapping[str, str | None] = field(default_factory=dict)
    saved: datetime
    saved_by: str = ""
    etag: str | None = field(default=None, compare=False, repr=False)  # of its row when it was read


class ConfigurationStore(Protocol):
    """Every method raises Unavailable when the storage does not answer."""

    async def read_latest(self) -> ConfigurationVersion:
        """Return the version in use; version 0 where none was published."""

    async def read_version(self, number: int) -> ConfigurationVersion | None:
        """Return a version; None: there is none with this number."""

    async def list_versions(self, limit: int, before: int | None) -> Sequence[ConfigurationVersion]:
        """Return up to `limit` published versions, newest first, of those with a number below
        `before`."""

    async def add_version(self, version: ConfigurationVersion) -> bool:
        """Publish a version, whose number is one above that of the latest. False, and nothing is
        published, where there is one with this number already."""

    async def add_document(self, text: str) -> str:
        """Keep a document, and return its digest. Repeating it changes nothing."""

    async def read_document(self, digest: str) -> str | None:
        """Return a document; None: there is none with this digest."""

    async def save_draft(self, draft: Draft) -> Draft | None:
        """Save a draft over the row with its etag, or add it if it has none. Return it with its new
        etag; None, and save nothing, when the row has changed, is deleted, or is there already."""

    async def read_draft(self, id_: str) -> Draft | None:
        """Return a draft; None: there is none with this id."""

    async def list_drafts(self) -> Sequence[Draft]:
        """Return all drafts, the oldest first: few, since people write them."""

    async def delete_draft(self, id_: str) -> None:
        """Delete a draft, if it is there."""


def compute_digest(text: str) -> str:
    """Return what a document is known by: hexadecimal digits of its SHA-256. Pure."""
    return sha256(text.encode()).hexdigest()


def is_document_name(name: str) -> bool:
    """Whether a document may have this name. Pure."""
    return name in (SENDERS, DATA_ROUTES) or _MAP_NAME.fullmatch(name) is not None


def apply_changes(
    documents: Mapping[str, str], changes: Mapping[str, str | None]
) -> dict[str, str]:
    """Return the documents of a version with changes. Pure."""
    changed = {**documents, **changes}
    return {name: digest for name, digest in sorted(changed.items()) if digest is not None}


def find_conflicts(
    base: ConfigurationVersion, latest: ConfigurationVersion, changes: Mapping[str, str | None]
) -> list[str]:
    """Return the documents that a draft changes, and that somebody else has changed otherwise since
    the version that the draft was made on. Pure."""
    return [
        name
        for name, digest in sorted(changes.items())
        if latest.documents.get(name) not in (base.documents.get(name), digest)
    ]


def bound_version(version: ConfigurationVersion) -> ConfigurationVersion:
    """Return a version whose texts are as long as its row holds them. Pure."""
    return replace(
        version,
        published_by=bound_text(version.published_by, MAX_NAME_LENGTH),
        why=bound_text(version.why, MAX_WHY_LENGTH),
    )


@dataclass(slots=True)
class MemoryConfigurationStore:
    """The same contract in dictionaries, for tests."""

    versions: dict[int, ConfigurationVersion] = field(default_factory=dict)
    documents: dict[str, str] = field(default_factory=dict)
    drafts: dict[str, Draft] = field(default_factory=dict)
    changes: int = 0

    async def read_latest(self) -> ConfigurationVersion:
        return self.versions[max(self.versions)] if self.versions else ConfigurationVersion()

    async def read_version(self, number: int) -> ConfigurationVersion | None:
        return self.versions.get(number, ConfigurationVersion() if number == 0 else None)

    async def list_versions(self, limit: int, before: int | None) -> Sequence[ConfigurationVersion]:
        numbers = sorted(self.versions, reverse=True)
        return [self.versions[n] for n in numbers if before is None or n < before][:limit]

    async def add_version(self, version: ConfigurationVersion) -> bool:
        if version.number in self.versions:
            return False
        self.versions[version.number] = bound_version(version)
        return True

    async def add_document(self, text: str) -> str:
        digest = compute_digest(text)
        self.documents[digest] = text
        return digest

    async def read_document(self, digest: str) -> str | None:
        return self.documents.get(digest)

    async def save_draft(self, draft: Draft) -> Draft | None:
        saved = self.drafts.get(draft.id)
        if (None if saved is None else saved.etag) != draft.etag:
            return None
        self.changes += 1
        self.drafts[draft.id] = replace(draft, etag=str(self.changes))
        return self.drafts[draft.id]

    async def read_draft(self, id_: str) -> Draft | None:
        return self.drafts.get(id_)

    async def list_drafts(self) -> Sequence[Draft]:
        return [self.drafts[id_] for id_ in sorted(self.drafts)]

    async def delete_draft(self, id_: str) -> None:
        self.drafts.pop(id_, None)
