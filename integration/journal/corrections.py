"""A correction and the delivery whose place it takes: each names the other.

The correction is added first, then it takes its place, then it is queued. Whoever processes it has
it take its place again, so a worker may end anywhere in between. The concern of the corrected
delivery stays until the correction has ended, so that one of both is always to be seen while
something is not in FHIR.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from integration.core.model import Delivery, Status
from integration.journal.store import Journal

# What can be corrected has ended, or waits for an operator. Cancelled: a correction of it.
_CORRECTABLE = frozenset({Status.DONE, Status.PARKED, Status.CANCELLED})


def is_correctable(delivery: Delivery) -> bool:
    """Whether an operator may correct a delivery in its present state. Pure.

    A correction that was cancelled can be followed by another, since what it corrects still needs
    attention. Who cancels any other delivery wants nothing of it to be sent.
    """
    if delivery.status is Status.DONE:
        return delivery.refused > 0
    is_cancelled_correction = delivery.status is Status.CANCELLED and delivery.corrects is not None
    return delivery.status is Status.PARKED or is_cancelled_correction


async def take_place(journal: Journal, correction: Delivery, now: datetime) -> bool:
    """Record that a delivery is corrected by this one. Return False if it cannot be corrected any
    more: it was replayed, cancelled, or corrected by another. Repeating it changes nothing.

    A parked one ends with this: it is neither replayed nor released any more, and whoever still
    writes a unit of it writes no other.
    """
    while (corrected := await journal.get_delivery(correction.corrects or "")) is not None:
        if corrected.corrected_by is not None:
            return corrected.corrected_by == correction.id
        if not is_correctable(corrected):
            return False
        changes: dict[str, Any] = {"corrected_by": correction.id}
        if corrected.status is Status.PARKED:
            # The answer of what came as a file is that of the correction.
            changes |= {"status": Status.CANCELLED, "finished": now, "answer_due": False}
        if any(await journal.update_deliveries([(corrected, changes)])):
            return True
    return False


async def find_last_correction(journal: Journal, delivery: Delivery) -> Delivery:
    """Return what has taken the place of a delivery in the end: its correction, or that one's, or
    itself. A correction that is deleted counts for nothing."""
    while delivery.corrected_by is not None:
        following = await journal.get_delivery(delivery.corrected_by)
        if following is None:
            break
        delivery = following
    return delivery


async def close_corrected(journal: Journal, correction: Delivery) -> None:
    """Delete the concerns of what a correction has corrected, since it has ended. Repeating it
    changes nothing.

    Of a correction that corrects another, all before it are closed: one of them may have been
    cancelled, and then the concern is that of an earlier one.
    """
    id_ = correction.corrects
    while id_ is not None:
        corrected = await journal.get_delivery(id_)
        if corrected is None:
            return
        if corrected.attention:
            await journal.delete_concern(corrected.attention)  # first: as long as it is named
            await journal.update_delivery(id_, only_if=_CORRECTABLE, seen=corrected, attention="")
        id_ = corrected.corrects
