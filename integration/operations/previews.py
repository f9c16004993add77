"""VERB start_preview: look what changes of the configuration would change, before anybody publishes
them."""

from __future__ import annotations

from collections.abc import Mapping

from integration.core.errors import Issue, Rejected
from integration.journal.jobs import Job, JobFilter, JobKind, PreviewFilter
from integration.operations.configuration import ConfigurationParts, check_changes, keep_changes
from integration.operations.job_request import JobRequest
from integration.operations.jobs import JobParts, start_job


async def start_preview(
    parts: ConfigurationParts,
    jobs: JobParts,
    changes: Mapping[str, str | None],
    *,
    type_: str,
    by: str,
) -> Job:
    """Start a job that counts the rows which changes would change. `changes`: as `check_changes`
    takes them; `type_`: of the resources.

    Raises Rejected for changes that could not be published, and for a type whose map they leave as
    it is.
    """
    checked = await check_changes(parts, changes)
    if checked.problems:
        raise Rejected(*(Issue("invalid", text) for text in checked.problems), status=422)
    if type_ not in checked.entities:
        changed = ", ".join(checked.entities) or "none"
        text = f"the changes are about no map of {type_}; of these: {changed}"
        raise Rejected(Issue("value", text, "preview"))
    digests = await keep_changes(parts, changes)
    chosen = PreviewFilter(type=type_, base=checked.base.number, changes=digests)
    request = JobRequest(kind=JobKind.PREVIEW, filter=JobFilter(preview=chosen), started_by=by)
    return await start_job(jobs, request)
