"""The work of a job of kind reconcile: the walks of a run, a page after the other.

A job that brings the rows of a table has it answered from them at its end, if none is missing.

The cursor says which walk it is in, and the position in that. A page that is compared again, since
a worker ended before it could save the job, finds what was mended as it should be.
docs/decisions/0044-a-reconcile-is-a-job.md
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

import msgspec

from integration.core.errors import Issue, Misconfigured, Rejected, Unavailable
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.journal.jobs import Comparison, Job
from integration.journal.synthetic_deliveries import add_synthetic_delivery
from integration.mapping.model import EntityMap, LongId
from integration.mapping.schema_mismatches import find_schema_mismatches
from integration.mirror.mirror import Mirror
from integration.mirror.web_api_sink import WebApiSink
from integration.operations.job_work import Part
from integration.operations.reconcile_jobs import get_run_id
from integration.queues.names import MIRROR_QUEUE
from integration.queues.queue_sender import ChangeQueues
from integration.reconcile.differences import DifferenceKind, Repair
from integration.reconcile.plan import Walk, plan_walks
from integration.reconcile.run import START, Page, Position, ReconcileRun

# Resources on a page: progress is saved after each, and a worker that ends repeats one.
PAGE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileParts:
    """What the jobs need. `load_mirror`: its maps take long to load. `is_brought_by`: whether a job
    is still to bring the rows of a type. `end_bringing`: has a table be answered from its rows, if
    a job has brought them, else from FHIR as before; returns whether its rows answer."""

    fhir: FhirServer
    dataverse: Dataverse
    load_mirror: Callable[[], Mirror]
    change_queues: ChangeQueues
    is_brought_by: Callable[[str, str], Awaitable[bool]]
    end_bringing: Callable[[str, str, bool], Awaitable[bool]]
    page_size: int = PAGE
    preview_page_size: int = 1000  # resources: nothing is saved that a repeated page does again


# A row of these keeps a table from being answered from its rows: it lacks what FHIR shows, or shows
# what FHIR does not. The others say no more than that Dataverse has rows of its own.
_KEEP_BACK = frozenset(
    {
        DifferenceKind.MISSING,
        DifferenceKind.BEHIND,
        DifferenceKind.DIFFERENT,
        DifferenceKind.ANOTHER,
        DifferenceKind.TWICE,
        DifferenceKind.LEFT_OVER,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cursor:
    """`kept_back`: rows, so far, that keep the table from being answered from them."""

    walk: int = 0
    position: Position = START
    kept_back: int = 0


async def list_comparisons(parts: ReconcileParts, type_: str) -> Sequence[Comparison]:
    """Return what can be compared of a type. Raises Rejected with 409 for one whose rows are not
    mirrored."""
    try:
        mirror, entity = await find_map(parts, type_)
    except Misconfigured as error:
        raise Rejected(Issue("conflict", str(error)), status=409) from None
    return _list_comparisons(mirror, entity)


async def check_bringing(parts: ReconcileParts, type_: str) -> Sequence[Comparison]:
    """Return what can be compared of a type whose rows are to be brought into Dataverse. Raises
    Rejected with 409 where they cannot be, for want of a map or a table."""
    try:
        mirror = await asyncio.to_thread(parts.load_mirror)
        entity = mirror.maps.get(type_)
        if entity is None:
            why = mirror.broken_maps.get(type_, f"no map of {type_} writes rows")
            raise Misconfigured(why)
        tables = {name: await parts.dataverse.get_columns(name) for name in entity.tables}
        if mismatches := find_schema_mismatches(entity, tables):
            raise Misconfigured("; ".join(mismatches))
    except Misconfigured as error:
        raise Rejected(Issue("conflict", str(error)), status=409) from None
    return _list_comparisons(mirror, entity)


def _list_comparisons(mirror: Mirror, entity: EntityMap) -> Sequence[Comparison]:
    # Of another sink it is not known what its rows should show. A digest is no id of FHIR: its
    # resource would look as if it had never existed.
    if isinstance(mirror.sink, WebApiSink) and entity.long_id is not LongId.DIGEST:
        return (Comparison.CONTENT, Comparison.VERSIONS)
    return (Comparison.VERSIONS,)


async def work(parts: ReconcileParts, job: Job) -> AsyncGenerator[Part, None]:
    """Work on a job from its cursor on, part by part, to its end. It waits for nobody: a part says
    who is away."""
    cursor = msgspec.json.decode(job.cursor, type=_Cursor) if job.cursor else _Cursor()
    saved, found = job.cursor, job.found
    try:
        if not await _is_wanted(parts, job):
            yield await _end(parts, job, cursor)
            return
        run, walks = await _open_run(parts, job)
        if not job.cursor:
            found = await _begin(run, walks[0])
            saved = _encode(cursor)
            yield Part(cursor=saved, found=found)
        while cursor.walk < len(walks):
            number = cursor.walk
            walk = walks[number]
            async with aclosing(walk.begin(cursor.position)) as pages:
                async for page in pages:
                    cursor = _move_on(cursor, page)
                    # How many rows there are is not known before they are read.
                    if walk.count is None and found is not None:
                        found += page.count
                    saved = _encode(cursor)
                    yield replace(_sum_up(page), cursor=saved, found=found)
            if cursor.walk == number:  # there was no page, or none that said it is the last
                cursor = replace(cursor, walk=cursor.walk + 1, position=START)
        yield await _end(parts, job, cursor)
    except (Unavailable, Misconfigured) as error:
        yield Part(cursor=saved, error=error)


async def _is_wanted(parts: ReconcileParts, job: Job) -> bool:
    """Whether there is still something to do: rows are no longer brought once somebody has changed
    the route, or started another job that brings them."""
    chosen = job.filter.reconcile
    if chosen is None or not chosen.ends_bringing:
        return True
    return await parts.is_brought_by(chosen.type, job.id)


async def _end(parts: ReconcileParts, job: Job, cursor: _Cursor) -> Part:
    """Return the last part, which says what became of the table whose rows the job has brought."""
    chosen, reason = job.filter.reconcile, None
    if chosen is not None and chosen.ends_bringing:
        is_brought = not cursor.kept_back
        is_answered = await parts.end_bringing(chosen.type, job.id, is_brought)
        if not is_brought:
            reason = (
                f"{cursor.kept_back} rows of Dataverse do not show what FHIR has, so the table is "
                "answered from FHIR still: mend them and switch the route again, or switch it "
                "without bringing"
            )
        elif not is_answered:
            reason = "the route was changed meanwhile: the table is answered from FHIR"
    return Part(cursor=_encode(cursor), reason=reason, is_last=True)


async def find_map(parts: ReconcileParts, type_: str) -> tuple[Mirror, EntityMap]:
    """Raises Misconfigured for a type whose map is broken, or whose rows are not mirrored."""
    mirror = await asyncio.to_thread(parts.load_mirror)
    if type_ in mirror.broken_maps:
        raise Misconfigured(mirror.broken_maps[type_])
    if type_ not in mirror.maps or (await parts.change_queues()).get(type_) != MIRROR_QUEUE:
        raise Misconfigured(
            f"rows of {type_} are not mirrored: MIRROR_TO is off, no map of it is in use, or its "
            "table is virtual (Data routes shows which are)"
        )
    return mirror, mirror.maps[type_]


async def _open_run(parts: ReconcileParts, job: Job) -> tuple[ReconcileRun, list[Walk]]:
    chosen = job.filter.reconcile
    if chosen is None:
        raise Misconfigured("the job does not say what it compares")
    mirror, entity = await find_map(parts, chosen.type)
    run = ReconcileRun(
        mirror=mirror,
        fhir=parts.fhir,
        dataverse=parts.dataverse,
        id=get_run_id(job) or job.id,
        sleep=asyncio.sleep,
        dry_run=chosen.dry_run,
        max_wait=0.0,
        page_size=parts.page_size,
    )
    # A row whose resource is gone would be shown: but rows with digests of ids tell of none.
    deleted = chosen.ends_bringing and entity.long_id is not LongId.DIGEST
    content = chosen.compare is Comparison.CONTENT
    return run, plan_walks(run, entity, content=content, deleted=deleted)


async def _begin(run: ReconcileRun, first: Walk) -> int | None:
    """List the run among the deliveries, as one of the command, and count. Repeating it changes
    nothing."""
    if not run.dry_run:
        now = run.mirror.now()
        await add_synthetic_delivery(run.mirror.journal, run.id, "reconcile", now, now)
    return await first.count(START) if first.count is not None else None


def _move_on(cursor: _Cursor, page: Page) -> _Cursor:
    """Return where to go on after a page."""
    kept_back = cursor.kept_back + sum(
        not repair.is_done and repair.difference.kind in _KEEP_BACK for repair in page.repairs
    )
    if page.is_last:
        return _Cursor(walk=cursor.walk + 1, kept_back=kept_back)
    return replace(cursor, position=page.position, kept_back=kept_back)


def _sum_up(page: Page) -> Part:
    done = sum(repair.is_done for repair in page.repairs)
    left = [repair for repair in page.repairs if not repair.is_done]
    return Part(
        cursor="",
        looked_at=page.count,
        done=done,
        left_out=max(page.count - len(page.repairs), 0),
        failed=len(left),
        reason=_describe(left[-1]) if left else None,
    )


def _describe(repair: Repair) -> str:
    """Say what differs, by names alone, and why it was not mended."""
    difference, result = repair.difference, repair.result
    columns = f" ({', '.join(difference.columns)})" if difference.columns else ""
    notes = f": {'; '.join(result.notes)}" if result and result.notes else ""
    return f"{difference.resource} is {difference.kind}{columns}{notes}"


def _encode(cursor: _Cursor) -> str:
    return msgspec.json.encode(cursor).decode()
