"""The page that asks before all resources of a type are compared with their rows in Dataverse.

It costs one request to the FHIR server and one to Dataverse, and compiles the maps once in a
worker. The job that it starts shows its progress on the page of that job.
"""

from __future__ import annotations

from integration.core.errors import Issue, Rejected
from integration.journal.jobs import JobKind
from integration.operations.job_request import JobRequest, build_reconcile_filter
from integration.operations.jobs import start_job
from integration.operations.reconcile_jobs import get_reconcile_work
from integration.pages.data_routes import count_route, find_table
from integration.pages.http import Reply, redirect
from integration.pages.view import View, render

FIELDS = ("compare", "do")

_MEND, _LOOK = "mend", "look"


async def show_reconcile(view: View) -> Reply:
    """Show what a reconcile would do, counted, and the buttons that start it."""
    name = view.arguments["resource"]
    table = find_table(view, name)
    work = get_reconcile_work(view.parts.jobs.reconcile)
    comparisons = await work.list_comparisons(name)
    return render(
        view,
        "reconcile.html",
        resource=name,
        table=table,
        comparisons=comparisons,
        counts=await count_route(view, name),
    )


async def begin_reconcile(view: View) -> Reply:
    """Start a reconcile, and show its progress."""
    name = view.arguments["resource"]
    find_table(view, name)
    do = view.fields.get("do")
    if do not in (_MEND, _LOOK):
        raise Rejected(Issue("value", f"do must be {_MEND} or {_LOOK}", "do"))
    request = JobRequest(
        kind=JobKind.RECONCILE,
        filter=build_reconcile_filter(name, view.fields.get("compare"), dry_run=do == _LOOK),
        started_by=view.person.name,
    )
    job = await start_job(view.parts.jobs, request)
    return redirect(f"jobs/{job.id}")
