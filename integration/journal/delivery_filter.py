"""Which deliveries a list shows. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from integration.core.model import UNDER_WAY, Delivery, Status
from integration.journal.table_keys import is_between


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """Those for which all of these hold; None: any."""

    status: Status | None = None
    sender: str | None = None
    kind: str | None = None
    reason: str = ""  # a part of the reason
    since: datetime | None = None  # accepted then or later
    until: datetime | None = None
    waiting: bool = False  # those alone that wait to be tried again


def is_waiting(delivery: Delivery) -> bool:
    """Whether a delivery waits to be tried again."""
    return delivery.status in UNDER_WAY and delivery.waiting is not None


def matches(delivery: Delivery, criteria: DeliveryFilter) -> bool:
    """Whether a delivery meets all criteria."""
    return (
        criteria.status in (None, delivery.status)
        and criteria.sender in (None, delivery.sender)
        and criteria.kind in (None, delivery.kind)
        and criteria.reason in (delivery.reason or "")
        and (not criteria.waiting or is_waiting(delivery))
        and is_between(delivery.id, criteria.since, criteria.until)
    )
