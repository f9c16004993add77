"""The write guard: one writer at a time for what has no version that a server could check.

The order of writes of a resource is told by the resource itself: see `fhir.write_decisions`. What
is left for locks is what the FHIR server cannot make conditional on a version: the first write and
the delete of a resource; the condition of a conditional entry, where two that race would both find
nothing; and rows and events of other services. Each has a name, and a unit locks all names that it
needs, or none:

1. `claim` locks all names of the unit by one row of it: so no two units write by one name at a
   time. First writes are recorded when it ends: for some seconds, a read that shows no such
   resource proves nothing. `acquire` also locks each name of a delete or of a conditional update by
   a row of its own, which outlives the lock: where no resource could carry a mark, it tells who has
   written last. `heed_deletes` looks into these rows for first writes. An entry whose name a later
   delivery has written is *superseded*: it must not be sent.
2. `renew` extends what is held if looking has taken long, and `ensure_time_left` is the last check
   before the request goes.
3. `release` records which entries were written, and frees the locks.

A lock is a lease: it ends by itself when the worker that holds it dies. The lease lasts three times
as long as the server may take to answer. A request starts in its first third or not at all; the
answer may take the second; and the server may be busy in the third with a request that nobody
waits for any more.

How far the request got decides what `release` does with entries that have no result (SendState):

- NOT_SENT: the row becomes what it was, as if the unit had never tried.
- REFUSED: the lock is free. The server has not done what has no result.
- ANSWERED: the lock is free. What has no result may be done, and may not be shown yet.
- UNANSWERED: the request may still be at work. The lock stays until its lease ends, and until then
  only the same delivery can acquire it.

A worker that dies says none of these. Its claim ends by itself, and what it claims may have been
written until then.

Whoever finds that a later delivery has attempted a name, and not how that ended, waits for its next
attempt, which tells it; unless none follows, since that delivery was cancelled or is gone.

docs/decisions/0020-the-resource-carries-the-order.md says what else was considered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from enum import Enum
from math import inf

from integration.core.errors import Unavailable
from integration.core.model import Status
from integration.core.write_order import WriteRank, is_later
from integration.journal.guard_store import (
    DIGEST_BYTES,
    Claim,
    ClaimTable,
    GuardStore,
    WriteLock,
)
from integration.journal.store import Journal

# Pauses in seconds before a unit tries again to acquire locks that others hold. After the last one
# its work item goes back to the queue.
_RETRY_DELAYS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)


@dataclass(frozen=True, slots=True)
class Write:
    """A write that needs a lock. `name`: `Type/id`, or the `Type?query` of a conditional write.
    `positions`: of the entries that write it."""

    name: str
    positions: tuple[int, ...]
    source_version: str | None = None  # where the source places the write among others, if it does
    ordered: bool = True  # False: the write needs the lock, but supersedes nothing, and vice versa
    is_first: bool = False  # it would make the resource, as far as a read has shown


class SendState(Enum):
    """How far the request of a unit got: see the module's text."""

    NOT_SENT = "not sent"
    REFUSED = "refused"
    ANSWERED = "answered"
    UNANSWERED = "unanswered"


@dataclass(slots=True)
class HeldLocks:
    """The locks that one attempt of a unit holds, and what it learned when it acquired them."""

    delivery: str
    unit: str  # the same name in every attempt
    token: str  # another one in every attempt
    _: KW_ONLY
    # By key of the resource:
    locks: dict[str, WriteLock] = field(default_factory=dict)
    previous: dict[str, WriteLock] = field(default_factory=dict)  # the rows before
    writes: dict[str, Write] = field(default_factory=dict)
    # The claim of the unit, what was there before, and the claimed writes by digest of their name.
    # `newest_delete`: as of the last claim.
    claim: Claim | None = None
    previous_claim: Claim | None = None
    newest_delete: str = ""
    recent: frozenset[bytes] = frozenset()  # names that were written just now, as of then
    recent_until: float = 0.0  # when reads must show even those
    is_next: bool = False  # it keeps its claim while it waits: see `claim`
    claimed: dict[bytes, Write] = field(default_factory=dict)
    waits_for: str = ""  # why no lock could be had, where that is known
    # By position of the entry:
    superseded: set[int] = field(default_factory=set)  # a later delivery has written the resource

    @property
    def attempted_by(self) -> str:
        """The unit as rows and claims name it. The delivery alone would not do: another of its
        units may have written the resource, too."""
        return f"{self.delivery} {self.unit}"


