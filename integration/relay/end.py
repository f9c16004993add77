"""How a delivery ends: done, held or parked, with every result counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from integration.core.flow import FlowCounts
from integration.core.log_events import log_event
from integration.core.model import Delivery, EntryResult, Status, WorkItem, count_results
from integration.journal.concerns import build_end_concern, change_with_concern, park_open
from integration.journal.corrections import close_corrected
from integration.journal.store import Journal, list_settled
from integration.queues.queue_sender import queue_answer
from integration.relay.parts import Relay

# A late work item does not bring back a delivery that is done, parked or cancelled.
ACTIVE = frozenset({Status.ACCEPTED, Status.PROCESSING})

# A parked delivery whose last entry is answered after all is done.
_UNFINISHED = ACTIVE | {Status.PARKED}


async def park(journal: Journal, item: WorkItem, reason: str, now: datetime) -> None:
    """Give up on a delivery until an operator replays it. Nothing of it is lost."""
    log_event(
        "delivery.parked",
        delivery=item.delivery,
        lane=item.lane,
        attempt=item.attempt,
        reason=reason,
    )
    delivery = await journal.get_delivery(item.delivery)
    if delivery is not None and delivery.status in ACTIVE:
        await park_open(journal, delivery, reason, now, lane=item.lane)


async def park_failed(journal: Journal, item: WorkItem, now: datetime) -> None:
    """Give up on a delivery whose work item failed repeatedly, and name the last error that is
    known of it: the one for which it waited last. Of what failed since the log tells."""
    delivery = await journal.get_delivery(item.delivery)
    last = delivery.reason if delivery is not None and delivery.status in ACTIVE else None
    known = f"; the last error that is known: {last}" if last else ": the log says why"
    await park(journal, item, f"processing failed repeatedly{known}", now)


async def finish_from_journal(relay: Relay, delivery: Delivery) -> None:
    results = await relay.journal.list_entry_results(delivery.id)
    await finish(relay, delivery, list_settled(results, delivery.round))


async def finish(relay: Relay, delivery: Delivery, results: Sequence[EntryResult]) -> None:
    """End a delivery whose lanes are done: every entry must have a result."""
    unanswered = set(range(delivery.entries)) - {result.position for result in results}
    if unanswered:
        reason = (
            f"{len(unanswered)} of {delivery.entries} entries have no result, though all lanes are "
            "done; replay it"
        )
        await park(relay.journal, WorkItem(delivery.id), reason, relay.now())
        return
    counts = count_results(results)
    is_held = delivery.holds_refused and counts["refused"] > 0
    reason = f"{counts['refused']} of {delivery.entries} entries were refused"
    # Without it, the update would read the row itself.
    seen = delivery if delivery.etag else await relay.journal.get_delivery(delivery.id) or delivery
    now = relay.now()
    concern = build_end_concern(delivery, results, now, reason if is_held else None)
    changes: dict[str, Any] = {
        "status": Status.PARKED if is_held else Status.DONE,
        "lanes": delivery.lanes,
        "units": delivery.units,
        "split": delivery.split,
        "finished": None if is_held else now,
        "parked": now if is_held else None,
        "reason": reason if is_held else None,
        **counts,
    }
    if not counts["refused"]:
        changes["bases"] = b""  # no attempt follows
    is_done = await change_with_concern(
        relay.journal, seen, concern, only_if=_UNFINISHED, **changes
    )
    if not is_done:  # it was cancelled during its last unit, or another worker was quicker
        await record_cancelled(relay, delivery)
        return
    _count_entries(relay, seen, counts)
    if delivery.corrects is not None:
        await close_corrected(relay.journal, delivery)
    if is_held:
        log_event("delivery.held", delivery=delivery.id, reason=reason)
        return
    log_event(
        "delivery.done",
        is_warning=counts["refused"] > 0,
        delivery=delivery.id,
        entries=delivery.entries,
        written=counts["written"],
        skipped=counts["skipped"],
        refused=counts["refused"],
        superseded=counts["superseded"],
        queued_rows=counts["queued_rows"],
        units=delivery.units,
        split=delivery.split,
    )
    await queue_answer(relay.queue, delivery)


async def record_cancelled(relay: Relay, delivery: Delivery) -> None:
    """Record what was written of a cancelled delivery."""
    counts = count_results(await relay.journal.list_entry_results(delivery.id))
    seen = await relay.journal.get_delivery(delivery.id)
    is_set = await relay.journal.update_delivery(
        delivery.id, only_if=frozenset({Status.CANCELLED}), seen=seen, **counts
    )
    if is_set and seen is not None:
        _count_entries(relay, seen, counts)
    await queue_answer(relay.queue, delivery)


def _count_entries(relay: Relay, seen: Delivery, counts: Mapping[str, int]) -> None:
    """Count the entries of a delivery that has ended. `seen`: as it was before; what it states has
    been counted when it ended for the first time."""
    names = ("written", "skipped", "superseded", "refused")
    added = {name: max(0, counts[name] - getattr(seen, name)) for name in names}
    relay.flow.count(seen.sender, FlowCounts(**added))
