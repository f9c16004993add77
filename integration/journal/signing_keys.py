"""Keys that every worker signs with: their contract, an implementation in memory, and a cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

# The key for the addresses of next pages of the feed.
SKIP_TOKENS = "skiptokens"


class SigningKeys(Protocol):
    """Every method raises Unavailable when the storage does not answer."""

    async def read_or_add(self, name: str, new_key: bytes) -> bytes:
        """Return the key of this name. Where there is none, `new_key` becomes it; of two workers
        that add one at the same time both get the same."""


@dataclass(slots=True)
class SigningKey:
    """A key of a worker, which is read at its first use and never changes."""

    store: SigningKeys
    name: str
    make_key: Callable[[], bytes]
    _key: bytes | None = None

    async def get(self) -> bytes:
        """Return the key. Raises Unavailable."""
        if self._key is None:
            self._key = await self.store.read_or_add(self.name, self.make_key())
        return self._key


@dataclass(slots=True)
class MemorySigningKeys:
    """The same contract in a dictionary, for tests."""

    keys: dict[str, bytes] = field(default_factory=dict)

    async def read_or_add(self, name: str, new_key: bytes) -> bytes:
        return self.keys.setdefault(name, new_key)