async def _is_never_over(_: str) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteGuard:
    """What the guard needs. `lease`: seconds, see the module's text. `now`: seconds since 1970.
    `read_lag`: seconds that reads of the FHIR server may lag behind its writes. `is_over`: whether
    a delivery, by its id, will not be tried again: see `is_cancelled_or_gone`."""

    store: GuardStore
    lease: float
    read_lag: float = 10.0
    now: Callable[[], float]
    token: Callable[[], str]
    pause: Callable[[float], Awaitable[object]]
    jitter: Callable[[], float]
    is_over: Callable[[str], Awaitable[bool]] = _is_never_over


async def is_cancelled_or_gone(journal: Journal, delivery: str) -> bool:
    """Whether no attempt of a delivery follows: it was cancelled, or it is no delivery that is
    kept, such as a run of a virtual table."""
    known = await journal.get_delivery(delivery)
    return known is None or known.status is Status.CANCELLED


async def claim(guard: WriteGuard, held: HeldLocks, writes: Sequence[Write]) -> None:
    """Lock the names of these writes by one row of the unit, and add it to `held`.

    Wait some seconds for others. Raises Unavailable when another unit claims one of them still; in
    that case nothing is held any more, not even what `held` had before.

    Of many units that want one name at the same time, all would give way to each other for long. So
    the first of them, by delivery, keeps its claim while it waits: no other one can pass it.
    """
    await _wait_until(guard, held, lambda: _try_claim(guard, held, writes))


async def acquire(
    guard: WriteGuard, held: HeldLocks, writes: Sequence[Write], *, are_deletes: bool = False
) -> None:
    """Lock the rows of `writes`, and add the locks to `held`.

    Wait some seconds for locks that others hold, unless something is held already. Raises
    Unavailable as `claim` does. `are_deletes`: one of them is a delete, which first writes heed.
    """
    required = {_hash_name(write.name): write for write in writes}
    required = {key: write for key, write in required.items() if key not in held.writes}
    if required and are_deletes:
        await guard.store.record_delete(held.delivery)
    if required:
        await _wait_until(guard, held, lambda: _try_acquire(guard, held, required))


async def heed_deletes(guard: WriteGuard, held: HeldLocks, writes: Sequence[Write]) -> None:
    """Find the first writes that a delete has superseded. Their names are claimed already.

    Where the newest delete is earlier, none can have, unless the source states the order. Raises
    Unavailable where a later delete may have; `held` is then released by the caller.
    """
    is_placed = any(write.source_version for write in writes)
    if not is_placed and held.newest_delete <= held.delivery:
        return
    existing = await guard.store.read([_hash_name(write.name) for write in writes])
    for write in writes:
        lock = existing.get(_hash_name(write.name), WriteLock())
        if _is_superseded(held, lock, write):
            held.superseded.update(write.positions)
        elif _is_attempted_later(held, lock, write) and (
            _is_rival(held, lock, guard.now()) or not await _is_over(guard, lock)
        ):
            raise Unavailable("write guard", _describe_later(lock))


async def _wait_until(
    guard: WriteGuard, held: HeldLocks, try_to_lock: Callable[[], Awaitable[bool]]
) -> None:
    # Two units that hold locks while they wait for more could wait for each other.
    delays = () if held.locks or held.claim else _RETRY_DELAYS
    for delay in (*delays, None):
        if await try_to_lock():
            return
        if delay is None or not held.is_next:
            await release(guard, held, {}, SendState.NOT_SENT)
        if delay is not None:
            await guard.pause(delay * (0.5 + guard.jitter()))
    reason = held.waits_for or "another delivery is writing the same resource"
    raise Unavailable("write guard", reason)


