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
from integration.dataverse.client import error_code
from integration.dataverse.requests import Change
from integration.dataverse.upsert_bundle import Action, Answer
from integration.fhir import references, source_version
from integration.fhir.grammar import parse_literal
from integration.journal import write_guard
from integration.journal.write_guard import HeldLocks, Write, WriteGuard
from integration.mapping.keys import fit_fhir_id
from integration.mapping.model import EntityMap, LongId
from integration.mirror import web_api_sink
from integration.mirror.web_api_sink import WebApi

# What the row of a turn says where a row was deactivated here, and not by a person.
_DEACTIVATED = "d:"


@dataclass(frozen=True, slots=True)
class HealthcareApi:
    """What sending needs. `rows`: the Web API, for what the healthcare APIs have no request for."""

    rows: WebApi
    guard: WriteGuard


@dataclass(frozen=True, slots=True)
class _Done:
    """`stamp`: what is sent in full, for the row of the turn, if that changes (`sent`)."""

    outcome: RowResult
    sent: bool = False
    stamp: str | None = None


@dataclass(frozen=True, slots=True)
class _Subject:
    """The resource that a claim names, and its turn."""

    entity: EntityMap
    claim: WorkItem
    taken: HeldLocks
    last: str | None  # what was sent last
    doubtful: bool  # an earlier try may have made the row, and told nobody

    @property
    def resource(self) -> str:
        return self.claim.resource or ""

    def outcome(self, action: str, row: str | None, version: str | None, *notes: str) -> RowResult:
        delivery, table = self.claim.delivery, self.entity.table
        return RowResult(delivery, self.resource, table, row, action, version, notes)


async def bring(it: HealthcareApi, entity: EntityMap, claim: WorkItem) -> RowResult:
    """The rows of `claim.resource` as FHIR has it now. Raises Unavailable or Misconfigured."""
    taken = HeldLocks(claim.delivery, "mirror", it.guard.token())
    write = Write(f"mirror {claim.resource}", (0,), ordered=False)
    await write_guard.acquire(it.guard, taken, [write])
    (turn,) = taken.found.values()
    subject = _Subject(entity, claim, taken, turn.source_version, bool(turn.attempted_by))
    try:
        done = await _brought(it, subject)
    except Unmappable as problem:
        done = _Done(subject.outcome("refused", None, None, str(problem)))
    except (Unavailable, Misconfigured):
        await write_guard.release(it.guard, taken, {})
        raise
    if done.sent:
        kept = replace(write, source_version=done.stamp, ordered=True)
        taken.writes = dict.fromkeys(taken.writes, kept)
    await write_guard.release(it.guard, taken, {0: done.sent})
    return done.outcome


async def _brought(it: HealthcareApi, subject: _Subject) -> _Done:
    resource = await it.rows.fhir.read(subject.resource, subject.claim.delivery)
    if resource is None:
        return await _gone(it, subject)
    # The API knows no digests: it would say no more than that the contact is wrong.
    columns = await it.rows.dataverse.columns(subject.entity.table)
    fit_fhir_id(replace(subject.entity, long_id=LongId.REFUSE), str(resource.get("id")), columns)
    version, stamp = resource.get("meta", {}).get("versionId"), _stamp(resource)
    if _is_older(stamp, subject.last):
        return _Done(subject.outcome("unchanged", None, version))
    if stamp is not None and stamp == subject.last:
        # Unless the row is lost, or was set back.
        row = await web_api_sink.shown(it.rows, subject.entity, subject.claim)
        if row is not None and row[subject.entity.version_column] in (None, version):
            return _Done(subject.outcome("unchanged", row[subject.entity.key], version))
    said = await _sent(it, subject, resource)
    if isinstance(said, RowResult):
        return _Done(said)
    notes = upsert_bundle.notes(said)
    root = said.root
    if root is None:
        return _Done(subject.outcome("refused", None, None, *notes))
    if root.action is Action.CREATED or subject.doubtful:
        await web_api_sink.wake(it.rows, subject.resource)
    if subject.last == _DEACTIVATED and resource.get("active") is not False:
        notes += await _reactivated(it, subject, root.row or "")
    action = "created" if root.action is Action.CREATED else "updated"
    # What was sent in part is sent again by the next claim, whichever version that finds.
    return _Done(subject.outcome(action, root.row, version, *notes), said.fine, stamp)


