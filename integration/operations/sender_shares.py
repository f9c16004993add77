"""VERB count_by_sender: what became of the entries of each sender's newest deliveries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from integration.journal.delivery_filter import DeliveryFilter
from integration.journal.store import Journal

# The newest deliveries that are looked through, in one storage operation: as for the status.
NEWEST = 500


@dataclass(frozen=True, slots=True)
class SenderShare:
    """Of one sender: how many deliveries, entries with a result, and refused ones of these."""

    deliveries: int = 0
    settled: int = 0
    refused: int = 0

    @property
    def percent(self) -> float | None:
        """How much of it was refused; None: nothing has a result."""
        return 100 * self.refused / self.settled if self.settled else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderShares:
    """By sender. `looked_at`: how many deliveries those are, the oldest of them accepted `since`
    then."""

    by_sender: Mapping[str, SenderShare]
    looked_at: int
    since: datetime | None


async def count_by_sender(journal: Journal, newest: int = NEWEST) -> SenderShares:
    """Count the entries of the newest deliveries by sender. Raises Unavailable."""
    page = await journal.list_deliveries(DeliveryFilter(), newest, None)
    shares: defaultdict[str, SenderShare] = defaultdict(SenderShare)
    for delivery in page.deliveries:
        if not delivery.sender:  # it holds the results of a reconcile run, or of change events
            continue
        share = shares[delivery.sender]
        settled = delivery.written + delivery.skipped + delivery.refused + delivery.superseded
        shares[delivery.sender] = replace(
            share,
            deliveries=share.deliveries + 1,
            settled=share.settled + settled,
            refused=share.refused + delivery.refused,
        )
    return SenderShares(
        by_sender=dict(shares),
        looked_at=len(page.deliveries),
        since=page.deliveries[-1].accepted if page.deliveries else None,
    )
