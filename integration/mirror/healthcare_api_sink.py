"""The row sink that writes through the Dataverse healthcare APIs: a FHIR resource goes in, and the
organisation's own maps, in the data integration toolkit, make its rows.

The API writes whatever it is given, without a condition: of two senders of one resource, the
slower one could leave the older state. So each acquires the write lock of the resource first, and
reads FHIR only then. The lock's row keeps the version that was sent last, so that a work item that
comes twice writes once.
docs/decisions/0009-the-healthcare-apis-and-write-locks.md says what follows from that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from integration.core.activity_recorder import add_activity_context
from integration.core.errors import Misconfigured, Unavailable, Unmappable
from integration.core.model import FhirResource, Response, Row, RowResult, WorkItem
from integration.core.state_version import StateVersion, compare, is_believable
from integration.dataverse import upsert_bundle
from integration.dataverse.error_codes import Meaning, describe_failure, read_meaning
from integration.dataverse.requests import Change
from integration.dataverse.upsert_bundle import Action, UpsertResponse
from integration.fhir import references, source_version
from integration.fhir.grammar import parse_literal
from integration.journal import write_guard
from integration.journal.pending_lookups import LookupState
from integration.journal.write_guard import HeldLocks, Write, WriteGuard
from integration.mapping.model import EntityMap, LongId
from integration.mapping.primary_keys import fit_fhir_id
from integration.mirror import lookup_waits
from integration.mirror.row_diff import MERGED
from integration.mirror.row_removal import INACTIVE
from integration.mirror.row_sink import MirrorJob
from integration.mirror.web_api_sink import WebApiSink

_ACTIVE = {"statecode": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class _LockedJob(MirrorJob):
    """A job whose resource is locked. `last_sent`: the version that was sent last.
    `attempted_before`: an earlier attempt may have created the row and queued nobody."""

    held: HeldLocks
    last_sent: str | None
    attempted_before: bool


@dataclass(frozen=True, slots=True)
class _Outcome:
    """`sent`: record `version` in the lock's row as what was sent last, in full."""

    result: RowResult
    sent: bool = False
    version: str | None = None