def _stamp(resource: Mapping[str, Any]) -> str | None:
    """The state of a resource, by the moment of its last update."""
    meta = resource.get("meta", {})
    moment, version = (
        source_version.normalize_instant(meta.get("lastUpdated")),
        meta.get("versionId"),
    )
    return f"u:{moment} {version}" if moment and version else None


def _is_older(stamp: str | None, last: str | None) -> bool:
    """Whether a later state was sent already: a FHIR server may read from a copy that lags. Of
    two states of one moment nobody knows."""
    if stamp is None or last is None or last[0] != stamp[0]:
        return False
    return stamp.partition(" ")[0] < last.partition(" ")[0]


# -- sending --------------------------------------------------------------------------------------


async def _sent(
    it: HealthcareApi, subject: _Subject, resource: Mapping[str, Any]
) -> Answer | RowResult:
    """A resource is written only if all that it refers to has rows. What was not is sent again
    when one of them gets its row; or now, since one may have got it before that was noted."""
    local, named = _local(it, resource)
    first = await _posted(it, subject, local)
    if isinstance(first, RowResult) or first.fine:
        return first
    targets = {each for each in named if each.partition("/")[0] in it.rows.known}
    if not targets:
        return first
    for target in sorted(targets):
        await it.rows.waits.add(target, subject.claim)
    second = await _posted(it, subject, local)
    if isinstance(second, RowResult) or second.root is None:
        return first
    made = first.root is not None and first.root.action is Action.CREATED
    root = replace(second.root, action=Action.CREATED) if made else second.root
    rest = (each for each in second.results if each is not second.root)
    return replace(second, results=(root, *rest))


def _local(it: HealthcareApi, resource: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """The resource, naming others of its server as rows are found, by Type/id; and which."""
    found: set[str] = set()
    roots = ("", f"{it.rows.fhir.upstream.base}/")

    def link(element: str, value: str) -> str:
        parsed = parse_literal(value) if element == "reference" else None
        if parsed is None or parsed[0] not in roots:
            return value
        found.add(parsed[1])
        return parsed[1] + parsed[2] if parsed[0] else value

    return references.rewrite_links(resource, link), found


async def _posted(
    it: HealthcareApi, subject: _Subject, resource: Mapping[str, Any]
) -> Answer | RowResult:
    dataverse, claim = it.rows.dataverse, subject.claim
    asked = upsert_bundle.request(resource, claim.delivery)
    asked = replace(asked, headers={**asked.headers, **dataverse.options})
    still = partial(write_guard.ensure_time_left, it.guard, subject.taken)
    try:
        with add_activity_context(action="upsert bundle"):
            response = await dataverse.send(asked, claim.delivery, still)
    except Unavailable as error:
        if error.is_outcome_unknown:
            # Dataverse may be at it still: the turn is nobody's until its lease ends.
            subject.taken.locks.clear()
        raise
    name = dataverse.upstream.name
    if response.status == 404:
        raise Misconfigured(
            f"{name} has no {upsert_bundle.NAME}: install the Dataverse healthcare APIs there, "
            "or set MIRROR_TO to web-api"
        )
    if response.status >= 400:
        why = f"answered {response.status} {error_code(response)}".strip()
        return subject.outcome("refused", None, None, why)
    try:
        return upsert_bundle.answer(response.body, subject.resource)
    except ValueError:
        why = f"{upsert_bundle.NAME} was not answered as documented"
        raise Unavailable(name, why) from None


# -- deleted --------------------------------------------------------------------------------------


async def _gone(it: HealthcareApi, subject: _Subject) -> _Done:
    """Deleted in FHIR: the healthcare APIs have no request for it, the Web API has."""
    outcome = await web_api_sink.gone(it.rows, subject.entity, subject.claim)
    if outcome.action == "refused":
        return _Done(outcome)
    inactive = outcome.row is not None and it.rows.on_delete == "deactivate"
    return _Done(outcome, True, _DEACTIVATED if inactive else None)


async def _reactivated(it: HealthcareApi, subject: _Subject, row: str) -> tuple[str, ...]:
    """A resource has come back whose row was deactivated here: the toolkit's maps need not know
    of that."""
    change = Change("PATCH", subject.entity.entity_set, row, {"statecode": 0}, etag="*")
    response = await it.rows.dataverse.change([change], subject.claim.delivery)
    if response.status >= 400:
        return (f"statecode: answered {response.status} {error_code(response)}".strip(),)
    return ()
