"""How far the edits of each table were followed: its contract, and an implementation in memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol


class Stage(StrEnum):
    """What the rows that are read now mean."""

    COMPARING = "comparing"  # every row: at first, and where a link is lost
    FOLLOWING = "following"  # rows that were written since


@dataclass(frozen=True, slots=True, kw_only=True)
class EditCursor:
    """Where to go on with a table. `link`: of change tracking; "": at the beginning. `columns`:
    that are read of each row, by commas. `etag`: of the cursor as it was read; None: there
    was none."""

    table: str
    link: str = ""
    stage: Stage = Stage.COMPARING
    columns: str = ""
    etag: str | None = field(default=None, compare=False, repr=False)


class EditCursors(Protocol):
    """Every method raises Unavailable when the storage does not answer."""

    async def read(self, table: str) -> EditCursor:
        """Return the cursor of a table."""

    async def save(self, cursor: EditCursor) -> EditCursor | None:
        """Store a cursor in the place of the one that it was made from. None: somebody else has
        stored another one meanwhile."""


@dataclass(slots=True)
class MemoryEditCursors:
    """The same contract in a dictionary, for tests."""

    cursors: dict[str, EditCursor] = field(default_factory=dict)

    async def read(self, table: str) -> EditCursor:
        return self.cursors.get(table, EditCursor(table=table))

    async def save(self, cursor: EditCursor) -> EditCursor | None:
        known = self.cursors.get(cursor.table)
        if cursor.etag != (known.etag if known else None):
            return None
        saved = replace(cursor, etag=str(int(cursor.etag or 0) + 1))
        self.cursors[cursor.table] = saved
        return saved
