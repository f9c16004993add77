"""Which row shows a resource, and the way back, as one worker knows it.

A key is the resource's id where that is a GUID, else derived from it. Whoever has seen a derived
key may ask by it, so the way back is noted before the key is told. A contact may have another key,
which the mirror has noted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from integration.journal.row_keys import RowKeys
from integration.mapping.engine import primary_key

# What a worker remembers, at most; and for how many seconds that a row has no key of its own.
_MOST = 20_000
_AGE = 60.0


@dataclass(slots=True)
class Keys:
    """`mirrored`: the resource types whose rows may have been there before this app came."""

    kept: RowKeys
    mirrored: Callable[[str], bool]
    clock: Callable[[], float] = time.monotonic
    _noted: set[str] = field(default_factory=set)
    _own: dict[str, tuple[str, float]] = field(default_factory=dict)

    async def of(self, resources: Collection[str]) -> Mapping[str, UUID]:
        """The keys of Type/id, each with its way back noted. Raises Unavailable."""
        found = {name: primary_key(*name.split("/", 1)) for name in resources}
        found |= await self._owned([name for name in found if self.mirrored(name.split("/")[0])])
        lost = {name: key for name, key in found.items()
                if key != name.partition("/")[2] and name not in self._noted}  # fmt: skip
        for type_ in {name.partition("/")[0] for name in lost}:
            ids = {name.partition("/")[2]: key for name, key in lost.items()
                   if name.partition("/")[0] == type_}  # fmt: skip
            await self.kept.lead(type_, ids)
        self._remember(lost)
        return {name: UUID(key) for name, key in found.items()}

    async def ids(self, type_: str, keys: Iterable[UUID]) -> Mapping[UUID, str]:
        """The ids of the resources whose rows have these keys, whether there are any or not."""
        texts = {str(key): key for key in keys}
        led = await self.kept.ids(type_, texts) if texts else {}
        return {key: led.get(text, text) for text, key in texts.items()}

    async def _owned(self, names: Collection[str]) -> Mapping[str, str]:
        """Keys that do not follow from the ids."""
        now, found = self.clock(), dict[str, str]()
        asked: dict[str, list[str]] = {}
        for name in names:
            key, until = self._own.get(name, ("", 0.0))
            if until < now:
                asked.setdefault(name.partition("/")[0], []).append(name.partition("/")[2])
            elif key:
                found[name] = key
        for type_, ids in asked.items():
            noted = await self.kept.keys(type_, ids)
            if len(self._own) + len(ids) > _MOST:
                self._own.clear()
            for id_ in ids:
                self._own[f"{type_}/{id_}"] = (noted.get(id_, ""), now + _AGE)
            found |= {f"{type_}/{id_}": key for id_, key in noted.items()}
        return found

    def _remember(self, names: Collection[str]) -> None:
        if len(self._noted) + len(names) > _MOST:
            self._noted.clear()
        self._noted.update(names)
