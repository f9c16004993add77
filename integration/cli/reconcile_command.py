"""`python -m integration reconcile`: find rows that differ from FHIR, and repair them."""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from integration.cli.reconcile_report import PrintLine, Report
from integration.cli.saved_state import SavedState
from integration.core.errors import IntegrationError, Misconfigured
from integration.mapping.model import EntityMap
from integration.mirror.mirror import Mirror
from integration.reconcile.differences import render_table
from integration.reconcile.plan import Walk, plan_walks
from integration.reconcile.run import Position, ReconcileRun

# https://hl7.org/fhir/R4/search.html#date
_SINCE = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?)?)?")

# Opens the clients of a run, and closes them.
OpenRun = Callable[[argparse.Namespace], AbstractAsyncContextManager[ReconcileRun]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "--type",
        action="append",
        help="a resource type, may be repeated; without it, every type that is mirrored",
    )
    parser.add_argument(
        "--since", help="compare only resources updated since this date, as 2026-01-01"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="report the differences, and change nothing"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="compare all that the rows show (columns, state, children, lookups, and whose row it "
        "is), not their versions alone, and look for child rows of no row; includes --deleted",
    )
    parser.add_argument(
        "--deleted",
        action="store_true",
        help="also go through the rows, to find those whose resource was deleted",
    )
    parser.add_argument(
        "--fhir-is-right",
        action="store_true",
        help="after the FHIR server was restored or replaced: also write over rows that show a "
        "later version than FHIR has, and with --all or --deleted treat rows of resources that it "
        "does not know as deleted. Do not use it where two FHIR servers fill one organisation",
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write every difference to this CSV file"
    )
    parser.add_argument(
        "--resume",
        type=Path,
        nargs="?",
        const=Path("reconcile.json"),
        metavar="FILE",
        help="save the progress in this file (by default reconcile.json), and resume from it",
    )


def run(chosen: argparse.Namespace, print_line: PrintLine) -> int:
    """Return 0 if no difference is left, 1 if some are, 2 if the run stopped before the end."""
    try:
        return asyncio.run(reconcile(chosen, print_line, open_reconcile))
    except KeyboardInterrupt:  # `reconcile` has reported it
        return 2


async def reconcile(chosen: argparse.Namespace, print_line: PrintLine, open_run: OpenRun) -> int:
    """Run the command in an event loop, and return its exit status."""
    options = [
        chosen.since,
        chosen.dry_run,
        chosen.type,
        chosen.all,
        chosen.deleted,
        chosen.fhir_is_right,
    ]
    state = SavedState(chosen.resume, options)
    report = Report(print_line, state)
    try:
        if chosen.since is not None and not _SINCE.fullmatch(chosen.since):
            raise Misconfigured("--since must be a date or a time of FHIR, as 2026-01-01")
        state.read()
        with ExitStack() as stack:
            if chosen.report is not None:
                report.open_file(chosen.report, stack)
            async with open_run(chosen) as opened:
                await _reconcile(chosen, opened, report)
    except IntegrationError as error:
        report.print_early_end(str(error))
        return 2
    except asyncio.CancelledError:
        report.print_early_end("interrupted")
        raise
    state.remove()
    return 1 if state.unrepaired else 0


async def _reconcile(chosen: argparse.Namespace, opened: ReconcileRun, report: Report) -> None:
    for entity in _select_maps(opened.mirror, chosen.type):
        for part in plan_walks(opened, entity, content=chosen.all, deleted=chosen.deleted):
            if part.title not in report.state.finished:
                begin = chosen.since if part.title == entity.resource else None
                await _walk(part, report, begin)
    for number, text in enumerate(render_table(report.counts)):
        (report.write_line if number else report.print_line)(text)


async def _walk(part: Walk, report: Report, begin: str | None) -> None:
    position = Position(report.state.positions.get(part.title, begin))
    total = await part.count(position) if part.count is not None else None
    async with aclosing(part.begin(position)) as pages:
        async for page in pages:
            report.add_page(part.title, page, total)
    report.finish(part.title)


@asynccontextmanager
async def open_reconcile(chosen: argparse.Namespace) -> AsyncIterator[ReconcileRun]:
    """Open what the settings name, with the maps of the tables that are mirrored now.

    A run that repairs is recorded in the journal, and listed as a delivery. Raises Misconfigured.
    """
    from integration.app import wiring  # slow to import, and other commands do without
    from integration.journal import synthetic_deliveries
    from integration.queues.names import MIRROR_QUEUE

    try:
        parts = await wiring.get_parts()
        mirrored = {
            name
            for name, queue in (await parts.data_routes.get_change_queues()).items()
            if queue == MIRROR_QUEUE
        }
        if not mirrored:
            raise Misconfigured(
                "nothing is mirrored, so there is nothing to compare: MIRROR_TO is off, or no "
                "map in use writes rows"
            )
        now = parts.now()
        run_id = parts.intake.new_id(now)
        maps = {name: entity for name, entity in parts.mirror.maps.items() if name in mirrored}
        opened = ReconcileRun(
            mirror=replace(parts.mirror, maps=maps),
            fhir=parts.fhir,
            dataverse=parts.dataverse,
            id=run_id,
            sleep=asyncio.sleep,
            dry_run=chosen.dry_run,
            fhir_is_right=chosen.fhir_is_right,
        )
        if chosen.fhir_is_right:
            sink = replace(opened.get_web_api(), fhir_is_right=True)
            opened = replace(opened, mirror=replace(opened.mirror, sink=sink))
        if not chosen.dry_run:
            await synthetic_deliveries.add_synthetic_delivery(
                parts.journal, run_id, "reconcile", now, now
            )
        async with parts.mirror.activities.track(delivery=run_id):
            yield opened
    finally:
        await wiring.close_parts()


def _select_maps(mirror: Mirror, types: list[str] | None) -> list[EntityMap]:
    """Raises Misconfigured for a type whose map is broken, or whose rows are not mirrored."""
    for resource_type in types or mirror.broken_maps:
        if resource_type not in mirror.maps:
            raise Misconfigured(
                mirror.broken_maps.get(resource_type, _explain_not_mirrored(resource_type))
            )
    return [mirror.maps[resource_type] for resource_type in types or sorted(mirror.maps)]


def _explain_not_mirrored(resource_type: str) -> str:
    return (
        f"{resource_type} is not mirrored: no map of it is in use (MAPS_ENABLED), or its table is "
        "virtual (GET /api/data-routes shows which are)"
    )
