"""Where the write guard keeps its locks and claims.

A lock is a row of one name. The row outlives its lock: it says who may write by the name now, which
delivery did so last, and whose attempt may still be at work. A claim is a row of one unit, with
all names of its first writes; it is deleted with the unit's end. Both hold digests of names, so
that they hold no identifier of a patient. docs/decisions/0020-the-resource-carries-the-order.md
says why there is a guard, docs/decisions/0030-a-unit-claims-its-first-writes.md why there are two
kinds of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

# Seconds after which housekeeping deletes what was recorded as written, and claims that have ended:
# far longer than the reads of a FHIR server lag.
MEMORY = 3600.0

DIGEST_BYTES = 8  # of a name in a claim: 500 of them are 4 KB, and two hardly ever meet


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteLock:
    """The row of one resource. Times are seconds since 1970.

    `holder` is empty while the lock is free. Else it is the token of the unit that holds the lock,
    or, after an answer was lost, the id of the delivery that alone may acquire it again. A lock
    that has expired is free, whatever its holder.

    Delivery ids sort by the time of acceptance, so that ids say which delivery is later.
    """

    holder: str = ""
    expires_at: float = 0.0
    written_by: str = ""  # the delivery that wrote the resource last
    source_version: str | None = None  # where the source places that write among others, if it does
    attempted_by: str = ""  # "delivery unit" whose attempt has no known end
    etag: str | None = None  # None: the row does not exist yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The row of one unit: the names that it alone may write for the first time.

    `holder` and `expires_at`: as in a WriteLock. `names`: their digests.
    """

    holder: str
    expires_at: float
    names: frozenset[bytes]
    etag: str | None = None  # None: the row does not exist yet


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimTable:
    """All claims, by unit. `newest_delete`: the latest delivery that has locked a delete. `recent`:
    the digests of names that were written for the first time just now."""

    claims: Mapping[str, Claim]
    newest_delete: str = ""
    recent: frozenset[bytes] = frozenset()


class GuardStore(Protocol):
    """Every method raises Unavailable when the storage does not answer."""

    async def read(self, keys: Sequence[str]) -> dict[str, WriteLock]:
        """Return the rows that exist."""

    async def write(self, locks: Mapping[str, WriteLock]) -> dict[str, WriteLock]:
        """Write each row if nobody has written it since it was read. Return the rows that were
        written, with their new etags."""

    async def delete_old(self, before: str, now: float, limit: int) -> int:
        """Delete up to `limit` free rows that only deliveries before this id have written or
        attempted, and the claims that expired long ago. Return how many were deleted."""

    async def read_claims(self, since: float) -> ClaimTable:
        """Return all claims, and the names that were recorded since then. There are as many as
        units that write for the first time just now."""

    async def write_claim(self, unit: str, claim: Claim) -> Claim | None:
        """Write the claim of a unit if nobody has written it since it was read. Return it with its
        new etag, or None."""

    async def delete_claim(
        self, unit: str, claim: Claim, written: frozenset[bytes] = frozenset(), now: float = 0
    ) -> None:
        """Delete the claim of a unit if nobody has written it since it was read. Record the digests
        of names that the unit has, or may have, written for the first time."""

    async def record_written(self, unit: str, written: frozenset[bytes], now: float) -> None:
        """Record such names without deleting the claim."""

    async def record_delete(self, delivery: str) -> None:
        """Record that this delivery locks a delete, unless a later one did."""


@dataclass(slots=True)
class MemoryGuardStore:
    """The same contract in a dictionary, for tests."""

    locks: dict[str, WriteLock] = field(default_factory=dict)
    claims: dict[str, Claim] = field(default_factory=dict)
    newest_delete: str = ""
    recent: dict[tuple[float, str], frozenset[bytes]] = field(default_factory=dict)
    writes: int = 0

    async def read(self, keys: Sequence[str]) -> dict[str, WriteLock]:
        return {key: self.locks[key] for key in keys if key in self.locks}

    async def write(self, locks: Mapping[str, WriteLock]) -> dict[str, WriteLock]:
        written = {}
        for key, lock in locks.items():
            current = self.locks.get(key)
            if (current.etag if current else None) == lock.etag:
                self.writes += 1
                self.locks[key] = written[key] = replace(lock, etag=str(self.writes))
        return written

    async def delete_old(self, before: str, now: float, limit: int) -> int:
        old = [key for key, lock in self.locks.items() if is_old(lock, before, now)][:limit]
        for key in old:
            del self.locks[key]
        expired = [unit for unit, claim in self.claims.items() if claim.expires_at < now - MEMORY]
        for unit in expired:
            del self.claims[unit]
        self.recent = {key: names for key, names in self.recent.items() if key[0] >= now - MEMORY}
        return len(old) + len(expired)

    async def read_claims(self, since: float) -> ClaimTable:
        recent = (names for (time, _), names in self.recent.items() if time >= since)
        return ClaimTable(
            claims=dict(self.claims),
            newest_delete=self.newest_delete,
            recent=frozenset().union(*recent),
        )

    async def write_claim(self, unit: str, claim: Claim) -> Claim | None:
        current = self.claims.get(unit)
        if (current.etag if current else None) != claim.etag:
            return None
        self.writes += 1
        self.claims[unit] = replace(claim, etag=str(self.writes))
        return self.claims[unit]

    async def delete_claim(
        self, unit: str, claim: Claim, written: frozenset[bytes] = frozenset(), now: float = 0
    ) -> None:
        await self.record_written(unit, written, now)
        current = self.claims.get(unit)
        if current is not None and current.etag == claim.etag:
            del self.claims[unit]

    async def record_written(self, unit: str, written: frozenset[bytes], now: float) -> None:
        if written:
            self.recent[now, unit] = written

    async def record_delete(self, delivery: str) -> None:
        self.newest_delete = max(self.newest_delete, delivery)


def is_old(lock: WriteLock, before: str, now: float) -> bool:
    """Whether no delivery that is still kept can need this row. Pure."""
    return lock.written_by < before and lock.attempted_by < before and lock.expires_at < now
