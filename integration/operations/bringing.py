"""VERB add_bringing_job: bring rows into Dataverse, before the feed answers from them."""

from __future__ import annotations

from integration.journal.jobs import JobFilter, JobKind, ReconcileFilter
from integration.operations.job_request import JobRequest
from integration.operations.jobs import JobParts, add_job
from integration.operations.reconcile_jobs import get_reconcile_work


async def add_bringing_job(parts: JobParts, type_: str, started_by: str) -> str:
    """Add the job that brings the rows of a resource type, and return its id. It begins with
    `begin_job`. At its end, the table is answered from them.

    Raises Rejected with 409 where they cannot be brought, for want of a table for example.
    """
    comparisons = await get_reconcile_work(parts.reconcile).check_bringing(type_)
    # The content where it can be compared: rows that were mirrored before may have been edited.
    chosen = ReconcileFilter(type=type_, compare=comparisons[0], ends_bringing=True)
    request = JobRequest(
        kind=JobKind.RECONCILE, filter=JobFilter(reconcile=chosen), started_by=started_by
    )
    return (await add_job(parts, request)).id
