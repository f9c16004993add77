"""`python -m integration config`: look at the configuration in use, try changes of it, publish
them, and take them back.

A file is named as its document: senders.toml, data-routes.toml, and any other as a map.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from difflib import unified_diff
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING

from integration.cli.terminal import PrintLine, read_file
from integration.core.errors import IntegrationError, Misconfigured, Rejected
from integration.journal.configuration import (
    DATA_ROUTES,
    LEFT_OUT,
    MAPS_FOLDER,
    SENDERS,
    ConfigurationVersion,
)
from integration.journal.jobs import Job, JobFilter, JobKind, PreviewFilter, PreviewSummary
from integration.journal.table_keys import build_audit_id

if TYPE_CHECKING:  # slow to import, and other commands do without
    from integration.app.wiring import Parts
    from integration.operations.configuration import (
        ChangedDocument,
        CheckedChanges,
        ConfigurationParts,
    )

_UNTIL_USED = "every worker works by it within 15 seconds"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the actions, and the options of each."""
    actions = parser.add_subparsers(required=True, dest="action", metavar="ACTION")
    history = actions.add_parser("history", help="list the versions, newest first: who, when, why")
    history.add_argument("--documents", action="store_true", help="also list what each has changed")
    diff = actions.add_parser(
        "diff",
        help="show how files differ from what is in use; without files: what in use differs "
        "from the package",
    )
    diff.add_argument("--since", type=int, metavar="VERSION", help="what has changed since then")
    preview = actions.add_parser(
        "preview", help="count the rows that changed maps would change, column by column"
    )
    preview.add_argument("--type", help="a resource type; without it, all whose maps change")
    publish = actions.add_parser("publish", help="publish files as the next version, all or none")
    for action in (diff, preview, publish):
        action.add_argument("files", nargs="*", type=Path, metavar="FILE")
        action.add_argument(
            "--package",
            action="append",
            default=[],
            metavar="DOCUMENT",
            help="have this document as the package has it",
        )
        action.add_argument(
            "--remove",
            action="append",
            default=[],
            metavar="DOCUMENT",
            help="do not use this document, nor the package's",
        )
    rollback = actions.add_parser("rollback", help="publish an earlier version again")
    rollback.add_argument("version", type=int)
    rollback.add_argument(
        "documents",
        nargs="*",
        metavar="DOCUMENT",
        help="these alone; without any: all but the data routes",
    )
    for action in (publish, rollback):
        action.add_argument("--why", required=True, help="a few words for whoever looks later")
        action.add_argument("--by", default=None, help="who does it (by default: your login)")


def run(chosen: argparse.Namespace, print_line: PrintLine) -> int:
    """Return 0 if it was done, 1 if a person should look at what was printed, 2 if not."""
    try:
        return asyncio.run(_run(chosen, print_line))
    except Rejected as error:
        for issue in error.issues:
            print_line(issue.text)
        return 2
    except IntegrationError as error:
        print_line(str(error))
        return 2


async def _run(chosen: argparse.Namespace, print_line: PrintLine) -> int:
    from integration.operations import configuration as verbs

    changes = read_changes(chosen) if hasattr(chosen, "files") else {}
    if chosen.action == "preview":
        return await _preview_all(chosen, changes, print_line)
    from integration.app import wiring

    async with wiring.open_configuration() as configuration:
        match chosen.action:
            case "history":
                return await _print_history(
                    configuration, print_line, with_documents=chosen.documents
                )
            case "diff" if not changes:
                since = await verbs.find_version(configuration, chosen.since or 0)
                latest = (await configuration.live.refresh()).version
                changed = await verbs.compare_versions(configuration, since, latest)
                return _print_changes(changed, print_line)
            case "diff":
                checked = await verbs.check_changes(configuration, changes)
                _print_changes(checked.changed, print_line)
                return _print_problems(checked, print_line)
            case "publish":
                by = chosen.by or getuser()
                version = await verbs.publish(configuration, changes, why=chosen.why, by=by)
            case _:
                version = await verbs.roll_back(
                    configuration,
                    chosen.version,
                    why=chosen.why,
                    by=chosen.by or getuser(),
                    names=chosen.documents,
                )
    print_line(f"version {version.number} is published; {_UNTIL_USED}")
    print_line(
        "rows that exist change at their next message, or by: python -m integration reconcile --all"
    )
    return 0


def read_changes(chosen: argparse.Namespace) -> dict[str, str | None]:
    """Read the files as changes of documents by name. Raises Misconfigured."""
    changes: dict[str, str | None] = {}
    for file in chosen.files:
        try:
            changes[name_document(file)] = read_file(file).decode("utf-8")
        except UnicodeDecodeError:
            raise Misconfigured(f"{file}: it is not UTF-8") from None
    changes |= dict.fromkeys(chosen.package)
    changes |= dict.fromkeys(chosen.remove, LEFT_OUT)
    if not changes and chosen.action != "diff":
        raise Misconfigured("name the files, or documents by --package or --remove")
    return changes


