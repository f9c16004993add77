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
_WAITS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)


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
    UNHEARD = "unheard"  # the FHIR server may be at it still


@dataclass(slots=True)
class HeldLocks:
    """The turns that one unit of a delivery holds, by key, and what their rows told."""

    delivery: str
    unit: str  # its name, the same in every try
    token: str
    locks: dict[str, WriteLock] = field(default_factory=dict)
    found: dict[str, WriteLock] = field(default_factory=dict)  # as they were
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
    wanted = {_key(write.name): write for write in writes}
    wanted = {key: write for key, write in wanted.items() if key not in held.writes}
    # Holding some while waiting for more would let two units wait for each other.
    waits = () if held.locks else _WAITS
    for wait in (*waits, None):
        if not wanted or await _all_taken(guard, held, wanted):
            return
        await release(guard, held, {}, SendState.NOT_SENT)
        if wait is not None:
            await guard.pause(wait * (0.5 + guard.jitter()))
    raise Unavailable("order", "another delivery is writing the same resource")


def ensure_time_left(guard: WriteGuard, held: HeldLocks) -> None:
    """Raises Unavailable when a turn has too little left for a request that starts only now: it
    may be waited for, and the server busy with it for as long again."""
    ends = min((turn.until for turn in held.locks.values()), default=inf)
    if ends - guard.now() < guard.lease * 2 / 3:
        raise Unavailable("order", "the turn was nearly over before the request could start")


async def _all_taken(guard: WriteGuard, held: HeldLocks, wanted: Mapping[str, Write]) -> bool:
    known = await guard.store.read(list(wanted))
    now = guard.now()
    next_: dict[str, WriteLock] = {}
    for key, write in wanted.items():
        turn = known.get(key, WriteLock())
        if turn.until > now and turn.holder not in (held.token, held.delivery):
            return False
        held.writes[key], held.found[key] = write, turn
        if write.ordered and is_later(turn, held.delivery, write.source_version):
            held.superseded.update(write.positions)
            continue
        # A later delivery does not care how an earlier one ended; the others have to look.
        if turn.attempted_by == held.attempted_by or _delivery(turn.attempted_by) > held.delivery:
            held.attempted_at |= dict.fromkeys(write.positions, turn.attempted_at)
            held.later_deliveries.update({_delivery(turn.attempted_by)} - {held.delivery})
        else:
            turn = replace(turn, attempted_by=held.attempted_by, attempted_at=now)
        next_[key] = replace(turn, holder=held.token, until=now + guard.lease)
    written = await guard.store.write(next_)
    held.locks |= written
    return len(written) == len(next_)


async def release(
    guard: WriteGuard,
    held: HeldLocks,
    written: Mapping[int, bool],
    fate: SendState = SendState.ANSWERED,
) -> None:
    """End the turns. `written`: for each position that is settled, whether it was."""
    now = guard.now()
    ended = {key: _ended(held, key, turn, written, fate, now) for key, turn in held.locks.items()}
    for kept in (held.locks, held.found, held.writes):
        kept.clear()
    for noticed in (held.superseded, held.attempted_at, held.later_deliveries):
        noticed.clear()
    if ended:
        await guard.store.write(ended)


async def release_previous(
    guard: WriteGuard, held: HeldLocks, writes: Sequence[Write], written: Mapping[int, bool]
) -> None:
    """Give back the turns of an earlier try of this unit that noted its outcomes, and no more."""
    known = await guard.store.read([_key(write.name) for write in writes])
    left = {key for key, turn in known.items() if turn.attempted_by == held.attempted_by}
    open_ = [write for write in writes if _key(write.name) in left]
    if open_:
        await acquire(guard, held, open_)
        await release(guard, held, written)


def _ended(
    held: HeldLocks,
    key: str,
    turn: WriteLock,
    written: Mapping[int, bool],
    fate: SendState,
    now: float,
) -> WriteLock:
    write, found = held.writes[key], held.found[key]
    settled = [written[n] for n in write.positions if n in written]
    if len(settled) < len(write.positions) and fate is SendState.UNHEARD:
        return replace(turn, holder=held.delivery)  # until its lease ends; only it may try again
    # An own earlier try may still be under way: others have to wait for its end.
    flying = found.holder == held.delivery and found.until > now
    free = replace(turn, holder=found.holder, until=found.until) if flying else _free(turn)
    if len(settled) < len(write.positions):
        unsent = fate is SendState.NOT_SENT
        return (
            replace(free, attempted_by=found.attempted_by, attempted_at=found.attempted_at)
            if unsent
            else free
        )
    # What another has tried stays to be looked at, unless this write has come after it.
    if any(settled) or turn.attempted_by == held.attempted_by:
        free = replace(free, attempted_by="", attempted_at=0.0)
    if not (any(settled) and write.ordered):
        return free
    return replace(free, delivery=held.delivery, source_version=write.source_version)


def _delivery(trier: str) -> str:
    return trier.partition(" ")[0]


def _free(turn: WriteLock) -> WriteLock:
    return replace(turn, holder="", until=0.0)


async def record_writes(guard: WriteGuard, delivery: str, stamps: Mapping[str, str | None]) -> None:
    """Note who has written what only the answer named: the stamp by Type/id."""
    if not stamps:
        return
    keys = {_key(name): stamp for name, stamp in stamps.items()}
    known = await guard.store.read(list(keys))
    late = {
        key: replace(known.get(key, WriteLock()), delivery=delivery, source_version=stamp)
        for key, stamp in keys.items()
        if not is_later(known.get(key, WriteLock()), delivery, stamp)
    }
    # A row that is lost to another now belongs to a writer who has found this very write.
    await guard.store.write(late)


def is_later(turn: WriteLock, delivery: str, stamp: str | None) -> bool:
    """Whether the last write of a resource comes after one of `delivery` in order. Pure."""
    if (
        turn.source_version
        and stamp
        and turn.source_version[0] == stamp[0]
        and turn.source_version != stamp
    ):
        return turn.source_version > stamp
    return turn.delivery > delivery


def _key(name: str) -> str:
    """A query may hold an identifier of a patient, and a table must not."""
    return hashlib.sha256(name.encode()).hexdigest()