def is_held(held: HeldLocks, name: str) -> bool:
    """Whether the lock of this name is held, or the unit claims its first write."""
    return _hash_name(name) in held.locks or _shorten_name(name) in held.claimed


def was_written_just_now(guard: WriteGuard, held: HeldLocks, name: str) -> bool:
    """Whether a read that shows no such resource proves nothing: it was made just now, and a read
    may come from a copy that lags. The name is claimed."""
    return guard.now() < held.recent_until and _shorten_name(name) in held.recent


async def renew(guard: WriteGuard, held: HeldLocks) -> None:
    """Extend the leases when half of the time in which a request may start is over.

    What was looked at stays as it was found only if nobody could take a lock meanwhile. So an
    extension counts if it is known before the old lease ends. Raises Unavailable otherwise.
    """
    expires_at, late = _find_end(held), "the lock ended before the request could start"
    if expires_at - guard.now() >= guard.lease * 5 / 6:
        return
    if guard.now() >= expires_at:  # somebody may have it
        raise Unavailable("write guard", late)
    extended = guard.now() + guard.lease
    if held.claim is not None:
        claim = replace(held.claim, expires_at=extended)
        held.claim = await guard.store.write_claim(held.attempted_by, claim)
    locks = {key: replace(lock, expires_at=extended) for key, lock in held.locks.items()}
    stored = await guard.store.write(locks) if locks else {}
    is_lost = (held.claim is None and bool(held.claimed)) or len(stored) < len(locks)
    held.locks |= stored
    if is_lost or guard.now() >= expires_at:
        raise Unavailable("write guard", late)


def _find_end(held: HeldLocks) -> float:
    """Return when the first of the leases ends."""
    claims = () if held.claim is None else (held.claim,)
    return min((row.expires_at for row in (*held.locks.values(), *claims)), default=inf)


def ensure_time_left(guard: WriteGuard, held: HeldLocks) -> None:
    """Check that a request may start now: two thirds of each lease must be left.

    Raises Unavailable when less is left.
    """
    if _find_end(held) - guard.now() < guard.lease * 2 / 3:
        raise Unavailable("write guard", "the lock had too little time left to start the request")


async def release(
    guard: WriteGuard,
    held: HeldLocks,
    written: Mapping[int, bool],
    state: SendState = SendState.ANSWERED,
) -> None:
    """Release all locks, and empty `held`.

    `written`: by position of each entry that has a result, whether the entry was written. `state`:
    how far the request got, for the entries that have none.
    """
    now = guard.now()
    recent = _find_recent(held, written, state)
    released = {
        key: _build_released_lock(held, key, written=written, state=state, now=now)
        for key in held.locks
    }
    claim, remaining = held.claim, _build_remaining_claim(held, written, state, now)
    held.claim = held.previous_claim = None
    held.is_next = False
    for by_key in (held.locks, held.previous, held.writes, held.claimed):
        by_key.clear()
    held.superseded.clear()
    if released:
        await guard.store.write(released)
    if remaining is not None:
        await guard.store.record_written(held.attempted_by, recent, now)
        await guard.store.write_claim(held.attempted_by, remaining)
    elif claim is not None:
        await guard.store.delete_claim(held.attempted_by, claim, recent, now)


async def release_previous(
    guard: WriteGuard, held: HeldLocks, writes: Sequence[Write], written: Mapping[int, bool]
) -> None:
    """Release what an earlier attempt of this unit left locked: it recorded the results of
    `writes`, and died before it released them. Leave the locks of others alone."""
    existing = await guard.store.read([_hash_name(write.name) for write in writes])
    unreleased = {key for key, lock in existing.items() if lock.attempted_by == held.attempted_by}
    remaining = [write for write in writes if _hash_name(write.name) in unreleased]
    if remaining:
        await acquire(guard, held, remaining)
        await release(guard, held, written)


