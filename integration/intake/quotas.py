"""How much each sender may send: requests and bytes a minute, to this instance of the app."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from integration.core.errors import Issue, Rejected
from integration.senders.model import Sender

_MINUTE = 60.0


@dataclass(slots=True)
class _Bucket:
    """Fills evenly up to its size, which is what a minute allows: a token bucket.

    What is larger than the bucket is taken from a full one, and has the next wait for longer.
    """

    size: float
    level: float
    filled: float  # when it was last looked at

    def fill(self, now: float) -> None:
        added = (now - self.filled) * self.size / _MINUTE
        self.level, self.filled = min(self.size, self.level + added), now

    def get_wait(self, amount: float) -> float:
        """Return the seconds until so much can be taken; 0: now."""
        missing = min(amount, self.size) - self.level
        return max(missing, 0) * _MINUTE / self.size


@dataclass(slots=True)
class Quotas:
    """The buckets of all senders. `clock` in seconds, and never set back."""

    clock: Callable[[], float]
    _buckets: dict[tuple[str, str], _Bucket] = field(default_factory=dict)

    def take(self, sender: Sender, size: int) -> None:
        """Take a request of so many bytes from what its sender may send. Raises Rejected, with 429
        and Retry-After, and takes nothing, if that is too much."""
        quota, now = sender.quota, self.clock()
        wanted = [
            (self._find(sender.name, name, limit, now), amount)
            for name, limit, amount in (
                ("requests", quota.requests_per_minute, 1),
                ("bytes", quota.bytes_per_minute, size),
            )
            if limit is not None
        ]
        wait = max((bucket.get_wait(amount) for bucket, amount in wanted), default=0)
        if wait > 0:
            text = "this sender has sent what it may in a minute: send the request again later"
            headers = {"Retry-After": str(math.ceil(wait))}
            raise Rejected(Issue("throttled", text), status=429, headers=headers)
        for bucket, amount in wanted:
            bucket.level -= amount

    def _find(self, sender: str, name: str, limit: int, now: float) -> _Bucket:
        bucket = self._buckets.setdefault((sender, name), _Bucket(limit, limit, now))
        bucket.fill(now)
        return bucket
