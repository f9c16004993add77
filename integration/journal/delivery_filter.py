"""Which deliveries a list shows. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from integration.core.model import Delivery, Status
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


def matches(delivery: Delivery, criteria: DeliveryFilter) -> bool:
    """Whether a delivery meets all criteria."""
    return (
        criteria.status in (None, delivery.status)
        and criteria.sender in (None, delivery.sender)
        and criteria.kind in (None, delivery.kind)
        and criteria.reason in (delivery.reason or "")
        and is_between(delivery.id, criteria.since, criteria.until)
    )
