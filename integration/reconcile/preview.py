"""The work of a job of kind preview: which rows a changed map would change, and in which columns.

The resources are mapped by what differs between the two maps alone, and compared with the rows as
they are in Dataverse, as a reconcile compares them. Nothing is written.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

import msgspec

from integration.core.errors import Misconfigured, Unavailable
from integration.journal.jobs import Job, PreviewFilter, PreviewSummary
from integration.mapping.map_changes import MapChanges, list_elements
from integration.operations.job_work import Part
from integration.reconcile import bulk_rows
from integration.reconcile.differences import Difference, DifferenceKind
from integration.reconcile.job import ReconcileParts, find_map
from integration.reconcile.run import START, Position, ReconcileRun, count_resources, read_pages
from integration.reconcile.walk import compare_resources, open_reader, read_ahead

# Resources that are kept as examples.
MAX_EXAMPLES = 10

# Differences of rows that can be compared with a map; the others are for a reconcile to mend first.
_COMPARED = frozenset({DifferenceKind.DIFFERENT, DifferenceKind.BEHIND, DifferenceKind.MISSING})

# Returns how the map of a type would change. Raises Misconfigured where that map is broken now.
FindChanges = Callable[[PreviewFilter], Awaitable[MapChanges]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What a part of the resources came to."""

    changed: int = 0
    failed: int = 0
    without_row: int = 0
    columns: Counter[str]
    examples: tuple[str, ...] = ()


async def preview(
    parts: ReconcileParts, find_changes: FindChanges, job: Job
) -> AsyncGenerator[Part, None]:
    """Work on a job from its cursor on, part by part, to its end. It waits for nobody: a part says
    who is away."""
    position = msgspec.json.decode(job.cursor, type=Position) if job.cursor else START
    saved, summary = job.cursor, job.summary or PreviewSummary()
    try:
        if job.filter.preview is None:
            raise Misconfigured("the job does not say which change it is about")
        changes = await find_changes(job.filter.preview)
        run = await _open_run(parts, job, job.filter.preview.type)
        entity = changes.reduced
        if not job.cursor:
            saved = _encode(position)
            yield Part(cursor=saved, found=await count_resources(run, entity, None))
        reader = await open_reader(run, entity)
        elements = list_elements(entity)
        # Reading costs most of it, and a change is about few elements.
        options = f"&_elements={','.join(elements)}" if elements else ""
        pages = read_ahead(read_pages(run, entity, position, options))
        async with aclosing(pages):
            async for resources, next_position in pages:
                chunks = bulk_rows.split(resources, bulk_rows.MAX_VALUES)
                compared = await asyncio.gather(
                    *(compare_resources(run, entity, reader, chunk) for chunk in chunks)
                )
                found = _sum_up(changes, [item for part in compared for item in part])
                summary = _add(summary, found)
                saved = _encode(next_position)
                yield Part(
                    cursor=saved,
                    looked_at=len(resources),
                    done=found.changed,
                    failed=found.failed,
                    left_out=len(resources) - found.changed - found.failed,
                    summary=summary,
                    is_last=next_position.path is None,
                )
    except (Unavailable, Misconfigured) as error:
        yield Part(cursor=saved, error=error)


async def _open_run(parts: ReconcileParts, job: Job, type_: str) -> ReconcileRun:
    mirror, _ = await find_map(parts, type_)
    return ReconcileRun(
        mirror=mirror,
        fhir=parts.fhir,
        dataverse=parts.dataverse,
        id=job.id,
        sleep=asyncio.sleep,
        dry_run=True,
        max_wait=0.0,
        page_size=parts.preview_page_size,
    )


def _sum_up(changes: MapChanges, differences: Sequence[Difference]) -> _Found:
    columns: Counter[str] = Counter()
    changed: list[str] = []
    failed = without_row = 0
    for difference in differences:
        if difference.kind not in _COMPARED:
            failed += 1
        elif difference.kind is DifferenceKind.MISSING:
            without_row += 1
        elif names := _choose_columns(changes, difference):
            columns.update(names)
            changed.append(difference.resource)
    return _Found(
        changed=len(changed),
        failed=failed,
        without_row=without_row,
        columns=columns,
        examples=tuple(changed[:MAX_EXAMPLES]),
    )


def _choose_columns(changes: MapChanges, difference: Difference) -> set[str]:
    """Return the columns that differ and that the change is about: a row that is behind differs in
    others, too. Of children their table counts once."""
    tables = {name for name in changes.columns if name.endswith(".*")}
    names = set()
    for name in difference.columns:
        table = f"{name.replace(':', '.').partition('.')[0]}.*"
        if name in changes.columns:
            names.add(name)
        elif table in tables:
            names.add(table)
    return names


def _add(summary: PreviewSummary, found: _Found) -> PreviewSummary:
    return replace(
        summary,
        columns=dict(Counter(summary.columns) + found.columns),
        without_row=summary.without_row + found.without_row,
        examples=(*summary.examples, *found.examples)[:MAX_EXAMPLES],
    )


def _encode(position: Position) -> str:
    return msgspec.json.encode(position).decode()
