"""Change a delivery together with its concern: the concern first, the state that it tells of next.

A delivery names its concern (`attention`), so whoever changes its state knows which one to drop.
A worker that ends in between leaves a concern that no delivery names: housekeeping drops it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from integration.core.errors import Unavailable
from integration.core.model import Delivery, EntryResult, Status
from integration.journal.concern import (
    Concern,
    ConcernKind,
    build_delivery_concern,
    build_entries_concern,
)
from integration.journal.store import Journal

_NOT_WAITING: dict[str, Any] = {
    "waiting": None,
    "next_attempt": None,
    "attempts": 0,
    "for_operator": False,
}

# How often a change is tried while others change the concern of the delivery.
_TRIES = 5

_ACTIVE = frozenset({Status.ACCEPTED, Status.PROCESSING})


async def change_with_concern(
    journal: Journal,
    seen: Delivery,
    concern: Concern | None,
    *,
    only_if: frozenset[Status],
    unless_corrected: bool = False,
    **changes: Any,
) -> bool:
    """Set some fields of a delivery if it has one of these statuses, and its concern: None for one
    that needs no attention. Return whether they were set. `unless_corrected`: see update_delivery.

    A delivery that has no concern, and gets none, takes no operation more than `update_delivery`.
    """
    if concern is not None:
        await journal.put_concern(concern)
    named = "" if concern is None else concern.id
    current: Delivery | None = seen
    for _ in range(_TRIES):
        assert current is not None, "else the loop has ended"
        is_set = await _set_with_attention(
            journal,
            current,
            named,
            changes,
            only_if=only_if,
            unless_corrected=unless_corrected,
        )
        if is_set:
            if current.attention not in ("", named):
                await journal.delete_concern(current.attention)
            return True
        before, current = current, await journal.get_delivery(seen.id)
        if current is None or current.attention == before.attention:
            break  # its status is the reason
        if current.status not in only_if:
            break
    else:
        raise Unavailable("journal", "others keep changing what the delivery needs attention for")
    if concern is not None and (current is None or current.attention != concern.id):
        await journal.delete_concern(concern.id)
    return False


async def _set_with_attention(
    journal: Journal,
    seen: Delivery,
    named: str,
    changes: Mapping[str, Any],
    *,
    only_if: frozenset[Status],
    unless_corrected: bool,
) -> bool:
    """Set the fields, unless the delivery names another concern by now: nobody would drop that."""
    waits = _NOT_WAITING if seen.waiting is not None else {}
    attention = {"attention": named} if named != seen.attention else {}
    return await journal.update_delivery(
        seen.id,
        only_if=only_if,
        unless_corrected=unless_corrected,
        only_attention=seen.attention,
        seen=seen,
        **{**waits, **attention, **changes},
    )


def drop_with(seen: Delivery, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes after which a delivery needs no attention and waits for nothing. Its concern
    is to be deleted afterwards. Pure."""
    waits = _NOT_WAITING if seen.waiting is not None else {}
    named = {"attention": ""} if seen.attention else {}
    return {**waits, **named, **changes}


async def park_open(
    journal: Journal, delivery: Delivery, reason: str, now: datetime, *, lane: int | None = None
) -> bool:
    """Park a delivery that was seen under way. Return False if it has ended since."""
    kind = ConcernKind.HELD if delivery.kind == "held" else ConcernKind.PARKED
    concern = build_delivery_concern(
        kind, delivery.id, delivery.sender, now, reason=reason, lane=lane
    )
    return await change_with_concern(
        journal,
        delivery,
        concern,
        only_if=_ACTIVE,
        status=Status.PARKED,
        reason=reason,
        parked=now,
    )


def build_end_concern(
    delivery: Delivery, results: Sequence[EntryResult], now: datetime, held: str | None
) -> Concern | None:
    """Return the concern of a delivery at its end; None when nothing was refused. `held`: why it is
    kept for an operator. Pure."""
    if held is not None:
        return build_delivery_concern(
            ConcernKind.HELD, delivery.id, delivery.sender, now, reason=held
        )
    refused = [result for result in results if result.is_refused]
    if not refused:
        return None
    return build_entries_concern(delivery.id, delivery.sender, now, refused)
