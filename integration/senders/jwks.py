"""The public keys of an issuer, kept while they serve."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from integration.core.errors import Unavailable
from integration.senders.proofs.jwk_set import NoKeySet, parse_key_set

# Returns the body of a GET. Raises Unavailable, within its own time limit.
Fetch = Callable[[str], Awaitable[bytes]]

MAX_BYTES = 262_144

# Seconds that keys are taken as they are, without asking anew.
_FRESH = 300.0
# Seconds between two requests, so that whoever sends tokens with made-up keys causes no more.
_PAUSE = 60.0
_PAUSE_AFTER_FAILURE = 10.0
# Seconds that keys serve on while the issuer does not answer.
_LAST = 86_400.0


class KeySet:
    """The keys at one address. `clock`: seconds, which never go back."""

    def __init__(self, url: str, fetch: Fetch, clock: Callable[[], float] = time.monotonic) -> None:
        self._url, self._fetch, self._clock = url, fetch, clock
        self._keys: Mapping[str, Mapping[str, str]] = {}
        self._fetched: float | None = None  # when the keys were fetched
        self._ask_from: float | None = None  # when the issuer may be asked again
        self._why = "it has not been asked yet"
        self._lock = asyncio.Lock()

    async def get(self, key_id: str) -> Mapping[str, Mapping[str, str]]:
        """Return the issuer's keys by their ids; `key_id`, if the issuer has published it, is among
        them. Raises Unavailable if there are no keys and the issuer does not give any."""
        if self._must_ask(key_id):
            # Those who wait find what the first of them has fetched.
            async with self._lock:
                if self._must_ask(key_id):
                    await self._ask()
        if self._fetched is None or self._clock() - self._fetched > _LAST:
            raise Unavailable("the sender's issuer", self._why, _PAUSE_AFTER_FAILURE)
        return self._keys

    def _must_ask(self, key_id: str) -> bool:
        now = self._clock()
        is_fresh = self._fetched is not None and now - self._fetched <= _FRESH
        is_paused = self._ask_from is not None and now < self._ask_from
        return not is_paused and not (is_fresh and key_id in self._keys)

    async def _ask(self) -> None:
        """Ask the issuer. What it does not answer leaves the keys as they are."""
        try:
            body = await self._fetch(self._url)
            if len(body) > MAX_BYTES:
                raise NoKeySet(f"the answer has more than {MAX_BYTES} bytes")
            self._keys = parse_key_set(body)
        except (Unavailable, NoKeySet) as error:
            self._why = error.why if isinstance(error, Unavailable) else str(error)
            self._ask_from = self._clock() + _PAUSE_AFTER_FAILURE
        else:
            self._fetched = self._clock()
            self._ask_from = self._fetched + _PAUSE
