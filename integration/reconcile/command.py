"""`python -m integration reconcile`: find rows that differ from FHIR, and repair them."""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from integration.core.errors import IntegrationError, Misconfigured
from integration.mapping.model import EntityMap
from integration.mirror.mirror import Mirror
from integration.reconcile import walk
from integration.reconcile.differences import HEADINGS, Repair, render_table
from integration.reconcile.walk import Page, ReconcileRun

# Unrepaired differences printed on the terminal. The report file has all of them.
_MAX_PRINTED = 20

# https://hl7.org/fhir/R4/search.html#date
_SINCE = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?)?)?")

# Prints one line on the terminal.
PrintLine = Callable[[str], object]

# Opens the clients of a run, and closes them. The argument says whether it is a dry run.
OpenRun = Callable[[bool], AbstractAsyncContextManager[ReconcileRun]]


@dataclass(slots=True)
class SavedState:
    """How far a run has come, saved in a file so that a later run can resume there.

    A run with other options cannot resume, so the options are saved, too.
    """

    file: Path | None
    options: list[Any]
    positions: dict[str, str] = field(default_factory=dict)  # last update seen, by resource type
    unrepaired: int = 0

    @property
    def is_resumed(self) -> bool:
        return bool(self.positions)

    def read(self) -> None:
        """Read the file if there is one. Raises Misconfigured if this run cannot resume from it."""
        if self.file is None or not self.file.exists():
            return
        try:
            options, positions, unrepaired = json.loads(self.file.read_text("utf-8"))
            self.positions, self.unrepaired = dict(positions), int(unrepaired)
        except (OSError, ValueError, TypeError):
            raise Misconfigured(
                f"{self.file} was not written by reconcile: name another file, or delete it"
            ) from None
        if options != self.options:
            raise Misconfigured(
                f"{self.file} was written by a run with other options: repeat its --since, "
                "--dry-run and --type, or delete the file to start again"
            )

    def write(self) -> None:
        if self.file is not None:
            state = [self.options, self.positions, self.unrepaired]
            self.file.write_text(json.dumps(state), "utf-8")

    def remove(self) -> None:
        if self.file is not None:
            self.file.unlink(missing_ok=True)


@dataclass(slots=True)
class Report:
    """Prints progress and unrepaired differences; writes every difference to a CSV file, if any."""

    write_line: PrintLine
    state: SavedState
    csv_writer: Any = None
    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def add_page(self, title: str, page: Page) -> None:
        """Report a page and save the position behind it. `title`: what its row in the table is."""
        count = self.counts.setdefault(title, Counter())
        count["compared"] += page.count
        for repair in page.repairs:
            count[repair.difference.kind] += 1
            count["repaired"] += repair.is_done
            self._add_repair(repair)
        if page.updated_until is not None:
            self.state.positions[title] = page.updated_until
            self.state.write()
        self._print_progress(title, count, page.updated_until)

    def _add_repair(self, repair: Repair) -> None:
        if self.csv_writer is not None:
            self.csv_writer.writerow(repair.cells)
        if repair.is_done:
            return
        self.state.unrepaired += 1
        if self.state.unrepaired <= _MAX_PRINTED:
            self.print_line("  ".join(cell for cell in repair.cells if cell))
        elif self.state.unrepaired == _MAX_PRINTED + 1:
            self.print_line("… and more: --report FILE writes all of them to a file")

    def print_line(self, text: str) -> None:
        """Print a line in place of the progress, which the next page prints again below."""
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        self.write_line(text)

    def print_early_end(self, why: str) -> None:
        self.print_line(f"stopped before the end: {why}")
        if self.state.file is not None and self.state.is_resumed:
            self.write_line(f"run it again with --resume {self.state.file} to go on from here")

    def _print_progress(self, title: str, count: Counter[str], until: str | None) -> None:
        differences = sum(count.values()) - count["compared"] - count["repaired"]
        position = f" (updates until {until})" if until else ""
        text = (
            f"{title}: {count['compared']:,} compared{position}, {differences:,} differ, "
            f"{count['repaired']:,} repaired"
        )
        sys.stderr.write(f"\r\x1b[K{text}" if sys.stderr.isatty() else f"{text}\n")
        sys.stderr.flush()


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
        "--deleted",
        action="store_true",
        help="also go through the rows, to find those whose resource was deleted",
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
    state = SavedState(chosen.resume, [chosen.since, chosen.dry_run, chosen.type])
    report = Report(print_line, state)
    try:
        if chosen.since is not None and not _SINCE.fullmatch(chosen.since):
            raise Misconfigured("--since must be a date or a time of FHIR, as 2026-01-01")
        state.read()
        with ExitStack() as stack:
            if chosen.report is not None:
                report.csv_writer = _open_report(chosen.report, stack, append=state.is_resumed)
            await _reconcile(chosen, open_run, report)
    except IntegrationError as error:
        report.print_early_end(str(error))
        return 2
    except asyncio.CancelledError:
        report.print_early_end("interrupted")
        raise
    state.remove()
    return 1 if state.unrepaired else 0


async def _reconcile(chosen: argparse.Namespace, open_run: OpenRun, report: Report) -> None:
    async with open_run(chosen.dry_run) as opened:
        for entity in _select_maps(opened.mirror, chosen.type):
            resource_type = entity.resource
            since = report.state.positions.get(resource_type, chosen.since)
            async for page in walk.walk_resources(opened, entity, since):
                report.add_page(resource_type, page)
            if chosen.deleted:
                async for page in walk.walk_rows(opened, entity):
                    report.add_page(f"{resource_type} rows", page)
    for number, text in enumerate(render_table(report.counts)):
        (report.write_line if number else report.print_line)(text)


@asynccontextmanager
async def open_reconcile(dry_run: bool) -> AsyncIterator[ReconcileRun]:
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
        if not dry_run:
            await synthetic_deliveries.add_synthetic_delivery(
                parts.journal, run_id, "reconcile", now, now
            )
        async with parts.mirror.activities.track(delivery=run_id):
            maps = {name: entity for name, entity in parts.mirror.maps.items() if name in mirrored}
            yield ReconcileRun(
                mirror=replace(parts.mirror, maps=maps),
                fhir=parts.fhir,
                dataverse=parts.dataverse,
                id=run_id,
                sleep=asyncio.sleep,
                dry_run=dry_run,
            )
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


def _open_report(file: Path, stack: ExitStack, *, append: bool) -> Any:
    """Return a CSV writer to the file. A resumed run appends to what the run before it found."""
    try:
        opened = stack.enter_context(
            file.open("a" if append else "w", encoding="utf-8", newline="")
        )
    except OSError as error:
        raise Misconfigured(f"{file}: {error.strerror}") from None
    writer = csv.writer(opened)
    if not append:
        writer.writerow(HEADINGS)
    return writer
