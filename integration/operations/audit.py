"""VERBS record_answer, record_dry_run, record_correction, find_audit_entries: who was shown what,
and who has sent a correction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from integration.core.errors import Issue, Rejected
from integration.core.model import EntryResult, Status
from integration.fhir.grammar import is_id, is_type
from integration.journal.audit_entry import AccessAction, AccessKind, Reader, build_access
from integration.journal.audit_log import AuditFilter, AuditLog, AuditPage
from integration.journal.audit_recorder import AuditRecorder, record
from integration.operations import query_parameters
from integration.operations.deliveries import DeliveryStatus

# The query parameters whose value must be that of the entry.
_EXACT_FILTERS = ("sender", "user", "resource", "delivery")
PARAMETERS = ("since", "until", *_EXACT_FILTERS, "kind", "_count", "after", "_format")


class _ShownEntry(msgspec.Struct):
    """An entry of a searchset."""

    resource: Any = None


class _Shown(msgspec.Struct, rename="camel"):
    """What tells a resource from others. All else in it is skipped."""

    resource_type: Any = None
    id: Any = None
    entry: list[_ShownEntry] | None = None


_decode_shown = msgspec.json.Decoder(_Shown).decode


async def find_audit_entries(log: AuditLog, params: Mapping[str, str]) -> AuditPage:
    """Return entries of the audit log, newest first, by the query parameters PARAMETERS. Raises
    Rejected."""
    criteria = AuditFilter(
        since=query_parameters.parse_datetime(params, "since"),
        until=query_parameters.parse_datetime(params, "until"),
        kind=query_parameters.parse_choice(params.get("kind"), AccessKind, "kind"),
        **{name: params[name] for name in _EXACT_FILTERS if params.get(name)},
    )
    count = query_parameters.parse_count(params.get("_count", query_parameters.DEFAULT_COUNT))
    try:
        return await log.list_entries(criteria, count, params.get("after"))
    except ValueError:
        text = "after must be as in the link to the next page"
        raise Rejected(Issue("value", text, "after")) from None


async def record_answer(recorder: AuditRecorder, reader: Reader, status: DeliveryStatus) -> None:
    """Record that somebody gets the response bundle of a delivery. What tells its progress, and a
    bundle without entries, shows nobody's data. Raises Unavailable or Misconfigured."""
    delivery = status.delivery
    if delivery.status is not Status.DONE or not status.results:
        return
    access = build_access(
        AccessKind.DELIVERY_ANSWER, _list_answered(status.results), delivery=delivery.id
    )
    await record(recorder, reader, access)


async def record_dry_run(recorder: AuditRecorder, reader: Reader, plan: Mapping[str, Any]) -> None:
    """Record that a sender gets the plan of what it sent. Raises Unavailable or Misconfigured."""
    await record(recorder, reader, build_access(AccessKind.DRY_RUN, _list_planned(plan)))


async def record_correction(recorder: AuditRecorder, reader: Reader, delivery: str) -> None:
    """Record that somebody has sent a correction. `delivery`: its own id, which names the corrected
    one. Raises Unavailable or Misconfigured."""
    access = build_access(
        AccessKind.CORRECTION, (), action=AccessAction.UPDATE, status=202, delivery=delivery
    )
    await record(recorder, reader, access)


def _list_answered(results: Sequence[EntryResult]) -> Iterator[str]:
    """Yield the name of each resource that a response bundle names or holds."""
    for result in results:
        if result.resource is not None:
            yield from _list_shown(result.resource)
        elif result.location is not None:
            yield result.location.partition("/_history/")[0]


def _list_shown(text: str) -> Iterator[str]:
    """Yield the names of a resource, or of those in a searchset."""
    try:
        shown = _decode_shown(text)
    except msgspec.DecodeError:  # a server's answer of another shape is still something shown
        yield "Resource"
        return
    if shown.entry is None:
        yield _build_name(shown.resource_type, shown.id)
    for entry in shown.entry or ():
        if isinstance(entry.resource, dict):
            yield _build_name(entry.resource.get("resourceType"), entry.resource.get("id"))


def _list_planned(plan: Mapping[str, Any]) -> Iterator[str]:
    """Yield what each entry of a plan writes or reads. A condition is a value: only the type is
    taken of it."""
    for lane in plan["lanes"]:
        for unit in lane["units"]:
            for entry in unit["entries"]:
                type_, _, id_ = entry["request"]["url"].partition("?")[0].partition("/")
                yield _build_name(type_, id_.partition("/")[0])


def _build_name(type_: object, id_: object) -> str:
    if not is_type(type_):
        return "Resource"
    return f"{type_}/{id_}" if is_id(id_) else str(type_)
