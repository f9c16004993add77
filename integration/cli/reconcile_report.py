"""What a run tells: progress, the differences that are left, and a file of all of them."""

from __future__ import annotations

import csv
import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from integration.cli.saved_state import SavedState
from integration.core.errors import Misconfigured
from integration.reconcile.differences import HEADINGS, Repair
from integration.reconcile.run import Page

# Unrepaired differences printed on the terminal. The report file has all of them.
_MAX_PRINTED = 20

# Characters of the progress bar.
_BAR = 20

# Prints one line on the terminal.
PrintLine = Callable[[str], object]


@dataclass(slots=True)
class Report:
    """Prints progress and unrepaired differences; writes every difference to a CSV file, if any."""

    write_line: PrintLine
    state: SavedState
    csv_file: TextIO | None = None
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    # By title, when the first page came, and how many were compared by then.
    _first: dict[str, tuple[float, int]] = field(default_factory=dict)

    def open_file(self, file: Path, stack: ExitStack) -> None:
        """Open the CSV file. A resumed run appends to what the run before it found."""
        append = self.state.is_resumed
        try:
            self.csv_file = stack.enter_context(
                file.open("a" if append else "w", encoding="utf-8", newline="")
            )
        except OSError as error:
            raise Misconfigured(f"--report {file}: {error.strerror}") from None
        if not append:
            self._write_cells(HEADINGS)

    def add_page(self, title: str, page: Page, total: int | None = None) -> None:
        """Report a page and save the position behind it. `title`: what its row in the table is;
        `total`: how many resources or rows the walk will compare, where that is known."""
        count = self.counts.setdefault(title, Counter())
        count["compared"] += page.count
        for repair in page.repairs:
            count[repair.difference.kind] += 1
            count["repaired"] += repair.is_done
            self._add_repair(repair)
        if self.csv_file is not None:
            self.csv_file.flush()  # a run that is killed has told of all that it has done
        at = page.position.at
        if at is not None:
            self.state.positions[title] = at
            self.state.write()
        left = self._estimate_left(title, count["compared"], total)
        _print_progress(format_progress(title, count, at, total, left))

    def _estimate_left(self, title: str, compared: int, total: int | None) -> float | None:
        """Return the seconds that a walk takes yet at the speed that it had so far."""
        now = self.clock()
        begun, before = self._first.setdefault(title, (now, compared))
        if not total or now <= begun or compared <= before:
            return None
        return max(total - compared, 0) * (now - begun) / (compared - before)

    def finish(self, title: str) -> None:
        """Save that a walk is over."""
        self.counts.setdefault(title, Counter())
        self.state.finished.append(title)
        self.state.write()

    def _add_repair(self, repair: Repair) -> None:
        self._write_cells(repair.cells)
        if repair.is_done:
            return
        self.state.unrepaired += 1
        if self.state.unrepaired <= _MAX_PRINTED:
            self.print_line("  ".join(cell for cell in repair.cells if cell))
        elif self.state.unrepaired == _MAX_PRINTED + 1:
            self.print_line("… and more: --report FILE writes all of them to a file")

    def _write_cells(self, cells: tuple[str, ...]) -> None:
        if self.csv_file is not None:
            csv.writer(self.csv_file).writerow(cells)

    def print_line(self, text: str) -> None:
        """Print a line in place of the progress, which the next page prints again below."""
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        self.write_line(text)

    def print_early_end(self, why: str) -> None:
        """Say why the run has stopped, and how to go on."""
        self.print_line(f"stopped before the end: {why}")
        if self.state.file is not None and self.state.is_resumed:
            self.write_line(
                f"run it again with the same options and --resume {self.state.file} to go on from "
                "here"
            )


def format_progress(
    title: str,
    count: Counter[str],
    position: str | None,
    total: int | None,
    left: float | None = None,
) -> str:
    """Return one line of progress: with a bar where the total is known. `left`: seconds."""
    compared = count["compared"]
    differences: Any = sum(count.values()) - compared - count["repaired"]
    found = f"{differences:,} differ, {count['repaired']:,} repaired"
    if not total:
        at = f" (until {position})" if position else ""
        return f"{title}: {compared:,} compared{at}, {found}"
    share = min(compared / total, 1.0)
    bar = "#" * round(share * _BAR)
    wait = "" if left is None else f", {_describe_wait(left)} left"
    return f"{title}: [{bar:.<{_BAR}}] {compared:,} of {total:,} compared, {found}{wait}"


def _describe_wait(seconds: float) -> str:
    if seconds < 90:
        return f"about {math.ceil(seconds)} s"
    minutes = math.ceil(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {minutes / 60:.1f} h"


def _print_progress(text: str) -> None:
    """Print over the line before on a terminal, and plain lines into a file or a pipe."""
    sys.stderr.write(f"\r\x1b[K{text}" if sys.stderr.isatty() else f"{text}\n")
    sys.stderr.flush()