async def _try_acquire(guard: WriteGuard, held: HeldLocks, required: Mapping[str, Write]) -> bool:
    """Lock all of these resources but those that are superseded. Return False when another holds
    one, or was quicker; then some may be in `held` all the same."""
    existing = await guard.store.read(list(required))
    now = guard.now()
    acquired: dict[str, WriteLock] = {}
    for key, write in required.items():
        lock = existing.get(key, WriteLock())
        if _is_rival(held, lock, now):
            return False
        held.writes[key], held.previous[key] = write, lock
        if _is_superseded(held, lock, write):
            held.superseded.update(write.positions)
            continue
        if _is_attempted_later(held, lock, write) and not await _is_over(guard, lock):
            held.waits_for = _describe_later(lock)
            return False
        if _get_delivery(lock.attempted_by) <= held.delivery:
            lock = replace(lock, attempted_by=held.attempted_by)
        acquired[key] = replace(lock, holder=held.token, expires_at=now + guard.lease)
    stored = await guard.store.write(acquired)
    held.locks |= stored
    return len(stored) == len(acquired)


async def _try_claim(guard: WriteGuard, held: HeldLocks, writes: Sequence[Write]) -> bool:
    """Claim these names. Return False when another unit has one of them; then the claim may be in
    `held` all the same."""
    required = {_shorten_name(write.name): write for write in writes}
    if not held.is_next and not await _write_claim(guard, held, required.keys()):
        return False
    held.claimed |= required
    now = guard.now()
    table = await guard.store.read_claims(now - guard.read_lag)
    held.newest_delete = table.newest_delete
    held.recent = table.recent.union(*_list_ended(table, now - guard.read_lag, now))
    held.recent_until = now + guard.read_lag
    rivals = _find_rivals(held, table, required.keys(), now)
    held.is_next = bool(rivals) and held.attempted_by < min(rivals)
    return not rivals


async def _write_claim(guard: WriteGuard, held: HeldLocks, names: Collection[bytes]) -> bool:
    """Write the claim of the unit. Return False when another worker has the same unit."""
    wanted = Claim(
        holder=held.token,
        expires_at=guard.now() + guard.lease,
        names=frozenset(names) | (held.claim.names if held.claim else frozenset()),
        etag=held.claim.etag if held.claim else None,
    )
    claim = await guard.store.write_claim(held.attempted_by, wanted)
    if claim is None:
        # An earlier attempt of this unit has left one, or another worker has the same unit.
        table = await guard.store.read_claims(guard.now())
        previous = table.claims.get(held.attempted_by)
        if previous is None or _is_rival(held, previous, guard.now()):
            return False
        if guard.now() - guard.read_lag <= previous.expires_at <= guard.now():
            # This claim takes its row, and others must still know what it may have written.
            unit, end = held.attempted_by, previous.expires_at
            await guard.store.record_written(unit, previous.names, end)
        wanted = replace(wanted, names=wanted.names | previous.names, etag=previous.etag)
        claim = await guard.store.write_claim(held.attempted_by, wanted)
        if claim is None:
            return False
        held.previous_claim = previous
    held.claim = claim
    return True


def _find_rivals(
    held: HeldLocks, table: ClaimTable, names: Collection[bytes], now: float
) -> list[str]:
    """Return the other units that claim one of these names."""
    return [
        unit
        for unit, claim in table.claims.items()
        if unit != held.attempted_by
        and _is_rival(held, claim, now)
        and not claim.names.isdisjoint(names)
    ]


def _list_ended(table: ClaimTable, since: float, now: float) -> list[frozenset[bytes]]:
    """Return the names of the claims that ended by themselves since then."""
    return [claim.names for claim in table.claims.values() if since <= claim.expires_at <= now]


