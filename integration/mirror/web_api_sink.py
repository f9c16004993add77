"""The row sink that writes through the Web API: it reads the rows, compares, and writes what
differs.

One request reads the row, its children and the rows that its lookups point at. One change set
writes what differs: a row never shows a version without the children of that version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import Any

from integration.core.errors import Misconfigured, Unavailable, Unmappable
from integration.core.model import FhirResource, Row, RowResult, WorkItem
from integration.core.state_version import Order, StateVersion, compare, get_version
from integration.dataverse.batch import MAX_REQUESTS
from integration.dataverse.client import ChangeFailed, ChangesResult, Dataverse
from integration.dataverse.error_codes import Meaning, describe_failure, read_meaning
from integration.dataverse.requests import Change
from integration.fhir.client import FhirServer
from integration.journal.deletions import Deletions
from integration.journal.due_days import DueDays, DueResource
from integration.journal.pending_lookups import LookupState, PendingLookups
from integration.mapping import engine
from integration.mapping.model import EntityMap, MappedRows
from integration.mapping.primary_keys import ServerKeys
from integration.mapping.row_stamp import can_hold_stamp, is_stamp_good
from integration.mapping.schema_mismatches import find_schema_mismatches
from integration.mirror import lookup_waits, row_diff, row_lookup
from integration.mirror.new_rows import make_resource
from integration.mirror.refused_changes import Refusal, RefusedChanges
from integration.mirror.row_diff import ChangePlan, ExistingRows, Target
from integration.mirror.row_edits import (
    NO_EDITS,
    RowEdits,
    build_left_result,
    describe_edits,
    find_edits,
)
from integration.mirror.row_order import is_current
from integration.mirror.row_removal import NO_RESOURCE, Removal, try_to_remove
from integration.mirror.row_sink import MirrorJob
from integration.mirror.taken_keys import describe_taken_key, explain_refusal
from integration.mirror.write_edits import WriteBack, record_edits, write_edits
from integration.queues.names import MIRROR_QUEUE
from integration.queues.queue_sender import ChangeQueues, QueueSender

# How often a row is tried when others write it at the same time, before the work item goes back
# to the queue.
_MAX_ATTEMPTS = 5

# A child that is answered 500 is tried again by work items of its own: so often, and first after so
# many seconds, then after twice as many each time.
_MAX_CHILD_ATTEMPTS = 5
_CHILD_DELAY = 60.0

# Seconds until a create whose answer was lost has been done, or never will be: Dataverse ends an
# operation after two minutes.
# https://learn.microsoft.com/power-apps/developer/data-platform/analyze-performance
_UNHEARD_DELAY = 150.0

# The note of a row whose changes do not fit into one change set.
_CUT = (
    f"its changes went in several steps, since Dataverse applies {MAX_REQUESTS:,} at once: while "
    "they went, the row showed some of its children without the others"
)


class _DuplicateKeyError(Exception):
    """Another row has what an alternate key allows once, as a rule the FHIR id: it was created just
    now, or is of another resource. `change`: the one that Dataverse refused."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.change = change


