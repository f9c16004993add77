"""The key of the row that shows a resource, and back, where one does not follow from the other.

A row's key is a GUID. It is the resource's id where that is a GUID. Else it is derived from the id,
which cannot be reversed. And a row that another app has created has a key of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RecordedRow:
    """What is recorded of the row of a resource. `key`: where it does not follow from the id;
    `concern`: what of it needs attention."""

    key: str | None = None
    concern: str | None = None
    etag: str | None = None


class RowKeys(Protocol):
    """Every method raises Unavailable when the storage does not answer."""

    async def add(self, type_: str, keys: Mapping[str, str]) -> None:
        """Record keys by id, of resources of one type, for both directions. Repeating it changes
        nothing."""

    async def add_reverse(self, type_: str, keys: Mapping[str, str]) -> None:
        """Record for the direction from key to id alone: these keys follow from the ids."""

    async def find_keys(self, type_: str, ids: Collection[str]) -> Mapping[str, str]:
        """Return the recorded keys of these ids, by id."""

    async def find_ids(self, type_: str, keys: Collection[str]) -> Mapping[str, str]:
        """Return the recorded ids of these keys, by key."""

    async def read(self, type_: str, id_: str) -> RecordedRow:
        """Return all that is recorded of the row of a resource: what `find_keys` costs for it."""

    async def name_concern(self, type_: str, id_: str, concern: str) -> None:
        """Record that a row has this concern. The record changes, even if it says so already."""

    async def unname_concern(self, type_: str, id_: str, seen: RecordedRow) -> bool:
        """Record that a row has no concern, if the record is still as it was `seen`. Return whether
        it was."""


@dataclass(slots=True)
class MemoryRowKeys:
    """The same contract in dictionaries, for tests."""

    keys_by_id: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    ids_by_key: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    row_concerns: dict[tuple[str, str], str] = field(default_factory=dict)
    changes: int = 0  # of concerns: the next one's etag
    etags: dict[tuple[str, str], str] = field(default_factory=dict)

    async def add(self, type_: str, keys: Mapping[str, str]) -> None:
        for id_, key in keys.items():
            self.keys_by_id[type_][id_] = key
        await self.add_reverse(type_, keys)

    async def add_reverse(self, type_: str, keys: Mapping[str, str]) -> None:
        for id_, key in keys.items():
            self.ids_by_key[type_][key] = id_

    async def find_keys(self, type_: str, ids: Collection[str]) -> Mapping[str, str]:
        keys_by_id = self.keys_by_id.get(type_, {})
        return {id_: keys_by_id[id_] for id_ in ids if id_ in keys_by_id}

    async def find_ids(self, type_: str, keys: Collection[str]) -> Mapping[str, str]:
        ids_by_key = self.ids_by_key.get(type_, {})
        return {key: ids_by_key[key] for key in keys if key in ids_by_key}

    async def read(self, type_: str, id_: str) -> RecordedRow:
        key = (await self.find_keys(type_, [id_])).get(id_)
        name = type_, id_
        return RecordedRow(key, self.row_concerns.get(name), self.etags.get(name))

    async def name_concern(self, type_: str, id_: str, concern: str) -> None:
        self.changes += 1
        self.row_concerns[type_, id_] = concern
        self.etags[type_, id_] = str(self.changes)

    async def unname_concern(self, type_: str, id_: str, seen: RecordedRow) -> bool:
        if self.etags.get((type_, id_)) != seen.etag:
            return False
        self.row_concerns.pop((type_, id_), None)
        return True
