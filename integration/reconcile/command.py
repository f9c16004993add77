"""`python -m integration reconcile`: rows that are missing, behind or left over are mended."""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from integration.core.errors import IntegrationError, Misconfigured
from integration.mapping.model import EntityMap
from integration.mirror.mirror import Mirror
from integration.reconcile import walk
from integration.reconcile.differences import HEADINGS, Repair, render_table
from integration.reconcile.walk import Page, ReconcileRun

# Differences that are told on the terminal; a report has them all.
_MAX_PRINTED = 20

# https://hl7.org/fhir/R4/search.html#date
_SINCE = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?)?)?")

Say = Callable[[str], object]

# Opens what the settings name, and closes it; True: for a dry run.
OpenRun = Callable[[bool], AbstractAsyncContextManager[ReconcileRun]]


@dataclass(slots=True)
class SavedState:
    """How far a run is, kept in a file so that another can go on. `asked`: what it was asked,
    since one that is asked something else cannot."""

    file: Path | None
    options: list[Any]
    positions: dict[str, str] = field(default_factory=dict)  # by resource type
    unrepaired: int = 0  # differences that were not mended

    @property
    def is_resumed(self) -> bool:
        return bool(self.positions)

    def read(self) -> None:
        if self.file is None or not self.file.exists():
            return
        try:
            options, positions, unrepaired = json.loads(self.file.read_text("utf-8"))
            self.positions, self.unrepaired = dict(positions), int(unrepaired)
        except (OSError, ValueError, TypeError):
            raise Misconfigured(f"{self.file} is of no earlier run: remove it") from None
        if options != self.options:
            raise Misconfigured(f"{self.file} is of a run with other options: remove it")

    def write(self) -> None:
        if self.file is not None:
            self.file.write_text(
                json.dumps([self.options, self.positions, self.unrepaired]), "utf-8"
            )

    def remove(self) -> None:
        if self.file is not None:
            self.file.unlink(missing_ok=True)


@dataclass(slots=True)
class Report:
    """What is told of a run: on the terminal, and all of it in a report."""

    say: Say
    state: SavedState
    csv_writer: Any = None  # a writer of CSV
    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def add_page(self, type_: str, page: Page) -> None:
        count = self.counts.setdefault(type_, Counter())
        count["looked at"] += page.count
        for repair in page.repairs:
            count[repair.difference.kind] += 1
            count["mended"] += repair.is_done
            self._add_repair(repair)
        if page.updated_until is not None:
            self.state.positions[type_] = page.updated_until
            self.state.write()
        self._print_progress(type_, count, page.updated_until)

    def _add_repair(self, repair: Repair) -> None:
        if self.csv_writer is not None:
            self.csv_writer.writerow(repair.cells)
        if repair.is_done:
            return
        self.state.unrepaired += 1
        if self.state.unrepaired <= _MAX_PRINTED:
            self.print_line("  ".join(cell for cell in repair.cells if cell))
        elif self.state.unrepaired == _MAX_PRINTED + 1:
            self.print_line("… more: --report FILE has them all")

    def print_line(self, text: str) -> None:
        """In place of the progress, which goes on below."""
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        self.say(text)

    def print_early_end(self, why: str) -> None:
        self.print_line(f"ended early: {why}")
        if self.state.file is not None and self.state.is_resumed:
            self.say(f"--resume {self.state.file} goes on from here")

    def _print_progress(self, type_: str, count: Counter[str], until: str | None) -> None:
        up_to = f" up to {until}" if until else ""
        differ = sum(count.values()) - count["looked at"] - count["mended"]
        counted = f"{count['looked at']:,} looked at{up_to}, {differ:,} differ"
        text = f"{type_}: {counted}, {count['mended']:,} mended"
        sys.stderr.write(f"\r\x1b[K{text}" if sys.stderr.isatty() else f"{text}\n")
        sys.stderr.flush()


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "--type", action="append", help="a resource type; else all with a map in use"
    )
    parser.add_argument("--since", help="only what FHIR has updated since: 2026-01-01")
    parser.add_argument(
        "--dry-run", action="store_true", help="tell what differs, and change nothing"
    )
    parser.add_argument(
        "--deleted", action="store_true", help="rows, too, whose resource was deleted"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="all differences, as CSV")
    parser.add_argument(
        "--resume",
        type=Path,
        nargs="?",
        const=Path("reconcile.json"),
        metavar="FILE",
        help="keep in this file how far the run is, and go on from there (reconcile.json)",
    )


async def run(chosen: argparse.Namespace, open_run: OpenRun, say: Say) -> int:
    """0 when nothing differs any more, 1 when something does, 2 when the run could not end."""
    state = SavedState(chosen.resume, [chosen.since, chosen.dry_run, chosen.type])
    report = Report(say, state)
    try:
        if chosen.since is not None and not _SINCE.fullmatch(chosen.since):
            raise Misconfigured("--since must be a day or a moment: 2026-01-01")
        state.read()
        with ExitStack() as stack:
            if chosen.report is not None:
                report.csv_writer = _open_report(chosen.report, stack, more=state.is_resumed)
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
    async with open_run(chosen.dry_run) as run_:
        for entity in _select_maps(run_.mirror, chosen.type):
            type_ = entity.resource
            since = report.state.positions.get(type_, chosen.since)
            async for page in walk.walk_resources(run_, entity, since):
                report.add_page(type_, page)
            if chosen.deleted:
                async for page in walk.walk_rows(run_, entity):
                    report.add_page(f"{type_} rows", page)
    for number, text in enumerate(render_table(report.counts)):
        (report.say if number else report.print_line)(text)


def _select_maps(mirror: Mirror, types: list[str] | None) -> list[EntityMap]:
    """Raises Misconfigured for a type whose map is broken, or whose rows are not mirrored."""
    for type_ in types or mirror.broken_maps:
        if type_ not in mirror.maps:
            raise Misconfigured(mirror.broken_maps.get(type_, _explain_not_mirrored(type_)))
    return [mirror.maps[type_] for type_ in types or sorted(mirror.maps)]


def _explain_not_mirrored(type_: str) -> str:
    return f"no map of {type_} is in use, or its table is virtual: GET /api/data-routes tells"


def _open_report(file: Path, stack: ExitStack, *, more: bool) -> Any:
    """A writer to a new file, or behind what an earlier part of the run has found."""
    try:
        opened = stack.enter_context(file.open("a" if more else "w", encoding="utf-8", newline=""))
    except OSError as error:
        raise Misconfigured(f"{file}: {error.strerror}") from None
    writer = csv.writer(opened)
    if not more:
        writer.writerow(HEADINGS)
    return writer
