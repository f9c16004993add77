"""Where claims are queued, and when a claim that failed comes back. The queue sender is here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

import msgspec

from integration.core.errors import IntegrationError, Misconfigured, Unavailable
from integration.core.model import Claim
from integration.journal.azure_errors import storage_errors

# By resource type, the queue that hears of each change.
Followed = Callable[[], Awaitable[Mapping[str, str]]]

_claim = msgspec.json.Decoder(Claim)

# Doubled at each attempt, up to the longest; the longest is also the pause for an operator.
_FIRST_DELAY = 2.0
_LONGEST_DELAY = 15 * 60.0


class Outbox(Protocol):
    """Queues claims. Raises Unavailable when the queue cannot take one."""

    async def send(self, queue: str, claim: Claim, delay: float = 0) -> None:
        """Queue `claim`, invisible for `delay` seconds."""


def read_claim(body: bytes) -> Claim:
    """The claim in a queue message. Raises msgspec.DecodeError for what is no claim."""
    return _claim.decode(body)


@dataclass(frozen=True, slots=True)
class PutBack:
    """A failed claim, to be tried again after `delay` seconds; None: given up on, park it."""

    claim: Claim
    delay: float | None


def put_back(claim: Claim, error: IntegrationError, now: datetime, max_age: float) -> PutBack:
    """When a claim comes back after `error`. Pure.

    The delay grows; a neighbour's own wish is obeyed; only age ends it, never a count.
    """
    since = claim.since if claim.since is not None else now.timestamp()
    delay = min(_FIRST_DELAY * 2 ** min(claim.attempt, 16), _LONGEST_DELAY)
    if isinstance(error, Misconfigured):
        delay = _LONGEST_DELAY
    if isinstance(error, Unavailable) and error.retry_after is not None:
        delay = max(delay, error.retry_after)
    again = replace(claim, attempt=claim.attempt + 1, since=since)
    if now.timestamp() + delay - since > max_age:
        return PutBack(again, None)
    return PutBack(again, delay)


@dataclass(slots=True)
class MemoryOutbox:
    """The double: claims in a list, in the order they were sent."""

    sent: list[tuple[str, Claim, float]] = field(default_factory=list)

    async def send(self, queue: str, claim: Claim, delay: float = 0) -> None:
        self.sent.append((queue, claim, delay))


@dataclass(frozen=True, slots=True)
class StorageOutbox:
    """Azure Storage queues. `queue_client` opens one by name: wiring knows how."""

    queue_client: Callable[[str], Any]

    async def send(self, queue: str, claim: Claim, delay: float = 0) -> None:
        body = msgspec.json.encode(claim).decode()
        async with storage_errors():
            # https://learn.microsoft.com/rest/api/storageservices/put-message: whole seconds
            await self.queue_client(queue).send_message(body, visibility_timeout=round(delay))
