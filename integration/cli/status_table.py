"""A status report as lines of text: what is well in few words, and at the end what is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from integration.core.model import Activity, Delivery, Status
from integration.operations.status import (
    NEWEST,
    LastDeliveries,
    OpenDeliveries,
    StatusReport,
    Unreadable,
    UpstreamTrouble,
)
from integration.queues.queue_reader import QueueState

# Characters of a reason: a terminal's line.
_MAX_REASON = 90

_NOTHING = "-"

# How old the newest trouble of an upstream that fails now may be.
_OF_LATE = timedelta(minutes=10)

# Statuses of requests that an upstream should have done: see docs/http.md, and core.http.
_FAILED = frozenset({"401", "403", "unreachable", "not in time", "broken off", "given up"})


def render_status(report: StatusReport) -> list[str]:
    """Return the lines of a report. The last one says how much a person should look at."""
    lines: list[str] = [f"status at {_format_time(report.time)}"]
    for part in (
        _render_queues(report),
        _render_deliveries(report),
        _render_senders(report),
        _render_refusals(report),
        _render_upstreams(report),
        _render_housekeeping(report),
    ):
        lines += ["", *part]
    concerns = find_concerns(report)
    if not concerns:
        return [*lines, "", "status: nothing to look at"]
    return [*lines, "", "status: look at", *(f"  {concern}" for concern in concerns)]


def find_concerns(report: StatusReport) -> list[str]:
    """Return what a person should look at, one line each."""
    return [
        *_find_queue_concerns(report),
        *_find_delivery_concerns(report),
        *_find_upstream_concerns(report),
        *_find_housekeeping_concerns(report),
        *(f"settings of senders: {text}" for text in report.sender_problems.values()),
    ]


def _find_queue_concerns(report: StatusReport) -> Iterator[str]:
    for name, state in report.queues.items():
        if isinstance(state, Unreadable):
            yield f"queue {name}: cannot be read: {state.reason}"
        elif name.endswith("-poison") and state.length:
            yield f"queue {name}: {_count(state.length, 'message')} failed repeatedly"


def _find_delivery_concerns(report: StatusReport) -> Iterator[str]:
    deliveries = report.deliveries
    if isinstance(deliveries, Unreadable):
        yield f"deliveries: cannot be read: {deliveries.reason}"
    elif deliveries.parked:
        least = "at least " if deliveries.more else ""
        parked = _count(deliveries.parked, "parked delivery", "parked deliveries")
        yield f"deliveries: {least}{parked}: GET /api/deliveries?status=parked has the reasons"
    if isinstance(report.senders, Unreadable):
        yield f"senders: cannot be read: {report.senders.reason}"
    if isinstance(report.refusals, Unreadable):
        yield f"refused requests: cannot be read: {report.refusals.reason}"


def _find_upstream_concerns(report: StatusReport) -> Iterator[str]:
    """Name the upstreams that have failed of late. Refusals and throttling are no failures."""
    part = report.activity
    if isinstance(part, Unreadable):
        yield f"upstreams: cannot be read: {part.reason}"
        return
    for name, trouble in part.by_upstream.items():
        for entry in (trouble.last_error, trouble.last_warning):
            if entry and report.time - entry.time < _OF_LATE and _is_failure(entry.status):
                yield f"{name}: failed {_describe_entry(entry, report)}"
                break


def _is_failure(status: str) -> bool:
    return status in _FAILED or (len(status) == 3 and status.startswith("5"))


def _find_housekeeping_concerns(report: StatusReport) -> Iterator[str]:
    housekeeping = report.housekeeping
    if isinstance(housekeeping, Unreadable):
        yield f"housekeeping: cannot be read: {housekeeping.reason}"
    elif housekeeping.is_overdue:
        yield "housekeeping: overdue: does the app run?"
    elif housekeeping.last and housekeeping.last.failed:
        failed = _count(housekeeping.last.failed, "step")
        yield f"housekeeping: {failed} of its last run failed: its log says why"


def _render_queues(report: StatusReport) -> list[str]:
    """Show the queues that are not empty, each in one row with its poison queue."""
    rows = [("queue", "waiting", "oldest", "poison", "oldest")]
    for name, state in report.queues.items():
        poison = report.queues.get(f"{name}-poison")
        if poison is not None and not (_is_empty(state) and _is_empty(poison)):
            rows.append((name, *_describe_queue(state, report), *_describe_queue(poison, report)))
    if len(rows) == 1:
        return ["queues  all are empty"]
    rest = ["the others are empty"] if 2 * (len(rows) - 1) < len(report.queues) else []
    return [*_align(rows, right=(1, 3)), *rest]


def _is_empty(state: QueueState | Unreadable) -> bool:
    return isinstance(state, QueueState) and not state.length


def _describe_queue(state: QueueState | Unreadable, report: StatusReport) -> tuple[str, str]:
    if isinstance(state, Unreadable):
        return "?", _NOTHING
    if state.oldest is None:
        # Invisible: a worker has it, or its next attempt is later.
        return str(state.length), "in work or delayed" if state.length else _NOTHING
    return str(state.length), _format_age(report.time - state.oldest)


def _render_deliveries(report: StatusReport) -> list[str]:
    part = report.deliveries
    if isinstance(part, Unreadable):
        return [f"deliveries  cannot be read: {part.reason}"]
    lines = [f"deliveries  {_count_open(part)}"]
    if part.oldest is not None:
        lines.append(f"  the oldest  {_describe_oldest(part.oldest, report)}")
        if part.oldest.reason:
            lines.append(f"              {_shorten(part.oldest.reason)}")
    return lines


def _count_open(part: OpenDeliveries) -> str:
    if not part.open and not part.more:
        return "none is open"
    least = "at least " if part.more else ""
    parked = f"{least}{part.parked} of them parked" if part.parked else "none parked"
    return f"{least}{part.open} open, {parked}"


def _describe_oldest(delivery: Delivery, report: StatusReport) -> str:
    age = _format_age(report.time - delivery.accepted)
    return f"{delivery.id}  {delivery.status}, accepted {age} ago"


def _render_senders(report: StatusReport) -> list[str]:
    part = report.senders
    if isinstance(part, Unreadable):
        return [f"senders  cannot be read: {part.reason}"]
    if not part.by_sender:
        return ["sender  none is listed, and none has sent anything"]
    rows = [("sender", "last delivery")]
    for name, delivery in part.by_sender.items():
        if delivery is None:
            rows.append((name, _describe_silence(part)))
        else:
            age = _format_age(report.time - delivery.accepted)
            rows.append((name, f"{age} ago: {_describe_end(delivery)}"))
    return _align(rows)


def _render_refusals(report: StatusReport) -> list[str]:
    part = report.refusals
    if isinstance(part, Unreadable):
        return [f"refused requests  cannot be read: {part.reason}"]
    since = _format_time(part.since)
    if not part.by_sender:
        return [f"refused requests  none since {since}"]
    rows = [
        (f"  {refusal.sender or 'of no listed sender'}", str(refusal.status), str(refusal.count))
        for refusal in part.by_sender
    ]
    return [f"refused requests since {since}", *_align(rows, right=(2,))]


def _describe_silence(part: LastDeliveries) -> str:
    if not part.more or part.since is None:
        return "none is kept"
    return f"none among the newest {NEWEST}, which begin at {_format_time(part.since)}"


def _describe_end(delivery: Delivery) -> str:
    if delivery.status is Status.DONE and delivery.refused:
        return f"done, {delivery.refused} of {_count(delivery.entries, 'entry', 'entries')} refused"
    return str(delivery.status)


def _render_upstreams(report: StatusReport) -> list[str]:
    part = report.activity
    if isinstance(part, Unreadable):
        return [f"upstreams  cannot be read: {part.reason}"]
    if not part.by_upstream:
        return [f"upstreams  no error and no warning since {_format_time(part.since)}"]
    least = "at least " if part.more else ""
    rows = [
        (
            name,
            f"{least}{_count(count, word)}",
            f"the last {_describe_entry(last, report)}",
        )
        for name, trouble in part.by_upstream.items()
        for count, word, last in _list_trouble(trouble)
    ]
    title = f"upstreams since {_format_time(part.since)}"
    return [title, *(f"  {line}" for line in _align(rows))]


def _describe_entry(entry: Activity, report: StatusReport) -> str:
    return f"{_format_age(report.time - entry.time)} ago ({entry.action}: {entry.status})"


def _list_trouble(trouble: UpstreamTrouble) -> Iterator[tuple[int, str, Activity]]:
    if trouble.last_error is not None:
        yield trouble.errors, "error", trouble.last_error
    if trouble.last_warning is not None:
        yield trouble.warnings, "warning", trouble.last_warning


def _render_housekeeping(report: StatusReport) -> list[str]:
    part = report.housekeeping
    if isinstance(part, Unreadable):
        return [f"housekeeping  cannot be read: {part.reason}"]
    next_ = ""
    if part.due is not None:
        next_ = f"; {'overdue since' if part.is_overdue else 'due at'} {_format_time(part.due)}"
    if part.last is None:
        return [f"housekeeping  no run is recorded{next_}"]
    last = part.last
    took = _format_age(last.ended - last.began)
    did = [
        f"{number} {word}"
        for number, word in (
            (last.queued, "queued again"),
            (last.parked, "parked"),
            (last.forgotten, "forgotten"),
            (last.failed, "failed"),
        )
        if number
    ]
    ago = _format_age(report.time - last.ended)
    text = f"ended {ago} ago, took {took}: {', '.join(did) or 'nothing to do'}"
    return [f"housekeeping  {text}{'; the next run goes on' if last.more else ''}{next_}"]


def _align(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Return the rows as lines with their columns below each other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    sides = [">" if column in right else "<" for column in range(len(widths))]
    return [
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def _format_time(moment: datetime) -> str:
    """In UTC, as the log has it."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _format_age(age: timedelta) -> str:
    seconds = max(0, int(age.total_seconds()))
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 2 * 3600:
        return f"{seconds // 60} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h"
    return f"{seconds // 86400} days"


def _count(number: int, singular: str, plural: str = "") -> str:
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_REASON else f"{text[: _MAX_REASON - 1]}…"
