"""What jobs know of a reconcile. It is done by a verb above, which is handed in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from integration.core.errors import Issue, Misconfigured, Rejected
from integration.journal.jobs import Comparison, Job, JobFilter
from integration.journal.table_keys import make_delivery_id
from integration.operations.job_work import Part

# Hexadecimal digits at the end of a job's id that tell apart jobs of one time.
_TOKEN = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileWork:
    """How a reconcile is done.

    `list_comparisons`: returns what can be compared of a type; raises Rejected with 409 for one
    whose rows are not mirrored. `check_bringing`: the same of a type whose rows are to be brought
    into Dataverse, and are not mirrored yet; raises Rejected with 409 where they cannot be. `work`:
    works on a job from its cursor on, part by part; `preview`: on one that looks what a changed map
    would change.
    """

    list_comparisons: Callable[[str], Awaitable[Sequence[Comparison]]]
    check_bringing: Callable[[str], Awaitable[Sequence[Comparison]]]
    work: Callable[[Job], AsyncGenerator[Part, None]]
    preview: Callable[[Job], AsyncGenerator[Part, None]]


async def check_reconcile(work: ReconcileWork | None, job_filter: JobFilter) -> None:
    """Raise Rejected for a reconcile that cannot be done."""
    if job_filter.preview is not None:
        compared = await get_reconcile_work(work).list_comparisons(job_filter.preview.type)
        if Comparison.CONTENT not in compared:
            text = "its rows cannot be compared (MIRROR_TO=healthcare-api, or row.long_id)"
            raise Rejected(Issue("conflict", text), status=409)
        return
    chosen = job_filter.reconcile
    if chosen is None or chosen.ends_bringing:
        return
    if chosen.compare not in await get_reconcile_work(work).list_comparisons(chosen.type):
        text = (
            "the content of these rows cannot be compared, since the organisation's own maps make "
            "them (MIRROR_TO=healthcare-api), or they keep digests of long ids (row.long_id): "
            "compare their versions"
        )
        raise Rejected(Issue("conflict", text, "filter.compare"), status=409)


def get_reconcile_work(work: ReconcileWork | None) -> ReconcileWork:
    """Raises Misconfigured where nothing can do it."""
    if work is None:
        raise Misconfigured("this process has no part that does a reconcile")
    return work


def get_run_id(job: Job) -> str | None:
    """Return the synthetic delivery that holds the rows which a reconcile has mended; None for
    other jobs and dry runs. It follows from the job, so that each slice has the same."""
    chosen = job.filter.reconcile
    if chosen is None or chosen.dry_run:
        return None
    return make_delivery_id(job.started, int(job.id[-_TOKEN:], 16))
