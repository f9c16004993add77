"""VERB judge_alerts: which alerts of the deployment would ring, as far as the app knows by itself.

The alerts ask the log, and the app does not read its own log: what only the log or the platform
knows is named as such. infra/modules has the alerts; tests/operations/test_alerts.py holds this
list against them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from integration.core.flow import find_hour
from integration.journal.attention import ConcernPage
from integration.journal.concern import ConcernKind
from integration.operations.status import (
    HousekeepingState,
    OpenDeliveries,
    StatusReport,
    Unreadable,
)
from integration.queues.queue_reader import QueueState

# What main.bicep has where the deployment does not say otherwise.
OLDEST = timedelta(minutes=60)
BACKLOG = 10_000

# What an alert counts within its window. Here hours are counted: what has not come again in the
# hour before this one is over.
_UNPROVEN = 10
_HOUR = _RECENT = timedelta(hours=1)
_SILENT = timedelta(hours=2)


class AlertState(StrEnum):
    """Whether an alert would ring, in the order in which they are shown."""

    RINGS = "rings"
    UNREADABLE = "unreadable"  # what it needs cannot be read now
    SILENT = "silent"
    ELSEWHERE = "elsewhere"  # only the log or the platform knows


@dataclass(frozen=True, slots=True)
class Known:
    """What the app knows of an alert, and why it says so."""

    state: AlertState
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedAlert:
    """An alert by its name, what it tells, and what the app knows of it."""

    name: str
    tells: str
    known: Known


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """`unread`: why it is not known what needs attention; then `concerns` has none."""

    report: StatusReport
    concerns: Mapping[ConcernKind, int]
    more: bool
    unread: str | None


@dataclass(frozen=True, slots=True)
class _Alert:
    name: str
    tells: str
    judge: Callable[[_Facts], Known]


def judge_alerts(report: StatusReport, found: ConcernPage | Unreadable) -> list[JudgedAlert]:
    """Judge every alert, those that would ring first. `found`: what needs attention."""
    page = ConcernPage((), None) if isinstance(found, Unreadable) else found
    counted = Counter(concern.kind for concern in page.concerns)
    facts = _Facts(
        report=report,
        concerns={kind: counted[kind] for kind in ConcernKind},
        more=page.after is not None,
        unread=found.reason if isinstance(found, Unreadable) else None,
    )
    judged = [
        JudgedAlert(name=alert.name, tells=alert.tells, known=alert.judge(facts))
        for alert in ALERTS
    ]
    order = [*AlertState]
    return sorted(judged, key=lambda alert: order.index(alert.known.state))


def _ring_if(found: Iterable[str], otherwise: str, unread: Iterable[str | None] = ()) -> Known:
    """`unread`: why some of it cannot be read: then it is not said to be well."""
    reasons = [reason for reason in found if reason]
    if reasons:
        return Known(AlertState.RINGS, "; ".join(reasons))
    if dark := [reason for reason in unread if reason]:
        return Known(AlertState.UNREADABLE, "; ".join(dark))
    return Known(AlertState.SILENT, otherwise)


def _count(number: int, singular: str, plural: str, *, more: bool = False) -> str:
    if not number:
        return ""
    return f"{'at least ' if more else ''}{number} {singular if number == 1 else plural}"


def _tell_concerns(facts: _Facts, kinds: Mapping[ConcernKind, tuple[str, str]]) -> list[str]:
    return [_count(facts.concerns[kind], *nouns, more=facts.more) for kind, nouns in kinds.items()]


def _judge_parked(facts: _Facts) -> Known:
    found = _tell_concerns(
        facts,
        {
            ConcernKind.PARKED: ("delivery is parked", "deliveries are parked"),
            ConcernKind.HELD: ("delivery is held", "deliveries are held"),
            ConcernKind.ROW_PARKED: ("row is parked", "rows are parked"),
        },
    )
    unread = [facts.unread]
    for name, queue in facts.report.queues.items():
        if not name.endswith("-poison"):
            continue
        if isinstance(queue, QueueState):
            found.append(_count(queue.length, f"message in {name}", f"messages in {name}"))
        else:
            unread.append(f"{name}: {queue.reason}")
    otherwise = "nothing is parked or held; of what was dropped only the log tells"
    return _ring_if(found, otherwise, unread)


def _judge_operator(facts: _Facts) -> Known:
    found = _tell_concerns(
        facts,
        {
            ConcernKind.WAITING: ("delivery waits", "deliveries wait"),
            ConcernKind.ROW_WAITING: ("row waits", "rows wait"),
        },
    )
    # A request to a sender that lacks a secret is logged as one for an operator.
    found += [f"{name}: {problem}" for name, problem in facts.report.sender_problems.items()]
    return _ring_if(found, "nothing waits for an operator", [facts.unread])


def _judge_oldest(facts: _Facts) -> Known:
    deliveries = facts.report.deliveries
    if not isinstance(deliveries, OpenDeliveries):
        return Known(AlertState.UNREADABLE, deliveries.reason)
    oldest = deliveries.oldest_under_way  # what is parked has an alert of its own
    if oldest is None:
        return Known(AlertState.SILENT, "no delivery is under way")
    minutes = int((facts.report.time - oldest.accepted).total_seconds() // 60)
    limit = int(OLDEST.total_seconds() // 60)
    text = f"the oldest delivery under way was accepted {minutes} min ago"
    if minutes > limit:
        return Known(AlertState.RINGS, f"{text}; the deployment may allow more than {limit}")
    return Known(AlertState.SILENT, text)


def _judge_refused(facts: _Facts) -> Known:
    found = _tell_concerns(
        facts,
        {
            ConcernKind.ENTRIES: (
                "delivery has refused entries",
                "deliveries have refused entries",
            ),
            ConcernKind.ROW_REFUSED: ("row is refused", "rows are refused"),
        },
    )
    return _ring_if(found, "nothing that was refused is left", [facts.unread])


def _judge_unproven(facts: _Facts) -> Known:
    refusals = facts.report.refusals
    if isinstance(refusals, Unreadable):
        return Known(AlertState.UNREADABLE, refusals.reason)
    found = [
        f"{item.sender}: {item.count} answers 401 in the last 24 hours, the last between "
        f"{item.last:%H:%M} and {item.last + _HOUR:%H:%M} UTC"
        for item in refusals.by_sender
        if item.status == 401
        and item.sender is not None
        and item.count >= _UNPROVEN
        and item.last is not None
        and find_hour(facts.report.time) - item.last <= _RECENT
    ]
    return _ring_if(found, f"no sender has {_UNPROVEN} answers 401, and one of them lately")


def _judge_silent(facts: _Facts) -> Known:
    housekeeping = facts.report.housekeeping
    if not isinstance(housekeeping, HousekeepingState):
        return Known(AlertState.UNREADABLE, housekeeping.reason)
    if housekeeping.is_overdue:
        return Known(AlertState.RINGS, "housekeeping should have run by now")
    last = housekeeping.last
    if last is None:
        return Known(AlertState.SILENT, "housekeeping has not run yet, and is not overdue")
    if facts.report.time - last.ended > _SILENT:
        return Known(AlertState.RINGS, "housekeeping ended last more than two hours ago")
    return Known(AlertState.SILENT, "housekeeping runs")


def _judge_backlog(facts: _Facts) -> Known:
    queues = facts.report.queues.values()
    lengths = [queue.length for queue in queues if isinstance(queue, QueueState)]
    total = sum(lengths)
    text = f"{total} messages in all queues"
    if total > BACKLOG:
        return Known(AlertState.RINGS, f"{text}; the deployment may allow more than {BACKLOG}")
    if len(lengths) < len(facts.report.queues):
        return Known(AlertState.UNREADABLE, "not every queue can be read")
    return Known(AlertState.SILENT, text)


def _leave_to(who: str) -> Callable[[_Facts], Known]:
    return lambda _: Known(AlertState.ELSEWHERE, f"only {who} knows")


_LOG = _leave_to("the log")

# Every alert of infra/modules, in the order of docs/operations.md.
ALERTS = (
    _Alert("parked", "Deliveries, rows or events were given up on", _judge_parked),
    _Alert("operator", "Work waits until an operator has mended something", _judge_operator),
    _Alert("oldest", "A delivery has been on its way for too long", _judge_oldest),
    _Alert("errors", "More than one in twenty requests to the endpoints failed", _LOG),
    _Alert("throttled", "An upstream throttles, and work is requeued again and again", _LOG),
    _Alert("gap", "A sender has told of events that never came", _LOG),
    _Alert("refused", "Entries or rows were refused", _judge_refused),
    _Alert(
        "job",
        "A job that an operator started has failed",
        lambda _: Known(AlertState.ELSEWHERE, "the page Jobs shows which have failed"),
    ),
    _Alert("unproven", "Requests to the address of a sender are not proven", _judge_unproven),
    _Alert("audit", "Somebody was shown data, or wrote it, without a whole audit entry", _LOG),
    _Alert("silent", "The app has not told of its housekeeping for two hours", _judge_silent),
    _Alert("quiet", "No delivery came, though some were expected", _leave_to("the deployment")),
    _Alert("backlog", "All queues together hold too many messages", _judge_backlog),
    _Alert("undelivered", "Event Grid could not bring events to the queue", _leave_to("Azure")),
    _Alert("budget", "The costs come near the budget of the month", _leave_to("Azure")),
)
