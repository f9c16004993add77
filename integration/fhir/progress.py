"""The progress of a lane: which entries are settled, and which can no longer be sent. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from integration.core.errors import Issue
from integration.core.model import EntryResult
from integration.fhir import entry_results
from integration.fhir.units import Unit, UnitEntry

_PRECONDITION_FAILED = 412
_FAILED_DEPENDENCY = 424


@dataclass(slots=True)
class Progress:
    """The results of a lane so far, as the journal holds them too."""

    settled: dict[int, EntryResult] = field(default_factory=dict)
    identities: dict[str, str] = field(default_factory=dict)  # Type/id by placeholder
    broken: bool = False  # a part of a split transaction was refused

    def record(self, unit: Unit, results: Iterable[EntryResult]) -> None:
        """Record results of the unit."""
        names = map_targets(unit)
        for item in results:
            self.settled[item.position] = item
            target = names[item.position]
            if (item.is_written or item.superseded) and item.location and "/" not in target:
                self.identities[target] = get_identity(item, target)
            if not (item.is_written or item.superseded) and unit.kind == "transaction":
                self.broken = True

    def list_unsettled(self, unit: Unit) -> list[UnitEntry]:
        """Return the entries of the unit without a result."""
        return [entry for entry in unit.entries if entry.position not in self.settled]

    def map_written(self, unit: Unit) -> dict[int, bool]:
        """Return, by position, whether each settled entry of the unit was written."""
        settled = {n: self.settled.get(n) for entry in unit.entries for n in entry.positions}
        return {n: item.is_written for n, item in settled.items() if item is not None}

    def refuse_blocked(self, unit: Unit) -> list[EntryResult]:
        """Return the results of entries that cannot be sent, because earlier ones were refused."""
        todo = self.list_unsettled(unit)
        if self.broken and unit.kind == "transaction":
            return refuse_dependents(
                todo, "not sent: an earlier part of the transaction was refused"
            )
        inside = {entry.target for entry in todo} if unit.kind == "transaction" else set()
        resolvable = self.identities.keys() | inside
        blocked = [entry for entry in todo if not resolvable >= set(entry.awaits)]
        text = "not sent: it refers to an entry that was refused"
        return refuse_dependents(todo if unit.kind == "transaction" and blocked else blocked, text)

    def refuse_ambiguous(self, unit: Unit, ambiguous: Sequence[UnitEntry]) -> list[EntryResult]:
        """Return the results of entries whose conditional references have several matches. They are
        refused as the server would refuse them; a transaction is refused with them."""
        issue = Issue("multiple-matches", "a conditional reference has more than one match")
        refused = _refuse(ambiguous, issue, _PRECONDITION_FAILED)
        if not (ambiguous and unit.kind == "transaction"):
            return refused
        rest = [entry for entry in self.list_unsettled(unit) if entry not in ambiguous]
        return refused + refuse_dependents(
            rest, "not sent: another entry of the transaction was refused"
        )


def map_targets(unit: Unit) -> dict[int, str]:
    """Return the target of each entry of the unit, by position."""
    return {n: entry.target for entry in unit.entries for n in entry.positions}


def get_identity(item: EntryResult, target: str) -> str:
    """Return the Type/id that was written."""
    return (item.location or target).partition("/_history/")[0]


def refuse_dependents(entries: Iterable[UnitEntry], text: str) -> list[EntryResult]:
    """Return the results of entries that are refused because others were."""
    return _refuse(entries, Issue("processing", text), _FAILED_DEPENDENCY)


def _refuse(entries: Iterable[UnitEntry], issue: Issue, status: int) -> list[EntryResult]:
    return [
        item
        for entry in entries
        for item in entry_results.copy_to_duplicates(
            entry, entry_results.refuse(entry, issue, status)
        )
    ]
