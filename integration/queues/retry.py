"""When a claim that failed comes back. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from integration.core.errors import IntegrationError, Misconfigured, Unavailable
from integration.core.model import WorkItem

# Doubled at each attempt, up to the longest; the longest is also the pause for an operator.
_FIRST_DELAY = 2.0
_LONGEST_DELAY = 15 * 60.0


@dataclass(frozen=True, slots=True)
class Retry:
    """A failed claim, to be tried again after `delay` seconds; None: given up on, park it."""

    item: WorkItem
    delay: float | None


def plan_retry(item: WorkItem, error: IntegrationError, now: datetime, max_age: float) -> Retry:
    """When a claim comes back after `error`. Pure.

    The delay grows; a neighbour's own wish is obeyed; only age ends it, never a count.
    """
    since = item.since if item.since is not None else now.timestamp()
    delay = min(_FIRST_DELAY * 2 ** min(item.attempt, 16), _LONGEST_DELAY)
    if isinstance(error, Misconfigured):
        delay = _LONGEST_DELAY
    if isinstance(error, Unavailable) and error.retry_after is not None:
        delay = max(delay, error.retry_after)
    next_item = replace(item, attempt=item.attempt + 1, since=since)
    if now.timestamp() + delay - since > max_age:
        return Retry(next_item, None)
    return Retry(next_item, delay)
