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
from integration.journal.guard_store import Ledger, Turn

# How long a unit waits for another to end, in seconds, before its claim goes back to the queue.
_WAITS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)


@dataclass(frozen=True, slots=True)
class Write:
    """A write that needs its turn. `name`: Type/id, or the Type?query of a conditional one."""

    name: str
    positions: tuple[int, ...]
    stamp: str | None = None  # what the source says of its place in order
    ordered: bool = True  # False: it must be alone, but is neither earlier nor later than others


class Fate(Enum):
    """How far a unit has come when its turns end."""

    NOT_SENT = "not sent"
    ANSWERED = "answered"
    UNHEARD = "unheard"  # the FHIR server may be at it still


@dataclass(slots=True)
class Taken:
    """The turns that one unit of a delivery holds, by key, and what their rows told."""

    delivery: str
    unit: str  # its name, the same in every try
    token: str
    turns: dict[str, Turn] = field(default_factory=dict)
    found: dict[str, Turn] = field(default_factory=dict)  # as they were
    writes: dict[str, Write] = field(default_factory=dict)
    superseded: set[int] = field(default_factory=set)  # positions
    # when a try whose end is not known began, by position: seconds since 1970
    tried: dict[int, float] = field(default_factory=dict)
    rivals: set[str] = field(default_factory=set)  # later deliveries that tried, by id

    @property
    def trier(self) -> str:
        """As rows name it: an earlier unit of the delivery may have written the resource too."""
        return f"{self.delivery} {self.unit}"


@dataclass(frozen=True, slots=True)
class Order:
    """What taking turns needs. `now` in seconds since 1970; `lease` in seconds, longer than the
    FHIR server can be busy with a request whose answer was lost."""

    ledger: Ledger
    lease: float
    now: Callable[[], float]
    token: Callable[[], str]
    pause: Callable[[float], Awaitable[object]]
    jitter: Callable[[], float]


async def take(order: Order, taken: Taken, writes: Sequence[Write]) -> None:
    """Add the turns of `writes`. Raises Unavailable, holding none, while others hold one."""
    wanted = {_key(write.name): write for write in writes}
    wanted = {key: write for key, write in wanted.items() if key not in taken.writes}
    # Holding some while waiting for more would let two units wait for each other.
    waits = () if taken.turns else _WAITS
    for wait in (*waits, None):
        if not wanted or await _all_taken(order, taken, wanted):
            return
        await give_back(order, taken, {}, Fate.NOT_SENT)
        if wait is not None:
            await order.pause(wait * (0.5 + order.jitter()))
    raise Unavailable("order", "another delivery is writing the same resource")


def check(order: Order, taken: Taken) -> None:
    """Raises Unavailable when a turn has too little left for a request that starts only now: it
    may be waited for, and the server busy with it for as long again."""
    ends = min((turn.until for turn in taken.turns.values()), default=inf)
    if ends - order.now() < order.lease * 2 / 3:
        raise Unavailable("order", "the turn was nearly over before the request could start")


async def _all_taken(order: Order, taken: Taken, wanted: Mapping[str, Write]) -> bool:
    known = await order.ledger.read(list(wanted))
    now = order.now()
    next_: dict[str, Turn] = {}
    for key, write in wanted.items():
        turn = known.get(key, Turn())
        if turn.until > now and turn.holder not in (taken.token, taken.delivery):
            return False
        taken.writes[key], taken.found[key] = write, turn
        if write.ordered and is_later(turn, taken.delivery, write.stamp):
            taken.superseded.update(write.positions)
            continue
        # A later delivery does not care how an earlier one ended; the others have to look.
        if turn.trier == taken.trier or _delivery(turn.trier) > taken.delivery:
            taken.tried |= dict.fromkeys(write.positions, turn.tried)
            taken.rivals.update({_delivery(turn.trier)} - {taken.delivery})
        else:
            turn = replace(turn, trier=taken.trier, tried=now)
        next_[key] = replace(turn, holder=taken.token, until=now + order.lease)
    written = await order.ledger.write(next_)
    taken.turns |= written
    return len(written) == len(next_)


async def give_back(
    order: Order, taken: Taken, written: Mapping[int, bool], fate: Fate = Fate.ANSWERED
) -> None:
    """End the turns. `written`: for each position that is settled, whether it was."""
    now = order.now()
    ended = {key: _ended(taken, key, turn, written, fate, now) for key, turn in taken.turns.items()}
    for kept in (taken.turns, taken.found, taken.writes):
        kept.clear()
    for noticed in (taken.superseded, taken.tried, taken.rivals):
        noticed.clear()
    if ended:
        await order.ledger.write(ended)


async def end(
    order: Order, taken: Taken, writes: Sequence[Write], written: Mapping[int, bool]
) -> None:
    """Give back the turns of an earlier try of this unit that noted its outcomes, and no more."""
    known = await order.ledger.read([_key(write.name) for write in writes])
    left = {key for key, turn in known.items() if turn.trier == taken.trier}
    open_ = [write for write in writes if _key(write.name) in left]
    if open_:
        await take(order, taken, open_)
        await give_back(order, taken, written)


def _ended(
    taken: Taken, key: str, turn: Turn, written: Mapping[int, bool], fate: Fate, now: float
) -> Turn:
    write, found = taken.writes[key], taken.found[key]
    settled = [written[n] for n in write.positions if n in written]
    if len(settled) < len(write.positions) and fate is Fate.UNHEARD:
        return replace(turn, holder=taken.delivery)  # until its lease ends; only it may try again
    # An own earlier try may still be under way: others have to wait for its end.
    flying = found.holder == taken.delivery and found.until > now
    free = replace(turn, holder=found.holder, until=found.until) if flying else _free(turn)
    if len(settled) < len(write.positions):
        unsent = fate is Fate.NOT_SENT
        return replace(free, trier=found.trier, tried=found.tried) if unsent else free
    # What another has tried stays to be looked at, unless this write has come after it.
    if any(settled) or turn.trier == taken.trier:
        free = replace(free, trier="", tried=0.0)
    if not (any(settled) and write.ordered):
        return free
    return replace(free, delivery=taken.delivery, stamp=write.stamp)


def _delivery(trier: str) -> str:
    return trier.partition(" ")[0]


def _free(turn: Turn) -> Turn:
    return replace(turn, holder="", until=0.0)


async def note(order: Order, delivery: str, stamps: Mapping[str, str | None]) -> None:
    """Note who has written what only the answer named: the stamp by Type/id."""
    if not stamps:
        return
    keys = {_key(name): stamp for name, stamp in stamps.items()}
    known = await order.ledger.read(list(keys))
    late = {
        key: replace(known.get(key, Turn()), delivery=delivery, stamp=stamp)
        for key, stamp in keys.items()
        if not is_later(known.get(key, Turn()), delivery, stamp)
    }
    # A row that is lost to another now belongs to a writer who has found this very write.
    await order.ledger.write(late)


def is_later(turn: Turn, delivery: str, stamp: str | None) -> bool:
    """Whether the last write of a resource comes after one of `delivery` in order. Pure."""
    if turn.stamp and stamp and turn.stamp[0] == stamp[0] and turn.stamp != stamp:
        return turn.stamp > stamp
    return turn.delivery > delivery


def _key(name: str) -> str:
    """A query may hold an identifier of a patient, and a table must not."""
    return hashlib.sha256(name.encode()).hexdigest()