def name_document(file: Path) -> str:
    """Return the name of the document that a file is."""
    is_named = file.name in (SENDERS, DATA_ROUTES)
    return file.name if is_named else f"{MAPS_FOLDER}{file.name}"


async def _preview_all(
    chosen: argparse.Namespace, changes: dict[str, str | None], print_line: PrintLine
) -> int:
    from integration.app import wiring
    from integration.operations.configuration import check_changes

    try:
        parts = await wiring.get_parts()
        checked = await check_changes(parts.configuration, changes)
        if status := _print_problems(checked, print_line):
            return status
        for type_ in [chosen.type] if chosen.type else sorted(checked.entities):
            await _preview(parts, checked, changes, type_, print_line)
        return 0
    finally:
        await wiring.close_parts()


# -- printing -------------------------------------------------------------------------------------


async def _print_history(
    configuration: ConfigurationParts, print_line: PrintLine, *, with_documents: bool
) -> int:
    from integration.operations.configuration import compare_versions, find_version, list_history

    before: int | None = None
    while versions := await list_history(configuration, before):
        for version in versions:
            for line in describe_version(version):
                print_line(line)
            if with_documents:
                previous = await find_version(configuration, version.number - 1)
                for item in await compare_versions(configuration, previous, version):
                    print_line(f"    {item.name}")
        before = versions[-1].number
    if before is None:
        print_line("nothing was published: the files of the package are in use (version 0)")
    return 0


def describe_version(version: ConfigurationVersion) -> Iterator[str]:
    """Yield a version as lines."""
    when = f"{version.published:%Y-%m-%d %H:%M} UTC" if version.published else "?"
    again = f", version {version.restores} again" if version.restores is not None else ""
    yield f"version {version.number}, {when}, {version.published_by or 'unknown'}{again}"
    yield f"    {version.why}"


def _print_changes(changed: Sequence[ChangedDocument], print_line: PrintLine) -> int:
    for item in changed:
        lines = unified_diff(
            (item.before or "").splitlines(),
            (item.after or "").splitlines(),
            f"{item.name} (in use)" if item.before is not None else "(none)",
            f"{item.name} (changed)" if item.after is not None else "(none)",
            lineterm="",
        )
        for line in lines:
            print_line(line)
    if not changed:
        print_line("nothing differs")
    return 0


def _print_problems(checked: CheckedChanges, print_line: PrintLine) -> int:
    for problem in checked.problems:
        print_line(problem)
    if checked.unchecked is not None:
        print_line(f"whether the maps fit the tables is not known: {checked.unchecked}")
    return 1 if checked.problems or checked.unchecked else 0


async def _preview(
    parts: Parts,
    checked: CheckedChanges,
    changes: dict[str, str | None],
    type_: str,
    print_line: PrintLine,
) -> None:
    """Do the work of a preview here, and print its progress."""
    from integration.operations.configuration import keep_changes
    from integration.operations.reconcile_jobs import check_reconcile, get_reconcile_work

    digests = await keep_changes(parts.configuration, changes)
    now = parts.now()
    job = Job(
        id=build_audit_id(now, parts.configuration.new_token()),
        kind=JobKind.PREVIEW,
        filter=JobFilter(
            preview=PreviewFilter(type=type_, base=checked.base.number, changes=digests)
        ),
        started=now,
    )
    work = parts.jobs.reconcile
    await check_reconcile(work, job.filter)
    async with aclosing(get_reconcile_work(work).preview(job)) as found:
        async for part in found:
            if part.error is not None:
                raise part.error
            job = replace(
                job,
                found=job.found if part.found is None else part.found,
                looked_at=job.looked_at + part.looked_at,
                done=job.done + part.done,
                failed=job.failed + part.failed,
                summary=part.summary or job.summary,
            )
            of = "" if job.found is None else f" of {job.found:,}"
            print_line(f"{type_}: {job.looked_at:,}{of} looked at, {job.done:,} would change")
    for line in describe_preview(type_, job):
        print_line(line)


def describe_preview(type_: str, job: Job) -> Iterator[str]:
    """Yield what a preview has found as lines."""
    summary = job.summary or PreviewSummary()
    yield f"{type_}: {job.done:,} of {job.looked_at:,} rows would change"
    for name, number in sorted(summary.columns.items(), key=lambda pair: (-pair[1], pair[0])):
        yield f"  {number:>9,}  {name}"
    if summary.without_row:
        yield f"  {summary.without_row:,} have no row yet: that is not of the change"
    if job.failed:
        yield f"  {job.failed:,} cannot be compared: run reconcile --all --dry-run, it says why"
    if summary.examples:
        yield f"  such as {', '.join(summary.examples)}"
