"""What is heard of a subscription besides resources: that it begins, lives, or missed something.

https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/notifications.html
"""

from __future__ import annotations

from dataclasses import dataclass

from integration.core.log_events import log_event
from integration.fhir import subscription_status
from integration.fhir.subscription_status import SubscriptionStatus
from integration.journal.store import Journal

_EVENTS = {
    "handshake": "notification.handshake",
    "heartbeat": "notification.heartbeat",
    "event-notification": "notification.empty",
}


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A notification that brings nothing to carry: 200, and nothing is kept of it."""

    notification_type: str  # the type of the notification


@dataclass(frozen=True, slots=True)
class SubscriptionGap:
    """Where a notification stands among those of its subscription, before it is noted."""

    sender: str
    status: SubscriptionStatus
    missed: tuple[int, int] | None

    @property
    def text(self) -> str | None:
        """The events that were missed, in words."""
        return subscription_status.describe_gap(self.missed) if self.missed else None


async def find_gap(journal: Journal, sender: str, status: SubscriptionStatus) -> SubscriptionGap:
    """Changes nothing, so that a sender who has to repeat is told of the same gap."""
    if status.type == "handshake":
        return SubscriptionGap(sender, status, None)
    newest = await journal.get_newest_event(sender, status.subscription)
    return SubscriptionGap(sender, status, subscription_status.find_gap(status, newest))


async def record_gap(journal: Journal, gap: SubscriptionGap, delivery: str | None) -> None:
    """Tell of a gap, once: from here on what was missed counts as known."""
    if gap.missed:
        first, last = gap.missed
        log_event("notification.gap", delivery=delivery, missed=last - first + 1)
    if gap.status.last_event:
        await journal.record_event(gap.sender, gap.status.subscription, gap.status.last_event)


async def acknowledge(journal: Journal, gap: SubscriptionGap) -> Acknowledged:
    """A notification that brings nothing."""
    log_event(_EVENTS[gap.status.type])
    if gap.status.type != "handshake":
        await record_gap(journal, gap, None)
    return Acknowledged(gap.status.type)
