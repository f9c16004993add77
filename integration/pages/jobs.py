"""The pages Jobs: start long work after a count, see its progress, stop it.

The list costs one storage operation, a job one. The count before a job begins takes a few seconds
at most, and says so where it found only a part.
"""

from __future__ import annotations

from collections.abc import Mapping

from integration.core.errors import Rejected
from integration.journal.concern import ConcernGroup, ConcernKind
from integration.journal.jobs import OPEN_STATES, Job, JobFilter, JobKind
from integration.operations.job_request import JobRequest, build_job_filter, describe_job
from integration.operations.jobs import count_targets, get_job, list_jobs, start_job, stop_job
from integration.operations.query_parameters import parse_choice
from integration.pages.filters import build_query
from integration.pages.http import Reply, build_link, redirect
from integration.pages.people import Role
from integration.pages.view import View, render

# What a job is asked for by: the fields of its kind and its filter.
FILTER_FIELDS = (
    "status",
    "attention",
    "concern",
    "same_reason",
    "sender",
    "reason",
    "kind",
    "since",
    "until",
    "waiting",
)
NEW_FIELDS = ("do", *FILTER_FIELDS)

TITLES = {JobKind.REPLAY: "Replay", JobKind.CANCEL: "Cancel", JobKind.RECONCILE: "Reconcile"}
# What waits is tried again by itself: a job only does so earlier.
_WAITING = frozenset({ConcernKind.WAITING, ConcernKind.ROW_WAITING})

# A preview begins on the page of a draft.
_ALL_TITLES = {**TITLES, JobKind.PREVIEW: "Preview"}


def list_offers(view: View, filters: Mapping[str, str]) -> list[tuple[JobKind, str]]:
    """Return the jobs that can be started for what a list shows: their kinds and titles."""
    if not view.person.can(Role.OPERATOR):
        return []
    offers = []
    for kind in TITLES:
        if set(filters) - set(FILTER_FIELDS):
            continue
        try:
            # Without a filter a list shows everything, which is no choice that anybody made.
            query = build_query(filters) if filters else {"status": "done"}
            title = _choose_title(kind, build_job_filter(kind, query))
        except Rejected:
            continue
        offers.append((kind, title))
    return offers


async def show_jobs(view: View) -> Reply:
    """Show the jobs, the newest first."""
    page = await list_jobs(view.parts.jobs.jobs, view.fields)
    return render(
        view,
        "jobs.html",
        jobs=page.jobs,
        after=page.after,
        is_first="after" not in view.fields,
        title_of=lambda job: _choose_title(job.kind, job.filter),
    )


async def show_new_job(view: View) -> Reply:
    """Show what a job would do, counted, and the button that starts it."""
    request = _build_request(view)
    filters = {name: value for name, value in view.fields.items() if name != "do"}
    return render(
        view,
        "job_new.html",
        request=request,
        title=_choose_title(request.kind, request.filter),
        only_hastens=_only_hastens(request.kind, request.filter),
        filters=filters,
        is_of_rows=request.filter.group is ConcernGroup.ROWS,
        back=_link_back(filters),
        count=await count_targets(view.parts.jobs, request),
    )


def _only_hastens(kind: JobKind, job_filter: JobFilter) -> bool:
    """Whether a job has what waits tried at once, and replays nothing."""
    waits = job_filter.criteria.waiting or job_filter.concern in _WAITING
    return kind is JobKind.REPLAY and waits


def _choose_title(kind: JobKind, job_filter: JobFilter) -> str:
    return "Try now" if _only_hastens(kind, job_filter) else _ALL_TITLES[kind]


def _link_back(filters: Mapping[str, str]) -> str:
    """Return the address of the list that shows what a job would work on."""
    if "concern" not in filters:
        return build_link("deliveries", filters)
    fields = {"kind": filters["concern"], **filters}
    del fields["concern"]
    return build_link("attention", fields)


async def begin_job(view: View) -> Reply:
    """Start a job, and show its progress."""
    job = await start_job(view.parts.jobs, _build_request(view))
    return redirect(f"jobs/{job.id}")


async def show_job(view: View) -> Reply:
    """Show how far a job is."""
    job = await get_job(view.parts.jobs.jobs, view.arguments["id"])
    described = describe_job(job)
    return render(
        view,
        "job.html",
        job=job,
        title=_choose_title(job.kind, job.filter),
        examples=_list_examples(view, job),
        filters=described["filter"],
        delivery=described.get("delivery"),
        is_dry_run=job.filter.reconcile is not None and job.filter.reconcile.dry_run,
        is_open=job.state in OPEN_STATES,
    )


def _list_examples(view: View, job: Job) -> list[tuple[str, str | None]]:
    """Return the names of resources, each with the path of its page for whoever may see it."""
    examples = job.summary.examples if job.summary is not None else ()
    return [
        (name, f"patients/{id_}" if type_ == "Patient" and view.person.can(Role.PHI) else None)
        for name in examples
        for type_, _, id_ in [name.partition("/")]
    ]


async def end_job(view: View) -> Reply:
    """Stop a job."""
    job = await stop_job(view.parts.jobs.jobs, view.arguments["id"])
    return redirect(f"jobs/{job.id}")


def _build_request(view: View) -> JobRequest:
    kind = parse_choice(view.fields.get("do", ""), JobKind, "do")
    assert kind is not None, "a text, though an empty one, is parsed or refused"
    fields = {name: value for name, value in view.fields.items() if name != "do"}
    return JobRequest(
        kind=kind,
        filter=build_job_filter(kind, build_query(fields)),
        started_by=view.person.name,
    )
