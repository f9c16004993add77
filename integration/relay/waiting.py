"""Record why a delivery waits to be tried again: for its sender, and for operators."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from integration.core.errors import IntegrationError, Misconfigured
from integration.core.model import Status
from integration.journal.concern import ConcernKind, build_delivery_concern
from integration.journal.concerns import change_with_concern
from integration.journal.store import Journal
from integration.journal.table_keys import parse_activity_time
from integration.queues.retry import Retry

_ACTIVE = frozenset({Status.ACCEPTED, Status.PROCESSING})


async def record_waiting(
    journal: Journal, retry: Retry, error: IntegrationError, now: datetime
) -> None:
    """Record the last reason, since when it waits, how many attempts failed, and when the next one
    is due: one read and one merge, after a failure only. What waits for an operator needs
    attention.

    Of a delivery of many lanes that fail together the first one says it for all.
    """
    item = retry.item
    delivery = await journal.get_delivery(item.delivery)
    if delivery is None or delivery.status not in _ACTIVE:
        return
    is_for_operator = isinstance(error, Misconfigured)
    is_said = delivery.next_attempt is not None and delivery.next_attempt > now
    if is_said and delivery.attempts >= item.attempt and delivery.for_operator >= is_for_operator:
        return
    since = datetime.fromtimestamp(item.since, UTC) if item.since is not None else now
    next_attempt = now + timedelta(seconds=retry.delay or 0.0)
    concern = None
    if is_for_operator:
        is_known = delivery.for_operator and delivery.attention
        concern = build_delivery_concern(
            ConcernKind.WAITING,
            delivery.id,
            delivery.sender,
            parse_activity_time(delivery.attention) if is_known else now,
            reason=str(error),
            lane=item.lane,
            attempts=item.attempt,
            next_attempt=next_attempt,
        )
    await change_with_concern(
        journal,
        delivery,
        concern,
        only_if=_ACTIVE,
        reason=str(error),
        waiting=since,
        attempts=item.attempt,
        next_attempt=next_attempt,
        for_operator=is_for_operator,
    )
