"""Describe a delivery as JSON, for senders, operators and pages. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from integration.core import decimal_json
from integration.core.model import Activity, Delivery, EntryResult, RowResult, Status
from integration.journal.audit_entry import AuditEntry
from integration.journal.concern import Concern, ConcernKind

# Seconds until a sender asks again: while its delivery is under way, while it waits for something
# to be mended, and while it is parked, which a person ends.
_PAUSE = 1
_PAUSE_FOR_OPERATOR = 300
_PAUSE_FOR_PERSON = 3600

# What an operator can do about a thing that needs attention.
_WAITING = "mend what the reason names: it goes on by itself, and at once if you replay it"
_REMEDIES = {
    ConcernKind.ENTRIES: "mend the cause and replay, or correct them; where their sender has done "
    "so, replay: what was corrected is not sent",
    ConcernKind.PARKED: "mend the cause and replay, or correct it, or cancel",
    ConcernKind.HELD: "mend the cause and replay, or correct it, or cancel",
    ConcernKind.WAITING: _WAITING,
    ConcernKind.ROW_REFUSED: "mend the cause and replay, or correct the resource",
    ConcernKind.ROW_PARKED: "mend the cause and replay",
    ConcernKind.ROW_WAITING: _WAITING,
    ConcernKind.ROW_INCOMPLETE: "wait: it is filled when the row comes, or have that resource sent",
}

# Fields of a delivery that say nothing to a person.
_OF_THE_JOURNAL = frozenset(
    {"etag", "queued_lanes", "done_lanes", "begun", "bases", "attention", "job"}
)


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
    fields = {**asdict(concern), "todo": _REMEDIES[concern.kind]}
    return {name: value for name, value in fields.items() if value not in (None, (), "", 0)} | {
        name: value for name, value in (("lane", concern.lane),) if value is not None
    }


def describe_progress(delivery: Delivery) -> str:
    """Return a text of at most 100 characters: https://hl7.org/fhir/R4/async.html"""
    if delivery.status is Status.PROCESSING:
        return f"processing: {delivery.lanes_done} of {delivery.lanes} lanes done"
    return f"{delivery.status}: {delivery.entries} entries"


def describe_waiting(delivery: Delivery) -> str | None:
    """Return why a delivery that has not ended waits; None: it is under way."""
    if delivery.status is Status.PARKED:
        since = f" since {_format_time(delivery.parked)}" if delivery.parked else ""
        return f"parked{since}: {delivery.reason}"
    if delivery.waiting is None or delivery.next_attempt is None:
        return None
    whom = "an operator" if delivery.for_operator else "another attempt"
    return (
        f"waits for {whom} since {_format_time(delivery.waiting)}; attempts that failed: "
        f"{delivery.attempts}; next one: {_format_time(delivery.next_attempt)}; last reason: "
        f"{delivery.reason}"
    )


def choose_pause(delivery: Delivery, now: datetime) -> int:
    """Return the seconds after which it is worth asking again for a delivery that has not ended."""
    if delivery.status is Status.PARKED:
        return _PAUSE_FOR_PERSON
    if delivery.waiting is None or delivery.next_attempt is None:
        return _PAUSE
    left = int((delivery.next_attempt - now).total_seconds()) + 1
    return max(left, _PAUSE_FOR_OPERATOR if delivery.for_operator else _PAUSE)


def _format_time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


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
    for text in _describe_corrections(delivery) if entries else ():
        _add_issue(entries[0], "informational", text)
    kind = "transaction" if delivery.kind == "transaction" else "batch"
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": f"{kind}-response"}
    # An array is never empty: https://hl7.org/fhir/R4/json.html#null
    return {**bundle, "entry": entries} if entries else bundle


def _describe_corrections(delivery: Delivery) -> Iterator[str]:
    if delivery.corrects is not None:
        yield f"an operator has sent this delivery in the place of {delivery.corrects}"
    if delivery.corrected_by is not None:
        by = delivery.corrected_by
        yield f"an operator has corrected this delivery: {by} has taken its place"


def describe_cancelled(delivery: Delivery) -> str:
    """Return what a sender hears of a delivery that was cancelled."""
    what = "cancelled"
    if delivery.corrected_by is not None:
        what = f"corrected by an operator, and goes on as {delivery.corrected_by}"
    return (
        f"the delivery was {what}; {delivery.written} of {delivery.entries} entries were "
        "written before, and stay"
    )


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
    written = (result.location or "").partition("/_history/")[0]
    for name in dict.fromkeys((written, *(result.queued or ()))):
        if name in rows:
            _add_row(entry, rows[name])
        elif name in (result.queued or ()):
            _add_issue(entry, "informational", f"{name}: its row is not written yet")
    return entry


def _add_row(entry: dict[str, Any], row: RowResult) -> None:
    """Tell what became of a row, then what of it is incomplete. FHIR has the resource in any case,
    so a row that is not written is no error of the entry."""
    if row.action in ("refused", "parked"):
        why = f": {row.notes[0]}" if row.notes else ""
        text = f"{row.table or row.resource} row is not written, but {row.action}{why}"
        _add_issue(entry, "incomplete", text, "warning")
        return
    if row.row is not None:
        by = f", by version {row.configuration} of the configuration" if row.configuration else ""
        _add_issue(entry, "informational", f"{row.table} row {row.row}: {row.action}{by}")
    for note in row.notes:
        _add_issue(entry, "incomplete", f"{row.table} row: {note}")
    for remark in row.remarks:
        _add_issue(entry, "informational", f"{row.table} row: {remark}")


def _add_issue(entry: dict[str, Any], code: str, text: str, severity: str = "information") -> None:
    response = entry["response"]
    outcome = response.get("outcome", {"resourceType": "OperationOutcome", "issue": []})
    issue = {"severity": severity, "code": code, "diagnostics": text}
    response["outcome"] = {**outcome, "issue": [*outcome["issue"], issue]}
