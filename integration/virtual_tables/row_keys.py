"""Which row shows a resource, and the way back, as one worker knows it.

A key is the resource's id where that is a GUID, else derived from it. Whoever has seen a derived
key may ask by it, so the way back is noted before the key is told. A contact may have another key,
which the mirror has noted.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from integration.journal.row_keys import RowKeys
from integration.mapping.keys import derive_primary_key

# What a worker remembers, at most; and for how many seconds that nothing is noted.
_MOST = 20_000
_AGE = 30.0

# Asks the storage: what is noted under these names, of one resource type.
_Ask = Callable[[str, Collection[str]], Awaitable[Mapping[str, str]]]


@dataclass(slots=True)
class _Known:
    """What was asked before, by resource type and name; nothing noted is asked again later."""

    ask: _Ask
    clock: Callable[[], float]
    most: int
    found: dict[tuple[str, str], tuple[str, float]] = field(default_factory=dict)

    async def get(self, type_: str, names: Collection[str]) -> dict[str, str]:
        """What is noted. What was known before the storage is asked is read before, too: others
        forget meanwhile."""
        now = self.clock()
        known = {name: self.found.get((type_, name), ("", 0.0)) for name in names}
        values = {name: value for name, (value, until) in known.items() if until > now}
        new = [name for name in known if name not in values]
        if new:
            noted = await self.ask(type_, new)
            values |= {name: noted.get(name, "") for name in new}
            if len(self.found) + len(new) > self.most:
                self.found.clear()
            self.found |= {(type_, name): (values[name], now + _AGE) for name in new}
        return {name: value for name, value in values.items() if value}


class RowKeyResolver:
    """`mirrored`: whether rows of a resource type may have been there before this app came."""

    def __init__(
        self,
        kept: RowKeys,
        mirrored: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
        most: int = _MOST,
    ) -> None:
        self._most = most
        self._kept, self._mirrored = kept, mirrored
        self._own = _Known(kept.find_keys, clock, most)
        self._back = _Known(kept.find_ids, clock, most)
        self._noted: set[str] = set()

    async def resolve_keys(self, resources: Collection[str]) -> Mapping[str, UUID]:
        """The keys of Type/id, each with its way back noted. Raises Unavailable."""
        found: dict[str, UUID] = {}
        for type_, ids in _by_type(resources).items():
            own = await self._own.get(type_, ids) if self._mirrored(type_) else {}
            keys = {id_: own.get(id_) or derive_primary_key(type_, id_) for id_ in ids}
            await self._lead(type_, {id_: key for id_, key in keys.items() if key != id_})
            found |= {f"{type_}/{id_}": UUID(key) for id_, key in keys.items()}
        return found

    async def resolve_ids(self, type_: str, keys: Iterable[UUID]) -> Mapping[UUID, str]:
        """The ids of the resources whose rows have these keys, whether there are any or not."""
        texts = {str(key): key for key in keys}
        led = await self._back.get(type_, texts)
        return {key: led.get(text, text) for text, key in texts.items()}

    async def _lead(self, type_: str, keys: Mapping[str, str]) -> None:
        new = {id_: key for id_, key in keys.items() if f"{type_}/{id_} {key}" not in self._noted}
        if new:
            await self._kept.add_reverse(type_, new)
            for key in new.values():
                self._back.found.pop((type_, key), None)
            if len(self._noted) + len(new) > self._most:
                self._noted.clear()
            self._noted.update(f"{type_}/{id_} {key}" for id_, key in new.items())


def _by_type(resources: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in resources:
        type_, _, id_ = name.partition("/")
        found.setdefault(type_, []).append(id_)
    return found
