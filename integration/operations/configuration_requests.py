"""VERBS show_configuration, change_configuration, preview_changes: what is asked of
/api/configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from integration.core.errors import Issue, Rejected
from integration.journal.jobs import Job
from integration.operations.configuration import (
    ConfigurationParts,
    check_changes,
    find_version,
    list_history,
    publish,
    roll_back,
)
from integration.operations.configuration_views import (
    ConfigurationRequest,
    describe_checked,
    describe_configuration,
    describe_version,
    parse_version_number,
)
from integration.operations.jobs import JobParts
from integration.operations.previews import start_preview


async def show_configuration(parts: ConfigurationParts, query: Mapping[str, str]) -> dict[str, Any]:
    """Return what is in use, or was with `version`, and a page of the versions before `before`.
    Raises Rejected."""
    _refuse(query, "dry-run", "preview")
    number = parse_version_number(query, "version")
    history = await list_history(parts, parse_version_number(query, "before"))
    current = await parts.live.refresh()
    if number is not None:
        current = await parts.live.read(await find_version(parts, number))
    return describe_configuration(current, history)


async def change_configuration(
    parts: ConfigurationParts, wanted: ConfigurationRequest, *, dry_run: bool
) -> dict[str, Any]:
    """Publish changes, or an earlier version again, and return the version. `dry_run`: check
    changes alone. Raises Rejected, and Unavailable as `publish` does."""
    if wanted.restore is not None:
        if dry_run:
            text = "a dry run is for changes: of a version, GET ?version=N shows the documents"
            raise Rejected(Issue("not-supported", text, "dry-run"))
        version = await roll_back(
            parts, wanted.restore, why=wanted.why, by=wanted.by, names=wanted.documents
        )
        return describe_version(version)
    if dry_run:
        return describe_checked(await check_changes(parts, wanted.changes))
    version = await publish(parts, wanted.changes, why=wanted.why, by=wanted.by, base=wanted.base)
    return describe_version(version)


async def preview_changes(
    parts: ConfigurationParts,
    jobs: JobParts,
    wanted: ConfigurationRequest,
    query: Mapping[str, str],
) -> Job:
    """Start a preview of changes for the resources of the type in the query. Raises Rejected."""
    _refuse(query, "dry-run", "version", "before")
    return await start_preview(parts, jobs, wanted.changes, type_=query["preview"], by=wanted.by)


def _refuse(query: Mapping[str, str], *names: str) -> None:
    """Raise Rejected for parameters that mean nothing here."""
    if found := [name for name in names if name in query]:
        text = "this parameter means nothing with what is asked"
        raise Rejected(Issue("not-supported", text, ", ".join(found)))