@dataclass(frozen=True, slots=True)
class HealthcareApiSink:
    """The sink, and what it needs. `web_api` does what the healthcare APIs have no request for."""

    web_api: WebApiSink
    guard: WriteGuard

    async def bring_up_to_date(self, entity: EntityMap, item: WorkItem) -> RowResult:
        """Send `item.resource` as FHIR has it now: see RowSink."""
        held = HeldLocks(item.delivery, "mirror", self.guard.token())
        # Not ordered: the lock is for exclusion alone. What is newer, this module decides itself.
        write = Write(f"mirror {item.resource}", (0,), ordered=False)
        await write_guard.acquire(self.guard, held, [write])
        (lock,) = held.previous.values()
        job = _LockedJob(
            entity=entity,
            item=item,
            held=held,
            last_sent=lock.source_version,
            attempted_before=bool(lock.attempted_by),
        )
        try:
            outcome = await self._send_current_state(job)
        except Unmappable as problem:
            outcome = _Outcome(job.build_result("refused", notes=(str(problem),)))
        except (Unavailable, Misconfigured):
            await write_guard.release(self.guard, held, {})
            raise
        if outcome.sent:
            # An ordered write leaves its version in the row of the lock.
            recorded = replace(write, source_version=outcome.version, ordered=True)
            held.writes = dict.fromkeys(held.writes, recorded)
        await write_guard.release(self.guard, held, {0: outcome.sent})
        return outcome.result

    async def _send_current_state(self, job: _LockedJob) -> _Outcome:
        web_api, entity = self.web_api, job.entity
        state = await web_api.fhir.read_current(job.item)
        resource = state.resource
        if resource is None:
            return await self._remove_row(job, state.version)
        # The API cannot shorten a long id. Refused here, the note says so.
        columns = await web_api.dataverse.get_columns(entity.table)
        fit_fhir_id(replace(entity, long_id=LongId.REFUSE), str(resource.get("id")), columns)
        version_id, version = resource.get("meta", {}).get("versionId"), _get_version(resource)
        is_doubted = not _is_later(state.version, job.last_sent, job.item.attempt)
        if is_doubted and not web_api.fhir_is_right:
            raise Unavailable(
                web_api.fhir.upstream.name,
                "a read shows a state that may be earlier than what was sent last: the server may "
                "have read from a copy that lags. If it was restored, run reconcile with "
                "--fhir-is-right",
            )
        if version is not None and version == job.last_sent:
            # It was sent already. Send it again if the row is lost, or was set back.
            row = await web_api.find_row(entity, job.item)
            if row is not None and row[entity.version_column] in (None, version_id):
                key, notes = row[entity.key], await self._align_state(job, resource, row)
                result = job.build_result("unchanged", row=key, version=version_id, notes=notes)
                return _Outcome(result)
        response = await self._send_resource(job, resource)
        if isinstance(response, RowResult):
            return _Outcome(response)
        notes, root = upsert_bundle.describe_problems(response), response.root
        if root is None:
            return _Outcome(job.build_result("refused", notes=notes))
        if root.action is Action.CREATED or job.attempted_before:
            await web_api.queue_waiting(job)
            await web_api.heed_deletion(job, state.version)
        notes += await self._find_and_align_state(job, resource)
        action = "created" if root.action is Action.CREATED else "updated"
        result = job.build_result(action, row=root.row, version=version_id, notes=notes)
        # What was written in part is sent again by the next work item, even in the same version.
        return _Outcome(result, response.succeeded, version)

    # -- sending ----------------------------------------------------------------------------------

    async def _send_resource(
        self, job: _LockedJob, resource: FhirResource
    ) -> UpsertResponse | RowResult:
        """Send the resource. Send it twice if it was not written in full.

        The API writes a resource only if all that it refers to has rows. So record what this one
        waits for, then send it once more: one of those may have got its row before that was
        recorded. Return the RowResult of a refusal.
        """
        local, referenced = self._localize_references(resource)
        lookups, targets = (
            self.web_api.pending_lookups,
            await self.web_api.list_mirrored(referenced),
        )
        await lookup_waits.wait_again(lookups, job.reference)
        await lookup_waits.add_all(lookups, targets, job.reference, LookupState.LINKED)
        first = await self._post_bundle(job, local)
        if isinstance(first, RowResult) or first.succeeded:
            return first
        if not targets:
            return first
        await lookup_waits.add_all(lookups, targets, job.reference, LookupState.WAITING)
        second = await self._post_bundle(job, local)
        if isinstance(second, RowResult) or second.root is None:
            return first
        created = first.root is not None and first.root.action is Action.CREATED
        root = replace(second.root, action=Action.CREATED) if created else second.root
        others = (result for result in second.results if result is not second.root)
        return replace(second, results=(root, *others))

    def _localize_references(self, resource: FhirResource) -> tuple[FhirResource, set[str]]:
        """Replace absolute references to the FHIR server by `Type/id`, by which the API finds rows.
        Return the resource, and every `Type/id` that it refers to."""
        referenced: set[str] = set()
        roots = ("", f"{self.web_api.fhir.upstream.base}/")

        def localize(element: str, value: str) -> str:
            parsed = parse_literal(value) if element == "reference" else None
            if parsed is None or parsed[0] not in roots:
                return value
            referenced.add(parsed[1])
            return parsed[1] + parsed[2] if parsed[0] else value

        return references.rewrite_links(resource, localize), referenced

    async def _post_bundle(
        self, job: _LockedJob, resource: FhirResource
    ) -> UpsertResponse | RowResult:
        dataverse = self.web_api.dataverse
        request = upsert_bundle.build_request(resource, job.item.delivery)
        request = replace(request, headers={**request.headers, **dataverse.options})
        await write_guard.renew(self.guard, job.held)
        ensure_time_left = partial(write_guard.ensure_time_left, self.guard, job.held)
        try:
            with add_activity_context(action="upsert bundle"):
                response = await dataverse.send(request, job.item.delivery, ensure_time_left)
        except Unavailable as error:
            if error.is_outcome_unknown:
                # Dataverse may still be at work. Keep the lock until its lease ends.
                job.held.locks.clear()
            raise
        name = dataverse.upstream.name
        if response.status == 404:
            raise Misconfigured(
                f"{name} has no {upsert_bundle.NAME}: install the Dataverse healthcare APIs there, "
                "or set MIRROR_TO to web-api"
            )
        if response.status >= 400:
            return job.build_result("refused", notes=(_describe_refusal(response),))
        try:
            return upsert_bundle.parse_response(response.body, job.reference)
        except ValueError:
            why = f"the response to {upsert_bundle.NAME} is not as documented"
            raise Unavailable(name, why) from None

    # -- deleted resources ------------------------------------------------------------------------

    async def _remove_row(self, job: _LockedJob, deletion: StateVersion) -> _Outcome:
        """Remove the row through the Web API: the healthcare APIs have no request for that."""
        result = await self.web_api.remove_row(job.entity, job.item, deletion)
        if result.action == "refused":
            return _Outcome(result)
        return _Outcome(result, sent=True)

    # -- active or not ----------------------------------------------------------------------------

    async def _find_and_align_state(
        self, job: _LockedJob, resource: FhirResource
    ) -> tuple[str, ...]:
        try:
            row = await self.web_api.find_row(job.entity, job.item)
        except Unmappable as problem:
            return (str(problem),)
        return () if row is None else await self._align_state(job, resource, row)

    async def _align_state(
        self, job: _LockedJob, resource: FhirResource, row: Row
    ) -> tuple[str, ...]:
        """Make the row active or inactive, as the resource says: the maps of the toolkit need not
        set statecode, and the row of a deleted resource that has come back is inactive. Return
        notes."""
        wanted = INACTIVE if resource.get("active") is False else _ACTIVE
        if row["statecode"] == wanted["statecode"]:
            return ()
        entity = job.entity
        if row.get(MERGED):
            return (f"the row of {entity.table} was merged by hand: it stays inactive",)
        change = Change(
            method="PATCH",
            entity_set=entity.entity_set,
            key=row[entity.key],
            columns=wanted,
            etag="*",
        )
        result = await self.web_api.dataverse.apply_changes([change], job.item.delivery)
        if result.status >= 400:
            return (f"statecode: {describe_failure(result.response)}",)
        return ()


def _get_version(resource: FhirResource) -> str | None:
    """Return the version as the lock's row keeps it."""
    meta = resource.get("meta", {})
    updated, version_id = (
        source_version.normalize_instant(meta.get("lastUpdated")),
        meta.get("versionId"),
    )
    return f"u:{updated} {version_id}" if updated and version_id else None


def _is_later(version: StateVersion, last_sent: str | None, attempt: int) -> bool:
    """Whether this state may be sent after the last one, or is the same: a FHIR server may read
    from a copy that lags."""
    if last_sent is None or not last_sent.startswith("u:"):
        return True
    updated, _, version_id = last_sent.removeprefix("u:").partition(" ")
    return is_believable(compare(version, StateVersion(id=version_id, updated=updated)), attempt)


def _describe_refusal(response: Response) -> str:
    """Say why a bundle was refused. Dataverse maps it, so only an admin there can tell which key is
    taken, and by which row."""
    text = describe_failure(response)
    if read_meaning(response) is not Meaning.KEY_TAKEN:
        return text
    return (
        f"{text}: Power Apps lists the keys of a table (Tables, the table, Keys). Search Dataverse "
        "for a row with the same values in the columns of one of them"
    )
