"""Describe a delivery as JSON, for senders, operators and pages. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from integration.core import decimal_json
from integration.core.model import Activity, Delivery, EntryResult, RowResult, Status
from integration.journal.audit_entry import AuditEntry
from integration.journal.concern import Concern, ConcernKind

# What an operator can do about a thing that needs attention.
_TODO = {
    ConcernKind.ENTRIES: "mend the cause and replay, or have the sender correct them",
    ConcernKind.PARKED: "mend the cause and replay, or cancel",
    ConcernKind.HELD: "mend the cause and replay, or cancel",
    ConcernKind.WAITING: "mend what the reason names: it goes on by itself",
    ConcernKind.ROW_REFUSED: "mend the cause and replay, or correct the resource",
    ConcernKind.ROW_PARKED: "mend the cause and replay",
    ConcernKind.ROW_WAITING: "mend what the reason names: it goes on by itself",
    ConcernKind.ROW_INCOMPLETE: "wait: it is filled when the row comes, or have that resource sent",
}

# Fields of a delivery that say nothing to a person.
_OF_THE_JOURNAL = frozenset({"etag", "queued_lanes", "done_lanes", "begun", "bases", "attention"})


def describe_delivery(delivery: Delivery) -> dict[str, Any]:
    """Return a delivery as the list of deliveries shows it."""
    return {
        name: value
        for name, value in asdict(delivery).items()
        if value is not None and name not in _OF_THE_JOURNAL
    }


def describe_activity(entry: Activity) -> dict[str, Any]:
    """Return an entry of the activity log."""
    return {name: value for name, value in asdict(entry).items() if value not in (None, ())}


def describe_audit_entry(entry: AuditEntry) -> dict[str, Any]:
    """Return an entry of the audit log."""
    fields = {"id": entry.id, "time": entry.time, **asdict(entry.reader), **asdict(entry.access)}
    return {name: value for name, value in fields.items() if value not in (None, ())}


def describe_concern(concern: Concern) -> dict[str, Any]:
    """Return a thing that needs attention, and what an operator can do about it."""
    fields = {**asdict(concern), "todo": _TODO[concern.kind]}
    return {name: value for name, value in fields.items() if value not in (None, (), "", 0)} | {
        name: value for name, value in (("lane", concern.lane),) if value is not None
    }


def describe_progress(delivery: Delivery) -> str:
    """Return a text of at most 100 characters: https://hl7.org/fhir/R4/async.html"""
    if delivery.status is Status.PROCESSING:
        return f"processing: {delivery.lanes_done} of {delivery.lanes} lanes done"
    return f"{delivery.status}: {delivery.entries} entries"


def build_response_bundle(
    delivery: Delivery, results: Iterable[EntryResult], rows: Sequence[RowResult]
) -> dict[str, Any]:
    """Build the response to a delivery: one entry for each of the sender's, in the same order."""
    by_resource = {row.resource: row for row in rows}
    entries = [_build_entry(result, by_resource) for result in results]
    if delivery.split and entries:
        text = (
            "the FHIR server could not take the transaction in one request: it was sent in "
            f"{delivery.units} units"
        )
        _add_issue(entries[0], "informational", text)
    if delivery.gap and entries:
        _add_issue(entries[0], "incomplete", delivery.gap, "warning")
    if delivery.more and entries:
        _add_issue(entries[0], "informational", "the link to the next page was not followed")
    kind = "transaction" if delivery.kind == "transaction" else "batch"
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": f"{kind}-response"}
    # An array is never empty: https://hl7.org/fhir/R4/json.html#null
    return {**bundle, "entry": entries} if entries else bundle


def _build_entry(result: EntryResult, rows: dict[str, RowResult]) -> dict[str, Any]:
    response = {
        "status": str(result.status),
        "location": result.location,
        "etag": result.etag,
        "lastModified": result.last_modified,
    }
    entry: dict[str, Any] = {"fullUrl": result.full_url} if result.full_url else {}
    if result.resource is not None:
        entry["resource"] = decimal_json.Raw(result.resource.encode())
    entry["response"] = {name: value for name, value in response.items() if value is not None}
    if result.issues:
        outcome = {"resourceType": "OperationOutcome", "issue": result.issues}
        entry["response"]["outcome"] = outcome
    row = rows.get((result.location or "").partition("/_history/")[0])
    for note in row.notes if row else ():
        _add_issue(entry, "incomplete", f"{row.table if row else ''} row: {note}")
    return entry


def _add_issue(entry: dict[str, Any], code: str, text: str, severity: str = "information") -> None:
    response = entry["response"]
    outcome = response.get("outcome", {"resourceType": "OperationOutcome", "issue": []})
    issue = {"severity": severity, "code": code, "diagnostics": text}
    response["outcome"] = {**outcome, "issue": [*outcome["issue"], issue]}
