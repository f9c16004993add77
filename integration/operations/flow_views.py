"""Describe what passed the relay as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from integration.core.flow import NO_SENDER, OTHER_ELEMENTS, OTHER_SENDERS, UnmappedElement
from integration.operations.flow import FlowReport, SenderFlow


def describe_flow(report: FlowReport) -> dict[str, Any]:
    """Return a report. Every hour and sender has every count."""
    return {
        "time": report.time,
        "since": report.since,
        "hours": [{"hour": part.hour, **asdict(part.counts)} for part in report.by_hour],
        "senders": [_describe_sender(sender) for sender in report.by_sender],
        "unmapped": [
            {**_describe_element(element), "count": count}
            for element, count in report.unmapped.items()
        ],
        "more": report.is_cut,
    }


def _describe_sender(sender: SenderFlow) -> dict[str, Any]:
    names: dict[str, dict[str, Any]] = {
        NO_SENDER: {"sender": None},
        OTHER_SENDERS: {"others": True},
    }
    named = names.get(sender.name, {"sender": sender.name})
    return {**named, **asdict(sender.counts), "last_seen": sender.last_seen}


def _describe_element(element: UnmappedElement) -> dict[str, Any]:
    if element == OTHER_ELEMENTS:
        return {"others": True}
    path = {"path": element.path} if element.path else {}
    return {"type": element.type, **path, "note": element.note}
