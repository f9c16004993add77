"""What a job is asked to do: parsed from JSON, and described as JSON. Pure.

{"kind": "replay", "filter": {"attention": "entries", "sender": "north"}, "started_by": "a name"}
{"kind": "reconcile", "filter": {"type": "Patient", "compare": "content", "dry_run": true}}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from integration.core.errors import Issue, Rejected
from integration.core.model import OPEN, UNDER_WAY, Status
from integration.journal.concern import (
    KINDS_OF_GROUPS,
    MAX_REASON_LENGTH,
    ConcernGroup,
    ConcernKind,
)
from integration.journal.delivery_filter import DeliveryFilter
from integration.journal.jobs import (
    MAX_FILTER_LENGTH,
    MAX_NAME_LENGTH,
    Comparison,
    Job,
    JobFilter,
    JobKind,
    PreviewSummary,
    ReconcileFilter,
)
from integration.operations import query_parameters
from integration.operations.reconcile_jobs import get_run_id

_FIELDS = ("kind", "filter", "started_by")
_RECONCILE_FIELDS = ("type", "compare", "dry_run")
_FILTER_FIELDS = (
    "status",
    "attention",
    "concern",
    "same_reason",
    "sender",
    "reason",
    "kind",
    "since",
    "until",
    "waiting",
)

# The groups of which a job may work on a kind alone.
_GROUPS = (ConcernGroup.DELIVERY, ConcernGroup.ENTRIES, ConcernGroup.ROWS)

# The row of another resource ends it, and nothing that a job does.
_INCOMPLETE = ConcernKind.ROW_INCOMPLETE


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """What an operator wants done."""

    kind: JobKind
    filter: JobFilter
    started_by: str = ""


def parse_job_request(body: Any, user: str | None = None) -> JobRequest:
    """Parse the body of a request that starts a job. `user`: who asks, where something in front of
    the app says so: that counts for more than the body. Raises Rejected."""
    fields = _parse_object(body, "the body", _FIELDS)
    kind = query_parameters.parse_choice(_parse_text(fields, "kind"), JobKind, "kind")
    if kind is None or kind is JobKind.PREVIEW:
        kinds = ", ".join(name for name in JobKind if name is not JobKind.PREVIEW)
        text = f"kind must be one of {kinds}; a preview begins at /api/configuration"
        raise Rejected(Issue("required", text, "kind"))
    known = _RECONCILE_FIELDS if kind is JobKind.RECONCILE else _FILTER_FIELDS
    params = _parse_object(fields.get("filter", {}), "filter", known)
    name = _parse_text(fields, "started_by", limit=MAX_NAME_LENGTH)
    if kind is JobKind.RECONCILE:
        job_filter = _parse_reconcile_filter(params)
    else:
        texts = {
            name: _parse_text(params, name, f"filter.{name}", MAX_REASON_LENGTH) for name in params
        }
        job_filter = build_job_filter(kind, texts)
    return JobRequest(kind=kind, filter=job_filter, started_by=user or name or "")


def build_job_filter(kind: JobKind, params: Mapping[str, str | None]) -> JobFilter:
    """Build the filter of a job from texts by name, as the lists of deliveries take them: status,
    attention, sender, reason, kind, since, until, waiting; and `concern`, one kind of what needs
    attention. Raises Rejected, also for a reconcile, which works on no deliveries."""
    if kind in (JobKind.RECONCILE, JobKind.PREVIEW):
        raise Rejected(Issue("value", f"a {kind} works on no deliveries", "kind"))
    given = {name: value for name, value in params.items() if value is not None}
    for name, value in given.items():
        limit = MAX_REASON_LENGTH if name == "same_reason" else MAX_FILTER_LENGTH
        _check_text(value, name, f"filter.{name}", limit)
    status = query_parameters.parse_choice(given.get("status"), Status, "status")
    group = query_parameters.parse_choice(given.get("attention"), ConcernGroup, "attention")
    concern = query_parameters.parse_choice(given.get("concern"), ConcernKind, "concern")
    same_reason = given.get("same_reason")
    if same_reason is not None and concern is None:
        text = "same_reason stands with the concern whose reason it is"
        raise Rejected(Issue("value", text, "filter.same_reason"))
    if concern is not None:
        group = _choose_group(concern, status, group)
    waiting = query_parameters.parse_flag(given.get("waiting"), "waiting")
    if waiting:
        _check_waiting(status, group)
    else:
        if kind is JobKind.REPLAY and status is None and group is None:
            status = Status.PARKED
        _check_target(kind, status, group)
    criteria = DeliveryFilter(
        status=status,
        sender=given.get("sender"),
        kind=given.get("kind"),
        reason=given.get("reason", ""),
        since=query_parameters.parse_datetime(given, "since"),
        until=query_parameters.parse_datetime(given, "until"),
        waiting=waiting,
    )
    return JobFilter(criteria=criteria, group=group, concern=concern, same_reason=same_reason)


def build_reconcile_filter(type_: str, compare: str | None, *, dry_run: bool) -> JobFilter:
    """Build the filter of a reconcile. `compare`: None: the content. Raises Rejected."""
    comparison = query_parameters.parse_choice(compare, Comparison, "compare")
    chosen = ReconcileFilter(type=type_, compare=comparison or Comparison.CONTENT, dry_run=dry_run)
    return JobFilter(reconcile=chosen)


def _parse_reconcile_filter(params: Mapping[str, Any]) -> JobFilter:
    type_ = _parse_text(params, "type", "filter.type")
    if not type_:
        text = "a reconcile needs the type of the resources, as Patient"
        raise Rejected(Issue("required", text, "filter.type"))
    dry_run = params.get("dry_run", False)
    if not isinstance(dry_run, bool):
        raise Rejected(Issue("value", "dry_run must be true or false", "filter.dry_run"))
    compare = _parse_text(params, "compare", "filter.compare")
    return build_reconcile_filter(type_, compare, dry_run=dry_run)


def _choose_group(
    concern: ConcernKind, status: Status | None, group: ConcernGroup | None
) -> ConcernGroup:
    """Return the group of a kind that was asked for. Raises Rejected."""
    if status is not None or group is not None:
        text = "concern stands alone, without status and attention"
        raise Rejected(Issue("value", text, "filter.concern"))
    if concern is _INCOMPLETE:
        text = f"a {_INCOMPLETE} ends by itself, when the row of the other resource is there"
        raise Rejected(Issue("value", text, "filter.concern"))
    return next(found for found in _GROUPS if concern in KINDS_OF_GROUPS[found])


def _check_waiting(status: Status | None, group: ConcernGroup | None) -> None:
    """What waits is under way: nothing else does."""
    if group is not None or (status is not None and status not in UNDER_WAY):
        text = "waiting stands alone, or with status=accepted or processing"
        raise Rejected(Issue("value", text, "filter.waiting"))


def _check_target(kind: JobKind, status: Status | None, group: ConcernGroup | None) -> None:
    if kind is JobKind.REPLAY:
        is_right = (status, group) in (
            (Status.PARKED, None),
            (None, ConcernGroup.DELIVERY),
            (None, ConcernGroup.ENTRIES),
            (None, ConcernGroup.ROWS),
        )
        text = "a replay takes status=parked, or attention=delivery, entries or rows, or a concern"
    else:
        is_right = (status in OPEN and group is None) or (
            status is None and group is ConcernGroup.DELIVERY
        )
        text = (
            "a cancel takes status=accepted, processing or parked, or attention=delivery, or "
            "concern=parked, held or waiting"
        )
    if not is_right:
        raise Rejected(Issue("value", text, "filter"))


def describe_job(job: Job) -> dict[str, Any]:
    """Return a job as JSON shows it."""
    criteria, reconcile, preview = job.filter.criteria, job.filter.reconcile, job.filter.preview
    walked = reconcile or preview
    chosen = {
        "type": None if walked is None else walked.type,
        "base": None if preview is None else preview.base,
        "documents": None if preview is None else sorted(preview.changes),
        "compare": None if reconcile is None else reconcile.compare,
        "dry_run": None if reconcile is None else reconcile.dry_run,
        "ends_bringing": None if reconcile is None else reconcile.ends_bringing or None,
        "status": criteria.status,
        "attention": job.filter.group if job.filter.concern is None else None,
        "concern": job.filter.concern,
        "same_reason": job.filter.same_reason,
        "sender": criteria.sender,
        "reason": criteria.reason or None,
        "kind": criteria.kind,
        "since": criteria.since,
        "until": criteria.until,
        "waiting": criteria.waiting or None,
    }
    fields = {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "filter": {name: value for name, value in chosen.items() if value is not None},
        "started": job.started,
        "started_by": job.started_by or None,
        "found": job.found,
        "looked_at": job.looked_at,
        "done": job.done,
        "left_out": job.left_out,
        "failed": job.failed,
        "summary": None if job.summary is None else describe_summary(job.summary),
        "reason": job.reason,
        "waiting": job.waiting,
        "delivery": get_run_id(job),
        "progressed": job.progressed,
        "ended": job.ended,
    }
    return {name: value for name, value in fields.items() if value is not None}


def describe_summary(summary: PreviewSummary) -> dict[str, Any]:
    """Return what a preview has found as JSON shows it."""
    return {
        "columns": dict(sorted(summary.columns.items())),
        "without_row": summary.without_row,
        "examples": list(summary.examples),
    }


def _parse_object(value: Any, name: str, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Rejected(Issue("structure", f"{name} must be a JSON object"))
    if unknown := sorted(set(value) - set(known)):
        text = f"{name} has fields that are not known: it takes {', '.join(known)}"
        raise Rejected(Issue("not-supported", text, _bound_names(unknown)))
    return value


def _bound_names(names: list[str]) -> str:
    return ", ".join(names)[:MAX_FILTER_LENGTH]


def _parse_text(
    fields: Mapping[str, Any], name: str, where: str | None = None, limit: int = MAX_FILTER_LENGTH
) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    return _check_text(value, name, where or name, limit)


def _check_text(value: Any, name: str, where: str, limit: int = MAX_FILTER_LENGTH) -> str:
    if not isinstance(value, str) or len(value) > limit or not value.isprintable():
        text = f"{name} must be a text of at most {limit} characters in one line"
        raise Rejected(Issue("value", text, where))
    return value
