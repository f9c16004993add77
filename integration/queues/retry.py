"""When failed work is tried again. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from integration.core.errors import IntegrationError, Misconfigured, Unavailable, UnitConflict
from integration.core.model import WorkItem

# In seconds. The delay doubles with each attempt up to the longest one. Work that waits for an
# operator begins with a longer one: nobody mends a role within seconds. It doubles, too, so that
# whoever mends something waits no longer for the rows than it was broken.
_FIRST_DELAY = 2.0
_FIRST_DELAY_OF_OPERATORS = 60.0
_LONGEST_DELAY = 15 * 60.0

# Work that waits for an operator, and of which that could not be recorded: so nobody sees it.
_UNSEEN_DELAY = 20.0

# A message cannot stay invisible for longer than seven days:
# https://learn.microsoft.com/rest/api/storageservices/put-message
_LONGEST_INVISIBLE = 7 * 24 * 3600.0 - 60


@dataclass(frozen=True, slots=True)
class Retry:
    """A failed work item for its next attempt, `delay` seconds from now. None: give up."""

    item: WorkItem
    delay: float | None


def count_conflicts(item: WorkItem, unit: str) -> int:
    """Return how often the server has answered this unit with 408 or 409."""
    return item.conflicts if item.conflicted_unit == unit else 0


def plan_retry(item: WorkItem, error: IntegrationError, now: datetime, max_age: float) -> Retry:
    """Return when to try `item` again after `error`.

    The delay grows with each attempt and is never shorter than the upstream asked for, but the last
    attempt is made when `max_age` seconds are over. Only that age since the first failure ends the
    retries, never their number. Conflicts of a unit are counted apart from all other failures.
    """
    since = item.since if item.since is not None else now.timestamp()
    is_for_operator = isinstance(error, Misconfigured)
    first = _FIRST_DELAY_OF_OPERATORS if is_for_operator else _FIRST_DELAY
    delay = min(first * 2 ** min(item.attempt, 16), _LONGEST_DELAY)
    if isinstance(error, Unavailable) and error.retry_after is not None:
        delay = max(delay, error.retry_after)
    next_item = replace(item, accepted=None, attempt=item.attempt + 1, since=since)
    if isinstance(error, UnitConflict):
        conflicts = count_conflicts(item, error.unit) + 1
        next_item = replace(next_item, conflicts=conflicts, conflicted_unit=error.unit)
    left = max_age - (now.timestamp() - since)
    if left <= 0:
        return Retry(next_item, None)
    return Retry(next_item, min(delay, left, _LONGEST_INVISIBLE))


def hasten_unseen(delay: float) -> float:
    """Return the delay of work that waits for an operator, though that could not be recorded: it is
    short, so that the next attempt records it. Pure."""
    return min(delay, _UNSEEN_DELAY)
