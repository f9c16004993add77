"""The files of the inbox and the answers to them: the contract, and an implementation in memory.

The names of files are their senders' own, and may hold the names of patients: they are in the
inbox, in its answers, and beside the bytes of a delivery, and nowhere else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

# The container of the answers, beside the one that the setting INBOX names.
ANSWERS = "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxFile:
    """A file as it was when it was looked at. `name`: with the folder; `etag`: of its content;
    `size`: in bytes."""

    name: str = field(repr=False)
    etag: str
    size: int
    modified: datetime


class InboxFiles(Protocol):
    """Every method raises Unavailable when the storage does not answer."""

    async def find(self, name: str) -> InboxFile | None:
        """Return the file; None: there is none, or it is a folder."""

    async def read(self, file: InboxFile) -> bytes | None:
        """Return the content of a file; None: it has changed since, or is gone."""

    async def delete(self, file: InboxFile) -> bool:
        """Delete a file with this content. Return False when it has changed since, or is gone."""

    def list_files(self, folder: str) -> AsyncIterator[InboxFile]:
        """Iterate over the files of a folder, and of the folders in it."""

    async def write_answer(self, name: str, body: bytes) -> None:
        """Write an answer. It replaces an earlier one of this name."""


@dataclass(slots=True)
class MemoryInboxFiles:
    """The same contract in dictionaries, for tests."""

    now: Callable[[], datetime]
    files: dict[str, tuple[InboxFile, bytes]] = field(default_factory=dict)
    answers: dict[str, bytes] = field(default_factory=dict)
    puts: int = 0

    def put(self, name: str, content: bytes) -> InboxFile:
        """Do what a sender does."""
        self.puts += 1
        file = InboxFile(name=name, etag=str(self.puts), size=len(content), modified=self.now())
        self.files[name] = (file, content)
        return file

    async def find(self, name: str) -> InboxFile | None:
        return self.files[name][0] if name in self.files else None

    async def read(self, file: InboxFile) -> bytes | None:
        known, content = self.files.get(file.name, (None, b""))
        return content if known == file else None

    async def delete(self, file: InboxFile) -> bool:
        if self.files.get(file.name, (None, b""))[0] != file:
            return False
        del self.files[file.name]
        return True

    async def list_files(self, folder: str) -> AsyncIterator[InboxFile]:
        for name in sorted(self.files):
            if name.startswith(f"{folder}/"):
                yield self.files[name][0]

    async def write_answer(self, name: str, body: bytes) -> None:
        self.answers[name] = body
