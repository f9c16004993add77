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

    async def note(self, type_: str, keys: Mapping[str, str]) -> None:
        """Keys by id, of resources of one type: both ways. Repeating it changes nothing."""

    async def lead(self, type_: str, keys: Mapping[str, str]) -> None:
        """The way back alone, from keys that follow from the ids."""

    async def keys(self, type_: str, ids: Collection[str]) -> Mapping[str, str]:
        """Those that were noted, by id."""

    async def ids(self, type_: str, keys: Collection[str]) -> Mapping[str, str]:
        """The other way round."""


@dataclass(slots=True)
class MemoryRowKeys:
    """The double: the same contract in dictionaries."""

    noted: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    back: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))

    async def note(self, type_: str, keys: Mapping[str, str]) -> None:
        for id_, key in keys.items():
            self.noted[type_][id_] = key
        await self.lead(type_, keys)

    async def lead(self, type_: str, keys: Mapping[str, str]) -> None:
        for id_, key in keys.items():
            self.back[type_][key] = id_

    async def keys(self, type_: str, ids: Collection[str]) -> Mapping[str, str]:
        noted = self.noted.get(type_, {})
        return {id_: noted[id_] for id_ in ids if id_ in noted}

    async def ids(self, type_: str, keys: Collection[str]) -> Mapping[str, str]:
        back = self.back.get(type_, {})
        return {key: back[key] for key in keys if key in back}