# One attempt; None: FHIR or Dataverse has changed meanwhile, so try again.
_Attempt = Callable[[MirrorJob], Awaitable[RowResult | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebApiSink:
    """The sink, and what it needs. `all_maps`: by resource type, also those that are not mirrored,
    since lookups may point at their rows. `on_delete`: what becomes of the row of a deleted
    resource: `deactivate`, `delete` or `leave`. `change_queues`: says which types are mirrored;
    None: all. `former_urls`, `other_urls`: see ServerKeys. `fhir_is_right`: write over rows that
    show a later version than FHIR has: an operator says so after a restore."""

    fhir: FhirServer
    dataverse: Dataverse
    pending_lookups: PendingLookups
    deletions: Deletions
    due_days: DueDays
    queue: QueueSender
    all_maps: Mapping[str, EntityMap]
    today: Callable[[], date]
    on_delete: str = "deactivate"
    change_queues: ChangeQueues | None = None
    former_urls: tuple[str, ...] = ()
    other_urls: tuple[str, ...] = ()
    fhir_is_right: bool = False
    write_back: WriteBack | None = None  # None: no edit of a row reaches FHIR

    @property
    def server_keys(self) -> ServerKeys:
        """How the keys of the FHIR server's rows are derived."""
        return ServerKeys(self.fhir.upstream.base, self.former_urls, self.other_urls)

    async def bring_up_to_date(self, entity: EntityMap, item: WorkItem) -> RowResult:
        """Make the rows show `item.resource` as FHIR has it now: see RowSink."""
        tables = {name: await self.dataverse.get_columns(name) for name in entity.tables}
        mismatches = find_schema_mismatches(entity, tables)
        if mismatches:
            raise Misconfigured("; ".join(mismatches))
        writes_back = self.stamps_rows(entity) and can_hold_stamp(entity, tables[entity.table])
        job = MirrorJob(entity, item, tables, self.server_keys, writes_back)
        attempt = self._try_to_make if item.is_new_row else self._try_to_write
        return await self._retry_lost_races(job, attempt)

    def stamps_rows(self, entity: EntityMap) -> bool:
        """Whether edits of the rows of a map are written to FHIR, so that each needs a stamp."""
        return self.write_back is not None and entity.is_written_back and entity.tells_maps

    async def remove_row(
        self, entity: EntityMap, item: WorkItem, deletion: StateVersion
    ) -> RowResult:
        """Do what `on_delete` says with the row of a deleted resource, whoever has written the row.
        Raises as `bring_up_to_date` does."""
        job = await self._build_reduced_job(entity, item)
        attempt = partial(self._try_to_remove, deletion=deletion, needs_version=False)
        return await self._retry_lost_races(job, attempt)

    async def _try_to_remove(
        self, job: MirrorJob, deletion: StateVersion, *, needs_version: bool = True
    ) -> RowResult | None:
        removal = Removal(
            dataverse=self.dataverse,
            deletions=self.deletions,
            on_delete=self.on_delete,
            is_current=self._is_current,
            needs_version=needs_version,
        )
        return await try_to_remove(removal, job, deletion)

    async def find_row(self, entity: EntityMap, item: WorkItem) -> Row | None:
        """Return the row of a resource, whoever has written it. Raises as `bring_up_to_date` does,
        and Unmappable when it cannot be told from others."""
        return await row_lookup.find_row(
            self.dataverse, await self._build_reduced_job(entity, item)
        )

    async def find_rows(self, entity: EntityMap, item: WorkItem) -> list[Row]:
        """Return every row that has the FHIR id or a key of a resource: see row_lookup.find_rows.
        Raises as `find_row` does."""
        job = await self._build_reduced_job(entity, item)
        return await row_lookup.find_rows(self.dataverse, job)

    async def list_mirrored(self, resources: set[str]) -> set[str]:
        """Return those of these resources, as `Type/id`, whose rows this app writes."""
        if self.change_queues is None:
            return {name for name in resources if name.partition("/")[0] in self.all_maps}
        queues = await self.change_queues()
        return {name for name in resources if queues.get(name.partition("/")[0]) == MIRROR_QUEUE}

    async def queue_waiting(self, job: MirrorJob) -> None:
        """Queue the resources that have an empty lookup until this one has its row."""
        await lookup_waits.queue_waiting(
            self.pending_lookups, self.queue, job.reference, job.item.delivery
        )

    async def heed_deletion(self, job: MirrorJob, version: StateVersion) -> None:
        """Queue a resource whose row was just created, if it was deleted since this version and its
        deletion found no row: see journal.deletions."""
        deletion = await self.deletions.find(job.reference)
        if deletion is None or compare(deletion, version) in (Order.OLDER, Order.PROBABLY_OLDER):
            return
        item = WorkItem(job.item.delivery, resource=job.reference, version=deletion)
        await self.queue.send(MIRROR_QUEUE, item)
        # The work item knows it now. A patient who is made again later has nothing to do with it.
        await self.deletions.forget(job.reference, deletion)

    async def _build_reduced_job(self, entity: EntityMap, item: WorkItem) -> MirrorJob:
        """Return a job with so much of the map as finds the rows: the rest of it need not fit the
        tables. Raises Misconfigured when a column of that is missing."""
        attributes = tuple(a for a in entity.attributes if a.column == entity.kind_column)
        children = entity.expands if self.on_delete == "delete" else ()
        expands = tuple(replace(expand, attributes=()) for expand in children)
        reduced = replace(entity, attributes=attributes, expands=expands)
        tables = {name: await self.dataverse.get_columns(name) for name in reduced.tables}
        missing = {*reduced.columns, "statecode"} - tables[reduced.table].keys()
        if missing:
            raise Misconfigured(f"{reduced.table} has no column {', '.join(sorted(missing))}")
        return MirrorJob(reduced, item, tables, self.server_keys)

    async def _retry_lost_races(self, job: MirrorJob, attempt: _Attempt) -> RowResult:
        refused: Change | None = None
        for _ in range(_MAX_ATTEMPTS):
            try:
                result = await attempt(job)
            except Unmappable as problem:
                return job.build_result("refused", notes=(str(problem),))
            except _DuplicateKeyError as duplicate:
                refused = duplicate.change
                await self._make_way(job)
                continue
            if result is not None:
                return result
        if refused is not None:
            return job.build_result(
                "refused", notes=(await describe_taken_key(self.dataverse, job, refused),)
            )
        raise Unavailable(self.dataverse.upstream.name, "other writers kept changing the row")

    async def _make_way(self, job: MirrorJob) -> None:
        """Take the FHIR id from the row of a deleted resource whose id differs in letter case
        alone: an alternate key would keep it for ever."""
        entity = job.entity
        for row in await row_lookup.find_rivals(self.dataverse, job):
            id_ = row[entity.id_column]
            is_left_over = row["statecode"] == row_lookup.INACTIVE and entity.has_kind_of(row)
            if id_ == job.id or not is_left_over:
                continue
            if await self.fhir.read(f"{entity.resource}/{id_}", job.item.delivery) is None:
                freed = Change(
                    method="PATCH",
                    entity_set=entity.entity_set,
                    key=row[entity.key],
                    columns={entity.id_column: None},
                    etag=row["@odata.etag"],
                )
                await self.dataverse.apply_changes([freed], job.item.delivery)

    # -- writing ----------------------------------------------------------------------------------

    async def _try_to_write(self, job: MirrorJob) -> RowResult | None:
        """Read both sides, write what differs. None: one of them has changed meanwhile."""
        state = await self.fhir.read_current(job.item)
        resource = state.resource
        if resource is None and job.item.is_edit:
            # The row alone names the resource, which is no proof that there ever was one.
            return job.build_result("absent", notes=(NO_RESOURCE,))
        if resource is None:
            return await self._try_to_remove(job, deletion=state.version)
        base, today = self.fhir.upstream.base, self.today()
        mapped = engine.map_resource(job.entity, resource, job.tables, base, today=today)
        if mapped.changes_on is not None:
            # First: whoever writes the row and ends there would leave it as it is on that day.
            await self.due_days.add(DueResource(mapped.changes_on, job.reference))
        existing = await row_lookup.find_existing_rows(self.dataverse, self.all_maps, job, mapped)
        if not await self._is_current(job, state.version, existing.row):
            return None
        edits = await self._find_edits(job, resource, mapped, existing.row)
        if existing.row is not None and (edits.held or (edits.is_unknown and job.item.is_edit)):
            return build_left_result(job, existing.row, edits)
        if edits.written and self.write_back is not None:
            written = await write_edits(self.write_back, job, resource, edits, today=today)
            if written is None:
                return None
            state, edits = written
            if state.resource is None:
                return None  # it was deleted just after
            resource = state.resource
            mapped = engine.map_resource(job.entity, resource, job.tables, base, today=today)
        await record_edits(self.dataverse.upstream.activities, job, edits)
        result = await self._write_rows(job, resource, mapped, existing, edits)
        if result is None or result.action == "refused":
            return result
        if result.action == "created" or job.item.attempt:
            await self.heed_deletion(job, state.version)
        # Also if nothing was written: whoever created the row may have died before this.
        await self.queue_waiting(job)
        return result

    async def _is_current(self, job: MirrorJob, version: StateVersion, row: Row | None) -> bool:
        """Whether a state that was read from FHIR may be written over this row: see `row_order`."""
        return row is None or await is_current(
            self.fhir, job, version, row, fhir_is_right=self.fhir_is_right
        )

    async def _try_to_make(self, job: MirrorJob) -> RowResult | None:
        """Make the resource of a row that somebody has made, and bring the row up to date."""
        if not job.writes_back or self.write_back is None or not self.write_back.makes_new:
            return job.build_result("absent")
        row = await row_lookup.find_row(self.dataverse, job)
        made = await make_resource(self.write_back, job, row, today=self.today())
        if isinstance(made, RowResult):
            return made
        # A read that does not show it yet would look like a deletion.
        item = replace(job.item, version=made, is_edit=False)
        return await self._try_to_write(replace(job, item=item))

    async def _find_edits(
        self, job: MirrorJob, resource: FhirResource, mapped: MappedRows, row: Row | None
    ) -> RowEdits:
        """Return what somebody has changed in the row: see row_edits."""
        if row is None:
            return NO_EDITS
        return await find_edits(
            self.fhir,
            self.dataverse,
            job,
            row=row,
            resource=resource,
            mapped=mapped,
            find_former_map=None if self.write_back is None else self.write_back.find_former_map,
            today=self.today(),
        )

    async def _write_rows(
        self,
        job: MirrorJob,
        resource: FhirResource,
        mapped: MappedRows,
        existing: ExistingRows,
        edits: RowEdits,
    ) -> RowResult | None:
        """Write what differs. What Dataverse refuses of the row's children and concepts is left
        out, and the rest goes again, as one change set where Dataverse says what it refused. None:
        a row has changed meanwhile."""
        refused = RefusedChanges()
        failed: list[str] = []
        notes: tuple[str, ...] = ()
        waiting: set[str] = set()
        written: RowResult | None = None
        cut: tuple[str, ...] = ()
        removed: Counter[str] = Counter()
        while True:
            plan = row_diff.plan_changes(
                job.entity,
                job.key,
                mapped,
                existing,
                targets=self.list_targets(),
                tables=job.tables,
                refused=refused.left_out,
                is_stamped=not job.writes_back
                or is_stamp_good(job.entity, resource, existing.row, job.tables),
            )
            if not refused.count:
                waiting = await self.list_mirrored({*plan.missing})
                if waiting and await self._add_waiting(job, waiting):
                    return None
                notes = _describe_unmirrored({*plan.missing} - waiting)
                await self._prepare_links(job, existing, plan)
            is_cut = len(plan.changes) > MAX_REQUESTS
            if is_cut:
                plan = row_diff.cut_plan(job.entity, plan, existing, MAX_REQUESTS)
                cut = (_CUT,)
            result = await self._apply(job, existing, plan, failed)
            if isinstance(result, Refusal):
                if result.is_taken and await self._is_concept_made(job, mapped, existing):
                    return None
                refused.leave_out(plan, await explain_refusal(self.dataverse, job, plan, result))
                continue
            if result is None:
                return None
            is_refused = result.action == "refused"
            removed.update(() if is_refused else plan.removed)
            if written is None or written.action == "unchanged" or is_refused:
                written = result
            if not is_refused and (is_cut or refused.try_next()):
                existing = await row_lookup.find_existing_rows(
                    self.dataverse, self.all_maps, job, mapped
                )
                is_there = existing.row is not None
                version = get_version(resource)
                if not is_there or not await self._is_current(job, version, existing.row):
                    return None
                if (await self._find_edits(job, resource, mapped, existing.row)).any:
                    return None  # this app wrote the row last, and somebody has edited it since
                continue
            if failed:
                await self._queue_failed(job)
            if written.action in ("created", "updated"):
                shown = mapped.values.get(job.entity.version_column)
                written = replace(written, version=shown)
            if written.action != "updated":
                edits = replace(edits, replaced=())
            return replace(
                written,
                notes=(*mapped.notes, *plan.notes, *notes, *written.notes, *edits.notes, *cut),
                waits=tuple(sorted(waiting)),
                left_out=len(refused.refused),
                remarks=(*_describe_removed(removed), *describe_edits(edits)),
            )

    async def _apply(
        self, job: MirrorJob, existing: ExistingRows, plan: ChangePlan, failed: list[str]
    ) -> RowResult | Refusal | None:
        """Apply the plan, once. `failed`: gets the keys of children that were answered 500."""
        if not plan.changes:
            return _build_unchanged_result(job, existing.row or {})
        try:
            result = await self.dataverse.apply_changes(plan.changes, job.item.delivery)
        except ChangeFailed as error:
            if plan.is_of_row(error.position):
                raise
            failed.append(plan.changes[error.position].key)
            result = ChangesResult(error.response, error.position)
        except Unavailable as error:
            if error.is_outcome_unknown and existing.row is None:
                raise _look_again_later(error) from None
            raise
        if result.status < 400:
            if existing.row is not None:
                return job.build_result("updated", row=existing.row[job.entity.key])
            return job.build_result("created", row=job.key)
        is_of_row = result.failed is not None and plan.is_of_row(result.failed)
        meaning = read_meaning(result.response)
        if meaning in (Meaning.GONE, Meaning.CHANGED):
            return None
        if not is_of_row and plan.other_keys:
            is_taken = meaning is Meaning.KEY_TAKEN
            return Refusal(describe_failure(result.response), result.failed, is_taken)
        if meaning is Meaning.KEY_TAKEN:
            raise _DuplicateKeyError(plan.changes[plan.row_position])
        return job.build_result("refused", notes=(describe_failure(result.response),))

    async def _is_concept_made(
        self, job: MirrorJob, mapped: MappedRows, existing: ExistingRows
    ) -> bool:
        """Whether somebody has made the row of a concept since these rows were read."""
        now = await row_lookup.find_existing_rows(self.dataverse, self.all_maps, job, mapped)
        return not now.concepts.keys() <= existing.concepts.keys()

    def list_targets(self) -> dict[str, Target]:
        """Return where lookups find the rows of each resource type."""
        return {
            type_: Target(entity.table, entity.entity_set)
            for type_, entity in self.all_maps.items()
        }

    async def _add_waiting(self, job: MirrorJob, targets: set[str]) -> bool:
        """Record that this resource is to be mirrored again when these resources have their rows.
        Return whether one of them has got its row before that was recorded."""
        await lookup_waits.add_all(
            self.pending_lookups, targets, job.reference, LookupState.WAITING
        )
        return await row_lookup.has_any_row(self.dataverse, self.all_maps, job, sorted(targets))

    async def _prepare_links(
        self, job: MirrorJob, existing: ExistingRows, plan: ChangePlan
    ) -> None:
        """Record what is about to be set, before it is: see lookup_waits."""
        linked = await self.list_mirrored({*plan.linked})
        await lookup_waits.add_all(self.pending_lookups, linked, job.reference, LookupState.LINKED)
        if existing.row is None:
            await lookup_waits.wait_again(self.pending_lookups, job.reference)

    async def _queue_failed(self, job: MirrorJob) -> None:
        """Queue the resource again, since some of its children were answered 500."""
        attempt = job.item.attempt
        if attempt < _MAX_CHILD_ATTEMPTS:
            item = replace(job.item, attempt=attempt + 1)
            await self.queue.send(MIRROR_QUEUE, item, _CHILD_DELAY * 2**attempt)


def _describe_unmirrored(targets: set[str]) -> tuple[str, ...]:
    types = sorted({name.partition("/")[0] for name in targets})
    return tuple(
        f"{type_}: rows of this type are not written here, so a lookup of a new one is filled at "
        "the next change"
        for type_ in types
    )


def _describe_removed(removed: Mapping[str, int]) -> tuple[str, ...]:
    """Tell how many child rows were removed, by entity set."""
    return tuple(
        f"{entity_set}: {count} removed, which the resource does not have any more"
        for entity_set, count in sorted(removed.items())
    )


def _look_again_later(error: Unavailable) -> Unavailable:
    """Return the error with a delay: until then the row may be created by what was not heard of,
    also after the resource was deleted and its deletion found no row."""
    delay = max(error.retry_after or 0.0, _UNHEARD_DELAY)
    return Unavailable(error.upstream, error.why, delay, is_outcome_unknown=True)


def _build_unchanged_result(job: MirrorJob, row: Mapping[str, Any]) -> RowResult:
    entity = job.entity
    return job.build_result(
        "unchanged", row=row.get(entity.key), version=row.get(entity.version_column)
    )
