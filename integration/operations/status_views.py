"""Describe a status report as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from integration.core.model import Activity, Delivery
from integration.operations.status import (
    ActivityTrouble,
    HousekeepingState,
    LastDeliveries,
    OpenDeliveries,
    RefusedRequests,
    StatusReport,
    Unreadable,
    UpstreamTrouble,
)
from integration.queues.queue_reader import QueueState

# What is said of a delivery and of an entry of the activity log: no ids of resources or rows.
_DELIVERY = ("id", "sender", "accepted", "status", "finished", "entries", "refused", "reason")
_ENTRY = ("time", "action", "status", "delivery")


def describe_status(report: StatusReport) -> dict[str, Any]:
    """Return a report. A part that could not be read holds `unavailable`, and nothing else."""
    activity = report.activity
    return {
        "time": report.time,
        "queues": [
            {"queue": name, **_describe_part(state, report.time)}
            for name, state in report.queues.items()
        ],
        "deliveries": _describe_part(report.deliveries, report.time),
        "senders": _describe_part(report.senders, report.time),
        "upstreams": {
            **_describe_part(activity, report.time),
            "last_check": _describe_check(report),
        },
        "housekeeping": _describe_part(report.housekeeping, report.time),
        "sender_problems": report.sender_problems,
        "refused": _describe_part(report.refusals, report.time),
        "worker": {"started": report.started},
    }


def _describe_part(part: object, now: datetime) -> dict[str, Any]:
    match part:
        case Unreadable(reason=reason):
            return {"unavailable": reason}
        case QueueState(length=length, oldest=oldest):
            age = None if oldest is None else max(0, int((now - oldest).total_seconds()))
            return _drop_missing({"length": length, "oldest": oldest, "age": age})
        case OpenDeliveries():
            return {
                "counted": part.counted,
                "open": part.open,
                "parked": part.parked,
                "more": part.more,
                "oldest": _describe_delivery(part.oldest),
            }
        case LastDeliveries():
            return {
                "last": [
                    {"sender": name, "delivery": _describe_delivery(delivery)}
                    for name, delivery in part.by_sender.items()
                ],
                "looked_at": part.looked_at,
                "since": part.since,
                "more": part.more,
            }
        case ActivityTrouble():
            return {
                "since": part.since,
                "more": part.more,
                "trouble": [
                    _describe_trouble(name, trouble) for name, trouble in part.by_upstream.items()
                ],
            }
        case RefusedRequests(since=since, by_sender=by_sender):
            requests = [_drop_missing(asdict(count)) for count in by_sender]
            return {"since": since, "requests": requests}
        case HousekeepingState():
            return {
                "last": None if part.last is None else asdict(part.last),
                "due": part.due,
                "overdue": part.is_overdue,
            }
    raise TypeError(type(part).__name__)


def _describe_delivery(delivery: Delivery | None) -> dict[str, Any] | None:
    return None if delivery is None else _select(delivery, _DELIVERY)


def _describe_trouble(upstream: str, trouble: UpstreamTrouble) -> dict[str, Any]:
    return {
        "upstream": upstream,
        "errors": trouble.errors,
        "warnings": trouble.warnings,
        **_drop_missing(
            {
                "last_error": _describe_entry(trouble.last_error),
                "last_warning": _describe_entry(trouble.last_warning),
            }
        ),
    }


def _describe_entry(entry: Activity | None) -> dict[str, Any] | None:
    return None if entry is None else _select(entry, _ENTRY)


def _describe_check(report: StatusReport) -> dict[str, Any] | None:
    checked = report.upstreams
    return None if checked is None else {"checked": checked.checked, **checked.texts}


def _select(value: object, names: tuple[str, ...]) -> dict[str, Any]:
    return _drop_missing({name: getattr(value, name) for name in names})


def _drop_missing(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
