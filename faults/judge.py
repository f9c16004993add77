"""Judges what was sent, adds it up and tells what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

import httpx

from faults import truth
from faults.verdict import Finding, Tally, Told, judged
from local.services import Running

_MOST_TOLD = 10  # of one kind of harm


@dataclass(slots=True)
class Report:
    """All that was found. `tell` shows progress; `seed` repeats the run."""

    http: httpx.AsyncClient
    running: Running
    seed: str
    tell: Callable[[str], None] = lambda _: None
    tally: Tally = field(default_factory=Tally)
    _numbers: count[int] = field(default_factory=lambda: count(1))

    def next_number(self) -> int:
        return next(self._numbers)

    def progress(self, text: str) -> None:
        self.tell(f"{text}; so far {str(self.tally).removeprefix('faults: ')}")

    def note(self, left: str | None) -> None:
        """Work that has got stuck in a queue."""
        if left:
            self._add(Tally(findings=[Finding("unexplained", f"seed {self.seed}", left)]), 1)

    async def judge(self, told: Sequence[Told], where: str, injected: int) -> Tally:
        """Hold what the relay told of these deliveries against what the servers hold."""
        things = [asked.thing for each in told for asked in each.sent.asked]
        held = await truth.held(self.http, self.running.fhir_url, things)
        identities = {each.identities[0] for each in held.values() if each.identities}
        rows = await truth.rows(self.http, self.running.dataverse_url, identities)
        tally = judged(told, held, rows, f"seed {self.seed}, {where}")
        tally.counts["injected"] += injected
        self._add(tally)
        return tally

    def _add(self, tally: Tally, unexplained: int = 0) -> None:
        tally.counts["unexplained"] += unexplained
        for found in tally.findings:
            if sum(each.harm == found.harm for each in self.tally.findings) < _MOST_TOLD:
                self.tell(f"  {found.harm.upper()} {found.where}\n      {found.what}")
            self.tally.findings.append(found)
        self.tally.counts.update(tally.counts)
