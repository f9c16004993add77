"""Which row shows a resource, and which resource a row shows, where neither follows from the other.

A row's key is a GUID. It is the resource's id where that is one; else it is derived from the id,
and nothing leads back. And a row that was there before this app came has the key that it had.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol


class RowKeys(Protocol):
    """Every method raises Unavailable when the storage does not answer."""

    async def add(self, type_: str, keys: Mapping[str, str]) -> None:
        """Keys by id, of resources of one type: both ways. Repeating it changes nothing."""

    async def add_reverse(self, type_: str, keys: Mapping[str, str]) -> None:
        """The way back alone, from keys that follow from the ids."""

    async def find_keys(self, type_: str, ids: Collection[str]) -> Mapping[str, str]:
        """Those that were noted, by id."""

    async def find_ids(self, type_: str, keys: Collection[str]) -> Mapping[str, str]:
        """The other way round."""


@dataclass(slots=True)
class MemoryRowKeys:
    """The double: the same contract in dictionaries."""

    keys_by_id: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    ids_by_key: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))

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
