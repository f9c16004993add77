"""The configuration in use: the documents of the package, with those of the latest version in their
place.

Each worker looks for a later version every few seconds of work, which costs one storage operation,
and reads only the documents that it does not know yet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from integration.core.errors import Misconfigured, Unavailable
from integration.core.log_events import log_event
from integration.journal.configuration import (
    LEFT_OUT,
    ConfigurationStore,
    ConfigurationVersion,
)

# Seconds after which a worker looks again. With what a request to storage takes, every worker works
# by a new version within SPREAD_SECONDS; what it has begun by then it ends as it began.
_LOOK_SECONDS = 10.0
SPREAD_SECONDS = 15.0


# The origin of documents that the latest version has.
PUBLISHED = "published"


@dataclass(frozen=True, slots=True)
class Document:
    """A document. `origin`: PUBLISHED, or what of the package has it: the name of a set of maps or
    of a file; None: the organisation's own folder of maps."""

    text: str
    origin: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A version, and all documents that are in use with it, by name."""

    version: ConfigurationVersion
    documents: Mapping[str, Document]


@dataclass(slots=True, kw_only=True)
class LiveConfiguration:
    """What the app is configured with now. `package`: the documents of version 0 by name; `clock`:
    in seconds."""

    store: ConfigurationStore
    package: Mapping[str, Document]
    clock: Callable[[], float] = time.monotonic
    _texts: dict[str, str] = field(default_factory=dict)  # by digest
    _current: Configuration | None = None
    _looked_at: float = 0.0
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def get(self) -> Configuration:
        """Return the configuration in use. While the storage does not answer, it is the last one
        that is known. Raises Unavailable where none is known."""
        if self._current is None or self.clock() >= self._looked_at + _LOOK_SECONDS:
            async with self._looking:
                if self._current is None:
                    return await self._look()
                if self.clock() >= self._looked_at + _LOOK_SECONDS:
                    await self._look_if_possible()
        return self._current

    async def refresh(self) -> Configuration:
        """Return the configuration as the storage has it now. Raises Unavailable."""
        async with self._looking:
            return await self._look()

    async def read(self, version: ConfigurationVersion) -> Configuration:
        """Return a configuration, whether it is in use or not. Raises Unavailable, and
        Misconfigured where a document of it is lost."""
        documents = dict(self.package)
        for name, digest in version.documents.items():
            if digest == LEFT_OUT:
                documents.pop(name, None)
            else:
                documents[name] = Document(await self.read_text(digest), PUBLISHED)
        return Configuration(version=version, documents=documents)

    async def read_text(self, digest: str) -> str:
        """Return a document that was published or drafted. Raises Unavailable, or Misconfigured
        where it is lost."""
        if digest not in self._texts:
            text = await self.store.read_document(digest)
            if text is None:
                raise Misconfigured(
                    f"the storage has lost a document of the configuration ({digest[:12]}): "
                    "publish it again"
                )
            self._texts[digest] = text
        return self._texts[digest]

    async def _look(self) -> Configuration:
        """Read the latest version. The time counts from before that: nobody uses one for longer."""
        now = self.clock()
        latest = await self.store.read_latest()
        if self._current is None or latest != self._current.version:
            self._current = await self.read(latest)
        self._looked_at = now
        return self._current

    async def _look_if_possible(self) -> None:
        try:
            await self._look()
        except Unavailable as error:
            # What works with the configuration needs the storage, too, and says so itself. Looking
            # must not be what fails a work item, which would be counted as an attempt.
            log_event("configuration.not_refreshed", reason=str(error))
            self._looked_at = self.clock()
