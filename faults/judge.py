"""Check deliveries against the servers, add up the results and print what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

import httpx

from faults import truth
from faults.attention_verdict import find_missing
from faults.injected import REWRITTEN
from faults.verdict import AcceptedDelivery, Finding, Tally, judge_deliveries
from local.services import Running

_MAX_SHOWN = 10  # findings printed of each kind


@dataclass(slots=True, kw_only=True)
class Report:
    """All findings of a scenario. `print_line` prints progress; `seed` reproduces the run."""

    http: httpx.AsyncClient
    running: Running
    seed: str
    print_line: Callable[[str], None] = lambda _: None
    tally: Tally = field(default_factory=Tally)
    # The positions of entries that are not in the FHIR server and should be, by delivery.
    missing: dict[str, frozenset[int]] = field(default_factory=dict)
    missing_by_body: dict[bytes, frozenset[int]] = field(default_factory=dict)
    _numbers: count[int] = field(default_factory=lambda: count(1))

    def next_number(self) -> int:
        return next(self._numbers)

    def print_progress(self, text: str) -> None:
        self.print_line(f"{text}; so far {str(self.tally).removeprefix('faults: ')}")

    def record_stuck_work(self, stuck: str | None) -> None:
        """Record work that is stuck in a queue, if any."""
        if stuck:
            self.add_tally(Tally(findings=[Finding("unexplained", f"seed {self.seed}", stuck)]), 1)

    async def judge(
        self, accepted: Sequence[AcceptedDelivery], where: str, injected: Mapping[str, int]
    ) -> Tally:
        """Compare the relay's response bundles with what the servers hold. `injected`: the faults
        that these deliveries have met, by their kind."""
        tracked = [intent.tracked for item in accepted for intent in item.sent.intents]
        held = await truth.read_resources(self.http, self.running.fhir_url, tracked)
        identities = {item.identities[0] for item in held.values() if item.identities}
        rows = await truth.read_contacts(self.http, self.running.dataverse_url, identities)
        missing = find_missing(accepted, held)
        self.missing.update(missing)
        self.missing_by_body.update((item.sent.body, missing[item.id]) for item in accepted)
        tally = judge_deliveries(accepted, held, rows, f"seed {self.seed}, {where}")
        tally.injected.update(injected)
        tally.injected[REWRITTEN] += sum(
            any(held[intent.tracked].is_rewritten for intent in item.sent.intents)
            for item in accepted
        )
        self.add_tally(tally)
        return tally

    def add_tally(self, tally: Tally, unexplained: int = 0) -> None:
        """Add the results of one round, and print what is new."""
        tally.counts["unexplained"] += unexplained
        for finding in tally.findings:
            if sum(finding.harm == known.harm for known in self.tally.findings) < _MAX_SHOWN:
                self.print_line(f"  {finding.harm.upper()} {finding.where}\n      {finding.what}")
            self.tally.findings.append(finding)
        self.tally.counts.update(tally.counts)
        self.tally.injected.update(tally.injected)