def _is_rival(held: HeldLocks, row: WriteLock | Claim, now: float) -> bool:
    """Whether somebody else holds the row now."""
    return row.expires_at > now and row.holder not in (held.token, held.delivery)


def _is_superseded(held: HeldLocks, lock: WriteLock, write: Write) -> bool:
    last = WriteRank(lock.written_by, lock.source_version)
    return write.ordered and is_later(last, WriteRank(held.delivery, write.source_version))


def _find_recent(
    held: HeldLocks, written: Mapping[int, bool], state: SendState
) -> frozenset[bytes]:
    """Return the names of first writes that were done, or may have been."""
    if state is SendState.NOT_SENT:
        return frozenset()
    may_be_done = state is not SendState.REFUSED
    return frozenset(
        name
        for name, write in held.claimed.items()
        if write.is_first
        and any(written.get(position, may_be_done) for position in write.positions)
    )


def _is_attempted_later(held: HeldLocks, lock: WriteLock, write: Write) -> bool:
    """Whether a later delivery has attempted the name, and its worker ended before it said how."""
    return write.ordered and _get_delivery(lock.attempted_by) > held.delivery


async def _is_over(guard: WriteGuard, lock: WriteLock) -> bool:
    """Whether nobody will tell any more what became of the attempt: else the next one tells it."""
    return await guard.is_over(_get_delivery(lock.attempted_by))


def _describe_later(lock: WriteLock) -> str:
    return (
        f"the later delivery {_get_delivery(lock.attempted_by)} may have written the same "
        "resource, and has not ended"
    )


def _build_remaining_claim(
    held: HeldLocks, written: Mapping[int, bool], state: SendState, now: float
) -> Claim | None:
    """Return what must stay of the claim: names whose request may still be at work."""
    claim, previous = held.claim, held.previous_claim
    if claim is None:
        return None
    names: frozenset[bytes] = frozenset()
    expires_at = 0.0
    if previous is not None and previous.holder == held.delivery and previous.expires_at > now:
        names, expires_at = previous.names, previous.expires_at
    if state is SendState.UNANSWERED:
        unsettled = {
            name
            for name, write in held.claimed.items()
            if not written.keys() >= set(write.positions)
        }
        if unsettled:
            names, expires_at = names | unsettled, claim.expires_at
    return (
        replace(claim, holder=held.delivery, names=names, expires_at=expires_at) if names else None
    )


def _build_released_lock(
    held: HeldLocks, key: str, *, written: Mapping[int, bool], state: SendState, now: float
) -> WriteLock:
    lock, previous, write = held.locks[key], held.previous[key], held.writes[key]
    results = [written[position] for position in write.positions if position in written]
    settled = len(results) == len(write.positions)
    if not settled and state is SendState.UNANSWERED:
        # Until the lease ends only this delivery may acquire it.
        return replace(lock, holder=held.delivery)
    if previous.holder == held.delivery and previous.expires_at > now:
        # A request of an earlier attempt may still be at work: others wait until that lease ends.
        released = replace(lock, holder=previous.holder, expires_at=previous.expires_at)
    else:
        released = replace(lock, holder="", expires_at=0.0)
    if not settled:
        if state is not SendState.NOT_SENT:
            return released
        return replace(released, attempted_by=previous.attempted_by)
    # A refused write says nothing about the attempt of a later delivery: that stays.
    if any(results) or lock.attempted_by == held.attempted_by:
        released = replace(released, attempted_by="")
    if any(results) and write.ordered:
        return replace(released, written_by=held.delivery, source_version=write.source_version)
    return released


def _get_delivery(attempted_by: str) -> str:
    return attempted_by.partition(" ")[0]


def _hash_name(name: str) -> str:
    """A query may hold an identifier of a patient, and a table must not."""
    return hashlib.sha256(name.encode()).hexdigest()


def _shorten_name(name: str) -> bytes:
    return bytes.fromhex(_hash_name(name)[: DIGEST_BYTES * 2])
