"""Rows through the Dataverse healthcare APIs: the organisation's own maps, in the data integration
toolkit, make them of what FHIR has.

The API writes whatever it is given, without a condition: of two that send one resource, the slower
could leave the older state. So each takes its turn first, and reads FHIR only then; the row of
the turn keeps what was sent last, so that a claim that comes twice writes once.
docs/decisions/0009-the-healthcare-apis-take-turns.md says what follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from integration.core.activity import add_activity_context
from integration.core.errors import Misconfigured, Unavailable, Unmappable
from integration.core.model import RowResult, WorkItem
from integration.dataverse import upsert_bundle
from integration.dataverse.client import get_error_code
from integration.dataverse.requests import Change
from integration.dataverse.upsert_bundle import Action, UpsertResponse
from integration.fhir import references, source_version
from integration.fhir.grammar import parse_literal
from integration.journal import write_guard
from integration.journal.write_guard import HeldLocks, Write, WriteGuard
from integration.mapping.keys import fit_fhir_id
from integration.mapping.model import EntityMap, LongId
from integration.mirror import web_api_sink
from integration.mirror.web_api_sink import WebApiSink

# What the row of a turn says where a row was deactivated here, and not by a person.
_DEACTIVATED = "d:"


@dataclass(frozen=True, slots=True)
class HealthcareApiSink:
    """What sending needs. `rows`: the Web API, for what the healthcare APIs have no request for."""

    web_api: WebApiSink
    guard: WriteGuard


@dataclass(frozen=True, slots=True)
class _Outcome:
    """`stamp`: what is sent in full, for the row of the turn, if that changes (`sent`)."""

    result: RowResult
    sent: bool = False
    source_version: str | None = None


@dataclass(frozen=True, slots=True)
class _Subject:
    """The resource that a claim names, and its turn."""

    entity: EntityMap
    item: WorkItem
    held: HeldLocks
    last_sent: str | None  # what was sent last
    attempted_before: bool  # an earlier try may have made the row, and told nobody

    @property
    def resource(self) -> str:
        return self.item.resource or ""

    def build_result(
        self, action: str, row: str | None, version: str | None, *notes: str
    ) -> RowResult:
        delivery, table = self.item.delivery, self.entity.table
        return RowResult(delivery, self.resource, table, row, action, version=version, notes=notes)


async def bring_up_to_date(sink: HealthcareApiSink, entity: EntityMap, item: WorkItem) -> RowResult:
    """The rows of `claim.resource` as FHIR has it now. Raises Unavailable or Misconfigured."""
    held = HeldLocks(item.delivery, "mirror", sink.guard.token())
    write = Write(f"mirror {item.resource}", (0,), ordered=False)
    await write_guard.acquire(sink.guard, held, [write])
    (lock,) = held.previous.values()
    subject = _Subject(entity, item, held, lock.source_version, bool(lock.attempted_by))
    try:
        outcome = await _send_current_state(sink, subject)
    except Unmappable as problem:
        outcome = _Outcome(subject.build_result("refused", None, None, str(problem)))
    except (Unavailable, Misconfigured):
        await write_guard.release(sink.guard, held, {})
        raise
    if outcome.sent:
        recorded = replace(write, source_version=outcome.source_version, ordered=True)
        held.writes = dict.fromkeys(held.writes, recorded)
    await write_guard.release(sink.guard, held, {0: outcome.sent})
    return outcome.result


async def _send_current_state(sink: HealthcareApiSink, subject: _Subject) -> _Outcome:
    resource = await sink.web_api.fhir.read(subject.resource, subject.item.delivery)
    if resource is None:
        return await _remove_row(sink, subject)
    # The API knows no digests: it would say no more than that the contact is wrong.
    columns = await sink.web_api.dataverse.get_columns(subject.entity.table)
    fit_fhir_id(replace(subject.entity, long_id=LongId.REFUSE), str(resource.get("id")), columns)
    version, version_sent = (
        resource.get("meta", {}).get("versionId"),
        _build_source_version(resource),
    )
    if _is_older(version_sent, subject.last_sent):
        return _Outcome(subject.build_result("unchanged", None, version))
    if version_sent is not None and version_sent == subject.last_sent:
        # Unless the row is lost, or was set back.
        row = await web_api_sink.find_row(sink.web_api, subject.entity, subject.item)
        if row is not None and row[subject.entity.version_column] in (None, version):
            return _Outcome(subject.build_result("unchanged", row[subject.entity.key], version))
    response = await _send_resource(sink, subject, resource)
    if isinstance(response, RowResult):
        return _Outcome(response)
    notes = upsert_bundle.describe_problems(response)
    root = response.root
    if root is None:
        return _Outcome(subject.build_result("refused", None, None, *notes))
    if root.action is Action.CREATED or subject.attempted_before:
        await web_api_sink.queue_waiting(sink.web_api, subject.resource)
    if subject.last_sent == _DEACTIVATED and resource.get("active") is not False:
        notes += await _reactivate(sink, subject, root.row or "")
    action = "created" if root.action is Action.CREATED else "updated"
    # What was sent in part is sent again by the next claim, whichever version that finds.
    return _Outcome(
        subject.build_result(action, root.row, version, *notes), response.succeeded, version_sent
    )


def _build_source_version(resource: Mapping[str, Any]) -> str | None:
    """The state of a resource, by the moment of its last update."""
    meta = resource.get("meta", {})
    updated, version = (
        source_version.normalize_instant(meta.get("lastUpdated")),
        meta.get("versionId"),
    )
    return f"u:{updated} {version}" if updated and version else None


def _is_older(version: str | None, last_sent: str | None) -> bool:
    """Whether a later state was sent already: a FHIR server may read from a copy that lags. Of
    two states of one moment nobody knows."""
    if version is None or last_sent is None or last_sent[0] != version[0]:
        return False
    return version.partition(" ")[0] < last_sent.partition(" ")[0]


# -- sending --------------------------------------------------------------------------------------


async def _send_resource(
    sink: HealthcareApiSink, subject: _Subject, resource: Mapping[str, Any]
) -> UpsertResponse | RowResult:
    """A resource is written only if all that it refers to has rows. What was not is sent again
    when one of them gets its row; or now, since one may have got it before that was noted."""
    local, references_ = _relativize_references(sink, resource)
    first = await _post_bundle(sink, subject, local)
    if isinstance(first, RowResult) or first.succeeded:
        return first
    targets = {
        result for result in references_ if result.partition("/")[0] in sink.web_api.all_maps
    }
    if not targets:
        return first
    for target in sorted(targets):
        await sink.web_api.pending_lookups.add(target, subject.item)
    second = await _post_bundle(sink, subject, local)
    if isinstance(second, RowResult) or second.root is None:
        return first
    created = first.root is not None and first.root.action is Action.CREATED
    root = replace(second.root, action=Action.CREATED) if created else second.root
    rest = (result for result in second.results if result is not second.root)
    return replace(second, results=(root, *rest))


def _relativize_references(
    sink: HealthcareApiSink, resource: Mapping[str, Any]
) -> tuple[dict[str, Any], set[str]]:
    """The resource, naming others of its server as rows are found, by Type/id; and which."""
    found: set[str] = set()
    roots = ("", f"{sink.web_api.fhir.upstream.base}/")

    def rewrite_value(element: str, value: str) -> str:
        parsed = parse_literal(value) if element == "reference" else None
        if parsed is None or parsed[0] not in roots:
            return value
        found.add(parsed[1])
        return parsed[1] + parsed[2] if parsed[0] else value

    return references.rewrite_links(resource, rewrite_value), found


async def _post_bundle(
    sink: HealthcareApiSink, subject: _Subject, resource: Mapping[str, Any]
) -> UpsertResponse | RowResult:
    dataverse, item = sink.web_api.dataverse, subject.item
    request = upsert_bundle.build_request(resource, item.delivery)
    request = replace(request, headers={**request.headers, **dataverse.options})
    ensure_time_left = partial(write_guard.ensure_time_left, sink.guard, subject.held)
    try:
        with add_activity_context(action="upsert bundle"):
            response = await dataverse.send(request, item.delivery, ensure_time_left)
    except Unavailable as error:
        if error.is_outcome_unknown:
            # Dataverse may be at it still: the turn is nobody's until its lease ends.
            subject.held.locks.clear()
        raise
    name = dataverse.upstream.name
    if response.status == 404:
        raise Misconfigured(
            f"{name} has no {upsert_bundle.NAME}: install the Dataverse healthcare APIs there, "
            "or set MIRROR_TO to web-api"
        )
    if response.status >= 400:
        why = f"answered {response.status} {get_error_code(response)}".strip()
        return subject.build_result("refused", None, None, why)
    try:
        return upsert_bundle.parse_response(response.body, subject.resource)
    except ValueError:
        why = f"{upsert_bundle.NAME} was not answered as documented"
        raise Unavailable(name, why) from None


# -- deleted --------------------------------------------------------------------------------------


async def _remove_row(sink: HealthcareApiSink, subject: _Subject) -> _Outcome:
    """Deleted in FHIR: the healthcare APIs have no request for it, the Web API has."""
    result = await web_api_sink.remove_row(sink.web_api, subject.entity, subject.item)
    if result.action == "refused":
        return _Outcome(result)
    inactive = result.row is not None and sink.web_api.on_delete == "deactivate"
    return _Outcome(result, True, _DEACTIVATED if inactive else None)


async def _reactivate(sink: HealthcareApiSink, subject: _Subject, row: str) -> tuple[str, ...]:
    """A resource has come back whose row was deactivated here: the toolkit's maps need not know
    of that."""
    change = Change("PATCH", subject.entity.entity_set, row, {"statecode": 0}, etag="*")
    response = await sink.web_api.dataverse.apply_changes([change], subject.item.delivery)
    if response.status >= 400:
        return (f"statecode: answered {response.status} {get_error_code(response)}".strip(),)
    return ()
