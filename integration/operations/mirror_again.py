"""VERB mirror_again: an operator has the rows of one resource brought up to date now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from integration.core.errors import Issue, Rejected
from integration.core.log_events import log_event
from integration.core.model import RowResult, WorkItem
from integration.journal.activity_log import ActivityFilter, ActivityLog
from integration.journal.store import Journal
from integration.journal.synthetic_deliveries import add_synthetic_delivery
from integration.journal.table_keys import is_delivery_id, parse_accepted_time
from integration.queues.names import MIRROR_QUEUE
from integration.queues.queue_sender import ChangeQueues, QueueSender

# Of the synthetic delivery that holds the result.
KIND = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorProgress:
    """What has become of a work item. `result`: None: it has none yet. `reason`: why it was put
    back into the queue, if it was."""

    result: RowResult | None
    reason: str | None = None


async def mirror_again(
    journal: Journal,
    queue: QueueSender,
    change_queues: ChangeQueues,
    resource: str,
    *,
    new_id: Callable[[datetime], str],
    now: datetime,
) -> str:
    """Queue the rows of Type/id, as a replay does. Return the synthetic delivery whose row result
    it will be. Raises Rejected with 409 for a type whose rows are not mirrored."""
    type_ = resource.partition("/")[0]
    if (await change_queues()).get(type_) != MIRROR_QUEUE:
        text = (
            f"rows of {type_} are not mirrored: MIRROR_TO is off, no map of it is in use, or its "
            "table is virtual (Data routes shows which are)"
        )
        raise Rejected(Issue("conflict", text), status=409)
    delivery = new_id(now)
    await add_synthetic_delivery(journal, delivery, KIND, now, now)
    await queue.send(MIRROR_QUEUE, WorkItem(delivery, resource=resource))
    log_event("row.queued", delivery=delivery, resource=resource)
    return delivery


async def find_progress(
    journal: Journal, activity: ActivityLog, resource: str, delivery: str
) -> MirrorProgress:
    """Return what has become of a work item of `mirror_again`. Raises Rejected with 404 for a
    delivery of another kind: those may have many results."""
    found = await journal.get_delivery(delivery) if is_delivery_id(delivery) else None
    if found is None or found.kind != KIND:
        raise Rejected(Issue("not-found", "nothing was queued under this id"), status=404)
    results = await journal.list_row_results(delivery)
    result = next((row for row in results if row.resource == resource), None)
    if result is not None:
        return MirrorProgress(result=result)
    criteria = ActivityFilter(
        since=parse_accepted_time(delivery), delivery=delivery, resource=resource, action="mirror"
    )
    tried = (await activity.list_entries(criteria, 1, None)).entries
    return MirrorProgress(result=None, reason="; ".join(tried[0].notes) if tried else None)
