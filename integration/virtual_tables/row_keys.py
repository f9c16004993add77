"""Find the key of a resource's row, and the resource of a key, with a cache for one worker.

The key is the resource's id where that is a GUID, else it is derived from the id. A client may
query by a derived key that it has seen, so the id of a derived key is stored before the key is
shown. A contact may have another key, which the mirror has stored. What it has stored for a key
stands: a key that a person has given to another resource is not shown for the first one any more.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from integration.journal.row_keys import RowKeys
from integration.mapping.primary_keys import ServerKeys, derive_primary_key

# Entries of one cache, at most, and seconds that an entry is used.
_MAX_ENTRIES = 20_000
_CACHE_SECONDS = 30.0

_PLAIN_KEYS = ServerKeys()

# Stands for a type: keys that are derived with it are those of no row.
_NO_ROW = "no row"

# Reads from the store what it has for these names, of one resource type.
_Load = Callable[[str, Collection[str]], Awaitable[Mapping[str, str]]]


@dataclass(slots=True)
class _Cache:
    """What the store answered, by resource type and name; "" where it had nothing."""

    load: _Load
    clock: Callable[[], float]
    max_entries: int
    entries: dict[tuple[str, str], tuple[str, float]] = field(default_factory=dict)

    async def get(self, type_: str, names: Collection[str]) -> dict[str, str]:
        """Return what the store has for these names.

        Cached values are taken before the store is read, because other tasks may clear the cache
        meanwhile.
        """
        now = self.clock()
        cached = {name: self.entries.get((type_, name), ("", 0.0)) for name in names}
        values = {name: value for name, (value, until) in cached.items() if until > now}
        missing = [name for name in cached if name not in values]
        if missing:
            loaded = await self.load(type_, missing)
            values |= {name: loaded.get(name, "") for name in missing}
            if len(self.entries) + len(missing) > self.max_entries:
                self.entries.clear()
            self.entries |= {
                (type_, name): (values[name], now + _CACHE_SECONDS) for name in missing
            }
        return {name: value for name, value in values.items() if value}


class RowKeyResolver:
    """Finds keys and ids.

    `is_mirrored`: whether the mirror may have stored keys for the rows of a resource type.
    `server_keys`: how it derives the others.
    """

    def __init__(
        self,
        store: RowKeys,
        is_mirrored: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
        max_entries: int = _MAX_ENTRIES,
        *,
        server_keys: ServerKeys = _PLAIN_KEYS,
    ) -> None:
        self._server_keys = server_keys
        self._max_entries = max_entries
        self._store, self._is_mirrored = store, is_mirrored
        self._keys = _Cache(store.find_keys, clock, max_entries)
        self._ids = _Cache(store.find_ids, clock, max_entries)
        self._recorded: set[str] = set()

    async def resolve_keys(self, resources: Collection[str]) -> Mapping[str, UUID]:
        """Return the keys of the rows of `Type/id`, and store the ids of derived keys.

        Raises Unavailable.
        """
        resolved: dict[str, UUID] = {}
        for type_, ids in _group_by_type(resources).items():
            if self._is_mirrored(type_):
                keys = await self._find_row_keys(type_, ids)
            else:
                keys = {id_: self._server_keys.derive(type_, id_) for id_ in ids}
            await self._record_ids(type_, {id_: key for id_, key in keys.items() if key != id_})
            resolved |= {f"{type_}/{id_}": UUID(key) for id_, key in keys.items()}
        return resolved

    async def _find_row_keys(self, type_: str, ids: Collection[str]) -> dict[str, str]:
        """Return the keys of the rows that the mirror writes. A resource whose key is another one's
        by now gets one that no row has: a lookup must not lead to somebody else."""
        recorded = await self._keys.get(type_, ids)
        keys = {id_: recorded.get(id_) or self._server_keys.derive(type_, id_) for id_ in ids}
        owners = await self._ids.get(type_, list(dict.fromkeys(keys.values())))
        return {
            id_: key
            if owners.get(key, id_) == id_
            else derive_primary_key(_NO_ROW, f"{type_}/{id_}")
            for id_, key in keys.items()
        }

    async def resolve_ids(self, type_: str, keys: Iterable[UUID]) -> Mapping[UUID, str]:
        """Return the ids that resources with these keys have, whether they exist or not."""
        texts = {str(key): key for key in keys}
        recorded = await self._ids.get(type_, texts)
        return {key: recorded.get(text, text) for text, key in texts.items()}

    async def _record_ids(self, type_: str, keys: Mapping[str, str]) -> None:
        new = {
            id_: key for id_, key in keys.items() if f"{type_}/{id_} {key}" not in self._recorded
        }
        if new:
            await self._store.add_reverse(type_, new)
            for key in new.values():
                self._ids.entries.pop((type_, key), None)
            if len(self._recorded) + len(new) > self._max_entries:
                self._recorded.clear()
            self._recorded.update(f"{type_}/{id_} {key}" for id_, key in new.items())


def _group_by_type(resources: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in resources:
        type_, _, id_ = name.partition("/")
        groups.setdefault(type_, []).append(id_)
    return groups
