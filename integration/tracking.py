"""VERBS follow, cancel, replay, browse: what became of deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from integration.errors import Issue, Rejected
from integration.journal.keys import is_delivery_id
from integration.journal.store import Journal, Page
from integration.model import Claim, Delivery, Outcome, RowOutcome, Status
from integration.outbox import Outbox
from integration.settings import MIRROR_QUEUE, RELAY_QUEUE

_MOST = 500

# What became of rows that an operator may have mended the cause of.
_GIVEN_UP = ("parked", "refused")


@dataclass(frozen=True, slots=True)
class Story:
    """A delivery; once it is done, with everything that was noted about it."""

    delivery: Delivery
    outcomes: Sequence[Outcome] = ()
    rows: Sequence[RowOutcome] = ()


async def follow(journal: Journal, id_: str) -> Story:
    """Raises Rejected with 404 for a delivery that is not known."""
    delivery = await _known(journal, id_)
    if delivery.status is not Status.DONE:
        return Story(delivery)  # a sender who polls costs one storage operation
    outcomes, rows = await asyncio.gather(journal.outcomes(id_), journal.rows(id_))
    return Story(delivery, outcomes, rows)


async def cancel(journal: Journal, id_: str) -> Delivery:
    """Send nothing more of a delivery. What is written stays written."""
    delivery = await _known(journal, id_)
    if delivery.status is Status.DONE:
        raise Rejected(Issue("conflict", "the delivery is done already"), status=409)
    await journal.change(id_, status=Status.CANCELLED)
    return delivery


async def replay(journal: Journal, outbox: Outbox, id_: str) -> Delivery:
    """Queue what was given up on again: a parked delivery, or the parked and refused rows of one
    that is done. Its id, its ids for resources and what is settled stay as they are."""
    delivery = await _known(journal, id_)
    if delivery.status is Status.DONE:
        rows = [row for row in await journal.rows(id_) if row.action in _GIVEN_UP]
        if not rows:
            raise Rejected(Issue("conflict", "nothing of this delivery waits"), status=409)
        claims = [Claim(id_, resource=row.resource) for row in rows]
        await asyncio.gather(*(outbox.send(MIRROR_QUEUE, claim) for claim in claims))
        return delivery
    if delivery.status is not Status.PARKED:
        text = f"only a parked delivery can be replayed, and this one is {delivery.status}"
        raise Rejected(Issue("conflict", text), status=409)
    # The state first: a claim that comes early finds a delivery that may be carried.
    await journal.change(id_, status=Status.ACCEPTED, reason=None)
    await outbox.send(RELAY_QUEUE, Claim(id_))
    return delivery


async def browse(journal: Journal, status: str | None, count: str, after: str | None) -> Page:
    """Deliveries, newest first, from the query parameters `status`, `_count` and `after`."""
    if status is not None and status not in set(Status):
        text = f"status must be one of {', '.join(Status)}"
        raise Rejected(Issue("value", text, "status"))
    if not count.isascii() or not count.isdigit() or not 1 <= int(count) <= _MOST:
        raise Rejected(Issue("value", f"_count must be 1 to {_MOST}", "_count"))
    if after is not None and not is_delivery_id(after):
        raise Rejected(Issue("value", "after must be the id of a delivery", "after"))
    return await journal.page(Status(status) if status else None, int(count), after)


async def _known(journal: Journal, id_: str) -> Delivery:
    delivery = await journal.delivery(id_) if is_delivery_id(id_) else None
    if delivery is None:
        raise Rejected(Issue("not-found", "no delivery has this id"), status=404)
    return delivery
