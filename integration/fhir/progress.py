"""How far a lane has come, and what becomes of entries that cannot go. Pure."""

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
    """What is settled; the journal holds the same."""

    settled: dict[int, EntryResult] = field(default_factory=dict)
    identities: dict[str, str] = field(default_factory=dict)  # Type/id by placeholder
    broken: bool = False  # a part of a split transaction was refused

    def record(self, unit: Unit, results: Iterable[EntryResult]) -> None:
        """Outcomes of the unit are settled."""
        names = map_targets(unit)
        for item in results:
            self.settled[item.position] = item
            target = names[item.position]
            if (item.is_written or item.superseded) and item.location and "/" not in target:
                self.identities[target] = get_identity(item, target)
            if not (item.is_written or item.superseded) and unit.kind == "transaction":
                self.broken = True

    def list_unsettled(self, unit: Unit) -> list[UnitEntry]:
        """Its entries that are not settled."""
        return [entry for entry in unit.entries if entry.position not in self.settled]

    def map_written(self, unit: Unit) -> dict[int, bool]:
        """Of its settled entries: whether the server holds what they say."""
        settled = {n: self.settled.get(n) for entry in unit.entries for n in entry.positions}
        return {n: item.is_written for n, item in settled.items() if item is not None}

    def refuse_blocked(self, unit: Unit) -> list[EntryResult]:
        """Entries that cannot go because of what became of earlier ones."""
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
        """Refused as the server itself would; a transaction is refused with them."""
        issue = Issue("multiple-matches", "a conditional reference has more than one match")
        refused = _refuse(ambiguous, issue, _PRECONDITION_FAILED)
        if not (ambiguous and unit.kind == "transaction"):
            return refused
        rest = [entry for entry in self.list_unsettled(unit) if entry not in ambiguous]
        return refused + refuse_dependents(
            rest, "not sent: another entry of the transaction was refused"
        )


def map_targets(unit: Unit) -> dict[int, str]:
    """What each of its entries writes, by position."""
    return {n: entry.target for entry in unit.entries for n in entry.positions}


def get_identity(item: EntryResult, target: str) -> str:
    """Type/id of what was written."""
    return (item.location or target).partition("/_history/")[0]


def refuse_dependents(entries: Iterable[UnitEntry], text: str) -> list[EntryResult]:
    """Refused because of what became of others."""
    return _refuse(entries, Issue("processing", text), _FAILED_DEPENDENCY)


def map_created(
    entries: Sequence[UnitEntry], results: Sequence[EntryResult]
) -> dict[str, str | None]:
    """What conditional entries have created: the stamp by Type/id."""
    conditional = {entry.position: entry for entry in entries if entry.condition}
    return {
        get_identity(item, ""): conditional[item.position].source_version
        for item in results
        if item.status == 201 and item.location and item.position in conditional
    }


def _refuse(entries: Iterable[UnitEntry], issue: Issue, status: int) -> list[EntryResult]:
    return [
        item
        for entry in entries
        for item in entry_results.copy_to_duplicates(
            entry, entry_results.refuse(entry, issue, status)
        )
    ]
