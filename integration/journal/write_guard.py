"""Each resource has one writer at a time, and no earlier delivery writes it after a later one.

Only for what senders name themselves: nobody else knows the id of what a delivery creates.
docs/decisions/0006-the-order-of-deliveries.md says why it is done so, and what it costs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from math import inf

from integration.core.errors import Unavailable
from integration.journal.guard_store import GuardStore, WriteLock

# How long a unit waits for another to end, in seconds, before its claim goes back to the queue.
_RETRY_DELAYS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)


@dataclass(frozen=True, slots=True)
class Write:
    """A write that needs its turn. `name`: Type/id, or the Type?query of a conditional one."""

    name: str
    positions: tuple[int, ...]
    source_version: str | None = None  # what the source says of its place in order
    ordered: bool = True  # False: it must be alone, but is neither earlier nor later than others


class SendState(Enum):
    """How far a unit has come when its turns end."""

    NOT_SENT = "not sent"
    ANSWERED = "answered"
    UNANSWERED = "unheard"  # the FHIR server may be at it still


@dataclass(slots=True)
class HeldLocks:
    """The turns that one unit of a delivery holds, by key, and what their rows told."""

    delivery: str
    unit: str  # its name, the same in every try
    token: str
    locks: dict[str, WriteLock] = field(default_factory=dict)
    previous: dict[str, WriteLock] = field(default_factory=dict)  # as they were
    writes: dict[str, Write] = field(default_factory=dict)
    superseded: set[int] = field(default_factory=set)  # positions
    # when a try whose end is not known began, by position: seconds since 1970
    attempted_at: dict[int, float] = field(default_factory=dict)
    later_deliveries: set[str] = field(default_factory=set)  # later deliveries that tried, by id

    @property
    def attempted_by(self) -> str:
        """As rows name it: an earlier unit of the delivery may have written the resource too."""
        return f"{self.delivery} {self.unit}"


@dataclass(frozen=True, slots=True)
class WriteGuard:
    """What taking turns needs. `now` in seconds since 1970; `lease` in seconds, longer than the
    FHIR server can be busy with a request whose answer was lost."""

    store: GuardStore
    lease: float
    now: Callable[[], float]
    token: Callable[[], str]
    pause: Callable[[float], Awaitable[object]]
    jitter: Callable[[], float]


async def acquire(guard: WriteGuard, held: HeldLocks, writes: Sequence[Write]) -> None:
    """Add the turns of `writes`. Raises Unavailable, holding none, while others hold one."""
    required = {_hash_name(write.name): write for write in writes}
    required = {key: write for key, write in required.items() if key not in held.writes}
    # Holding some while waiting for more would let two units wait for each other.
    delays = () if held.locks else _RETRY_DELAYS
    for delay in (*delays, None):
        if not required or await _try_acquire(guard, held, required):
            return
        await release(guard, held, {}, SendState.NOT_SENT)
        if delay is not None:
            await guard.pause(delay * (0.5 + guard.jitter()))
    raise Unavailable("order", "another delivery is writing the same resource")


def ensure_time_left(guard: WriteGuard, held: HeldLocks) -> None:
    """Raises Unavailable when a turn has too little left for a request that starts only now: it
    may be waited for, and the server busy with it for as long again."""
    expires_at = min((lock.expires_at for lock in held.locks.values()), default=inf)
    if expires_at - guard.now() < guard.lease * 2 / 3:
        raise Unavailable("order", "the turn was nearly over before the request could start")


async def _try_acquire(guard: WriteGuard, held: HeldLocks, required: Mapping[str, Write]) -> bool:
    existing = await guard.store.read(list(required))
    now = guard.now()
    acquired: dict[str, WriteLock] = {}
    for key, write in required.items():
        lock = existing.get(key, WriteLock())
        if lock.expires_at > now and lock.holder not in (held.token, held.delivery):
            return False
        held.writes[key], held.previous[key] = write, lock
        if write.ordered and is_later(lock, held.delivery, write.source_version):
            held.superseded.update(write.positions)
            continue
        # A later delivery does not care how an earlier one ended; the others have to look.
        if (
            lock.attempted_by == held.attempted_by
            or _get_delivery(lock.attempted_by) > held.delivery
        ):
            held.attempted_at |= dict.fromkeys(write.positions, lock.attempted_at)
            held.later_deliveries.update({_get_delivery(lock.attempted_by)} - {held.delivery})
        else:
            lock = replace(lock, attempted_by=held.attempted_by, attempted_at=now)
        acquired[key] = replace(lock, holder=held.token, expires_at=now + guard.lease)
    written = await guard.store.write(acquired)
    held.locks |= written
    return len(written) == len(acquired)


async def release(
    guard: WriteGuard,
    held: HeldLocks,
    written: Mapping[int, bool],
    state: SendState = SendState.ANSWERED,
) -> None:
    """End the turns. `written`: for each position that is settled, whether it was."""
    now = guard.now()
    released = {
        key: _build_released_lock(held, key, lock, written, state, now)
        for key, lock in held.locks.items()
    }
    for by_key in (held.locks, held.previous, held.writes):
        by_key.clear()
    for notes in (held.superseded, held.attempted_at, held.later_deliveries):
        notes.clear()
    if released:
        await guard.store.write(released)


async def release_previous(
    guard: WriteGuard, held: HeldLocks, writes: Sequence[Write], written: Mapping[int, bool]
) -> None:
    """Give back the turns of an earlier try of this unit that noted its outcomes, and no more."""
    existing = await guard.store.read([_hash_name(write.name) for write in writes])
    unreleased = {key for key, lock in existing.items() if lock.attempted_by == held.attempted_by}
    remaining = [write for write in writes if _hash_name(write.name) in unreleased]
    if remaining:
        await acquire(guard, held, remaining)
        await release(guard, held, written)


def _build_released_lock(
    held: HeldLocks,
    key: str,
    lock: WriteLock,
    written: Mapping[int, bool],
    state: SendState,
    now: float,
) -> WriteLock:
    write, previous = held.writes[key], held.previous[key]
    settled = [written[n] for n in write.positions if n in written]
    if len(settled) < len(write.positions) and state is SendState.UNANSWERED:
        return replace(lock, holder=held.delivery)  # until its lease ends; only it may try again
    # An own earlier try may still be under way: others have to wait for its end.
    in_flight = previous.holder == held.delivery and previous.expires_at > now
    released = (
        replace(lock, holder=previous.holder, expires_at=previous.expires_at)
        if in_flight
        else _clear_holder(lock)
    )
    if len(settled) < len(write.positions):
        not_sent = state is SendState.NOT_SENT
        return (
            replace(
                released, attempted_by=previous.attempted_by, attempted_at=previous.attempted_at
            )
            if not_sent
            else released
        )
    # What another has tried stays to be looked at, unless this write has come after it.
    if any(settled) or lock.attempted_by == held.attempted_by:
        released = replace(released, attempted_by="", attempted_at=0.0)
    if not (any(settled) and write.ordered):
        return released
    return replace(released, written_by=held.delivery, source_version=write.source_version)


def _get_delivery(attempted_by: str) -> str:
    return attempted_by.partition(" ")[0]


def _clear_holder(lock: WriteLock) -> WriteLock:
    return replace(lock, holder="", expires_at=0.0)


async def record_writes(
    guard: WriteGuard, delivery: str, source_versions: Mapping[str, str | None]
) -> None:
    """Note who has written what only the answer named: the stamp by Type/id."""
    if not source_versions:
        return
    by_key = {_hash_name(name): source_version for name, source_version in source_versions.items()}
    existing = await guard.store.read(list(by_key))
    updated = {
        key: replace(
            existing.get(key, WriteLock()), written_by=delivery, source_version=source_version
        )
        for key, source_version in by_key.items()
        if not is_later(existing.get(key, WriteLock()), delivery, source_version)
    }
    # A row that is lost to another now belongs to a writer who has found this very write.
    await guard.store.write(updated)


def is_later(lock: WriteLock, delivery: str, source_version: str | None) -> bool:
    """Whether the last write of a resource comes after one of `delivery` in order. Pure."""
    if (
        lock.source_version
        and source_version
        and lock.source_version[0] == source_version[0]
        and lock.source_version != source_version
    ):
        return lock.source_version > source_version
    return lock.written_by > delivery


def _hash_name(name: str) -> str:
    """A query may hold an identifier of a patient, and a table must not."""
    return hashlib.sha256(name.encode()).hexdigest()
