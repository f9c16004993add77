"""What a notification says of its subscription: that it begins, is alive, or missed events.

https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/notifications.html
"""

from __future__ import annotations

from dataclasses import dataclass

from integration.core.log_events import log_event
from integration.fhir import subscription_status
from integration.fhir.subscription_status import SubscriptionStatus
from integration.journal.store import Journal

_LOG_EVENTS = {
    "handshake": "notification.handshake",
    "heartbeat": "notification.heartbeat",
    "event-notification": "notification.empty",
}


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A notification without resources: it is answered with 200, and nothing of it is kept."""

    notification_type: str


@dataclass(frozen=True, slots=True)
class SubscriptionGap:
    """The events that are missing before a notification. `missed`: the first and the last one."""

    sender: str
    status: SubscriptionStatus
    missed: tuple[int, int] | None

    @property
    def text(self) -> str | None:
        """The missing events in words. None: there are none."""
        return subscription_status.describe_gap(self.missed) if self.missed else None


async def find_gap(
    journal: Journal, sender: str, status: SubscriptionStatus, *, is_counted: bool = True
) -> SubscriptionGap:
    """Find the events that are missing before a notification. `is_counted`: their numbers go on
    from one notification to the next.

    Changes nothing, so that a request that fails and is repeated finds the same gap.
    """
    if status.type == "handshake" or not is_counted:
        return SubscriptionGap(sender, status, None)
    newest = await journal.get_newest_event(sender, status.subscription)
    return SubscriptionGap(sender, status, subscription_status.find_gap(status, newest))


async def record_gap(journal: Journal, gap: SubscriptionGap, delivery: str | None) -> None:
    """Log a gap and record the notification's last event, so that a gap is logged once."""
    if gap.missed:
        first, last = gap.missed
        log_event("notification.gap", delivery=delivery, missed=last - first + 1)
    if gap.status.last_event:
        await journal.record_event(gap.sender, gap.status.subscription, gap.status.last_event)


async def acknowledge(journal: Journal, gap: SubscriptionGap) -> Acknowledged:
    """Acknowledge a notification without resources."""
    log_event(_LOG_EVENTS[gap.status.type])
    if gap.status.type != "handshake":
        await record_gap(journal, gap, None)
    return Acknowledged(gap.status.type)
