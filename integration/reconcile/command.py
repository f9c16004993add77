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
from integration.reconcile.differences import HEADINGS, Settled, table
from integration.reconcile.walk import Page, Reconcile

# Differences that are told on the terminal; a report has them all.
_TOLD = 20

# https://hl7.org/fhir/R4/search.html#date
_SINCE = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?)?)?")

Say = Callable[[str], object]

# Opens what the settings name, and closes it; True: for a dry run.
Opened = Callable[[bool], AbstractAsyncContextManager[Reconcile]]


@dataclass(slots=True)
class State:
    """How far a run is, kept in a file so that another can go on. `asked`: what it was asked,
    since one that is asked something else cannot."""

    file: Path | None
    asked: list[Any]
    since: dict[str, str] = field(default_factory=dict)  # by resource type
    left: int = 0  # differences that were not mended

    @property
    def resumed(self) -> bool:
        return bool(self.since)

    def read(self) -> None:
        if self.file is None or not self.file.exists():
            return
        try:
            asked, since, left = json.loads(self.file.read_text("utf-8"))
            self.since, self.left = dict(since), int(left)
        except (OSError, ValueError, TypeError):
            raise Misconfigured(f"{self.file} is of no earlier run: remove it") from None
        if asked != self.asked:
            raise Misconfigured(f"{self.file} is of a run with other options: remove it")

    def write(self) -> None:
        if self.file is not None:
            self.file.write_text(json.dumps([self.asked, self.since, self.left]), "utf-8")

    def over(self) -> None:
        if self.file is not None:
            self.file.unlink(missing_ok=True)


@dataclass(slots=True)
class Told:
    """What is told of a run: on the terminal, and all of it in a report."""

    say: Say
    state: State
    report: Any = None  # a writer of CSV
    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def page(self, type_: str, page: Page) -> None:
        count = self.counts.setdefault(type_, Counter())
        count["looked at"] += page.looked
        for settled in page.settled:
            count[settled.difference.is_] += 1
            count["mended"] += settled.mended
            self._one(settled)
        if page.until is not None:
            self.state.since[type_] = page.until
            self.state.write()
        self._progress(type_, count, page.until)

    def _one(self, settled: Settled) -> None:
        if self.report is not None:
            self.report.writerow(settled.cells)
        if settled.mended:
            return
        self.state.left += 1
        if self.state.left <= _TOLD:
            self.line("  ".join(cell for cell in settled.cells if cell))
        elif self.state.left == _TOLD + 1:
            self.line("… more: --report FILE has them all")

    def line(self, text: str) -> None:
        """In place of the progress, which goes on below."""
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        self.say(text)

    def ended(self, why: str) -> None:
        self.line(f"ended early: {why}")
        if self.state.file is not None and self.state.resumed:
            self.say(f"--resume {self.state.file} goes on from here")

    def _progress(self, type_: str, count: Counter[str], until: str | None) -> None:
        up_to = f" up to {until}" if until else ""
        differ = sum(count.values()) - count["looked at"] - count["mended"]
        told = f"{count['looked at']:,} looked at{up_to}, {differ:,} differ"
        text = f"{type_}: {told}, {count['mended']:,} mended"
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


async def run(chosen: argparse.Namespace, opened: Opened, say: Say) -> int:
    """0 when nothing differs any more, 1 when something does, 2 when the run could not end."""
    state = State(chosen.resume, [chosen.since, chosen.dry_run, chosen.type])
    told = Told(say, state)
    try:
        if chosen.since is not None and not _SINCE.fullmatch(chosen.since):
            raise Misconfigured("--since must be a day or a moment: 2026-01-01")
        state.read()
        with ExitStack() as stack:
            if chosen.report is not None:
                told.report = _report(chosen.report, stack, more=state.resumed)
            await _reconciled(chosen, opened, told)
    except IntegrationError as error:
        told.ended(str(error))
        return 2
    except asyncio.CancelledError:
        told.ended("interrupted")
        raise
    state.over()
    return 1 if state.left else 0


async def _reconciled(chosen: argparse.Namespace, opened: Opened, told: Told) -> None:
    async with opened(chosen.dry_run) as it:
        for entity in _entities(it.mirror, chosen.type):
            type_ = entity.resource
            since = told.state.since.get(type_, chosen.since)
            async for page in walk.resources(it, entity, since):
                told.page(type_, page)
            if chosen.deleted:
                async for page in walk.left_over(it, entity):
                    told.page(f"{type_} rows", page)
    for number, text in enumerate(table(told.counts)):
        (told.say if number else told.line)(text)


def _entities(mirror: Mirror, types: list[str] | None) -> list[EntityMap]:
    """Raises Misconfigured for a type whose map is broken, or whose rows are not mirrored."""
    for type_ in types or mirror.broken_maps:
        if type_ not in mirror.maps:
            raise Misconfigured(mirror.broken_maps.get(type_, _not_mirrored(type_)))
    return [mirror.maps[type_] for type_ in types or sorted(mirror.maps)]


def _not_mirrored(type_: str) -> str:
    return f"no map of {type_} is in use, or its table is virtual: GET /api/data-routes tells"


def _report(file: Path, stack: ExitStack, *, more: bool) -> Any:
    """A writer to a new file, or behind what an earlier part of the run has found."""
    try:
        opened = stack.enter_context(file.open("a" if more else "w", encoding="utf-8", newline=""))
    except OSError as error:
        raise Misconfigured(f"{file}: {error.strerror}") from None
    writer = csv.writer(opened)
    if not more:
        writer.writerow(HEADINGS)
    return writer
