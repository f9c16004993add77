"""What is found out before a unit goes: whose turn it is, what its conditions find, and what an
earlier try has done."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from integration.core import decimal_json
from integration.core.activity import doing
from integration.core.errors import Unavailable
from integration.core.model import Delivery, EntryResult, Response
from integration.fhir import entry_results, previous_attempt, units
from integration.fhir.client import FhirServer
from integration.fhir.previous_attempt import Asked
from integration.fhir.units import Unit, UnitEntry
from integration.journal import write_guard
from integration.journal.write_guard import HeldLocks, Write, WriteGuard

UNGUARDED = "off"


@dataclass(frozen=True, slots=True)
class Preflight:
    """Asks on behalf of one delivery. `answers` are Type/id by placeholder, as far as known."""

    fhir: FhirServer
    guard: WriteGuard
    delivery: Delivery
    answers: Mapping[str, str]

    @property
    def guarded(self) -> bool:
        return self.delivery.write_order != UNGUARDED


async def acquire_locks(
    scout: Preflight, taken: HeldLocks, entries: Sequence[UnitEntry], followed: Collection[str]
) -> dict[int, list[str]]:
    """Hold the turns of these entries, and of what their conditions find: Type/id by position.

    Raises Unavailable when a turn is not free, or a search is not answered: a look-up that failed
    is no leave to write.
    """
    if scout.guarded:
        await write_guard.acquire(scout.guard, taken, _writes(entries, scout.answers))
    searched = [entry for entry in entries if _is_searched(entry, scout.guarded, followed)]
    found = await _found(scout, searched)
    if scout.guarded and found:
        await write_guard.acquire(scout.guard, taken, _found_writes(searched, found))
    return found


async def release_previous_locks(
    scout: Preflight,
    taken: HeldLocks,
    entries: Sequence[UnitEntry],
    found: Mapping[int, Sequence[str]],
    written: Mapping[int, bool],
) -> None:
    """Give back what an earlier try of these settled entries still holds: it ended in between.
    `written` by position, and Type/id of what conditions found."""
    if scout.guarded and entries:
        searched = [entry for entry in entries if entry.position in found]
        writes = [*_writes(entries, scout.answers), *_found_writes(searched, found)]
        await write_guard.release_previous(scout.guard, taken, writes, written)


def _is_searched(entry: UnitEntry, guarded: bool, followed: Collection[str]) -> bool:
    """A conditional create leaves alone what it finds; the others change it."""
    if entry.condition is None or entry.method == "POST":
        return False
    kind = entry.condition.partition("?")[0]
    return guarded or (entry.method == "DELETE" and kind in followed)


def _writes(entries: Sequence[UnitEntry], answers: Mapping[str, str]) -> list[Write]:
    """One for each resource that senders can name."""
    writes: dict[str, Write] = {}
    for entry in entries:
        if entry.reads or entry.created:
            continue
        name = _condition(entry, answers) if entry.condition else entry.target
        _add(writes, name, entry, ordered=entry.method != "POST")
    return list(writes.values())


def _found_writes(entries: Sequence[UnitEntry], found: Mapping[int, Sequence[str]]) -> list[Write]:
    writes: dict[str, Write] = {}
    for entry in entries:
        for name in found[entry.position]:
            _add(writes, name, entry, ordered=True)
    return list(writes.values())


def _add(writes: dict[str, Write], name: str, entry: UnitEntry, *, ordered: bool) -> None:
    before = writes[name].positions if name in writes else ()
    writes[name] = Write(name, (*before, entry.position), entry.source_version, ordered)


def _condition(entry: UnitEntry, answers: Mapping[str, str]) -> str:
    known = [name for name in entry.awaits if name in answers]
    return units.filled((entry.condition or "").encode(), known, answers).decode()


async def _found(scout: Preflight, entries: Sequence[UnitEntry]) -> dict[int, list[str]]:
    if not entries:
        return {}
    queries = [_condition(entry, scout.answers) for entry in entries]
    answers = await _asked(scout, [f"{query}&_elements=id&_count=100" for query in queries])
    found: dict[int, list[str]] = {}
    for entry, query, answer in zip(entries, queries, answers, strict=False):
        names = previous_attempt.matches(query, answer)
        if names is None:
            raise _unanswered(scout)
        found[entry.position] = names
    return found


async def ambiguous(scout: Preflight, entries: Sequence[UnitEntry]) -> list[UnitEntry]:
    """Entries with a conditional reference to one of the delivery's own resources, of which the
    server knows another match: https://hl7.org/fhir/R4/http.html#trules demands exactly one."""
    pairs = sorted({pair for entry in entries for pair in entry.sole})
    if not pairs:
        return []
    answers = await _asked(scout, [f"{query}&_elements=id&_count=2" for query, _ in pairs])
    others: set[tuple[str, str]] = set()
    for (query, target), answer in zip(pairs, answers, strict=False):
        names = previous_attempt.matches(query, answer)
        if names is None:
            raise _unanswered(scout)
        known = target if "/" in target else scout.answers.get(target)
        # The one match may be what a condition will find: only a second one is one too many.
        if len(names) > 1 or (known and set(names) - {known}):
            others.add((query, target))
    return [entry for entry in entries if others.intersection(entry.sole)]


async def find_already_applied(
    scout: Preflight,
    unit: Unit,
    entries: Sequence[UnitEntry],
    taken: HeldLocks,
    found: Mapping[int, Sequence[str]],
    began: float | None,
    settled: Iterable[EntryResult],
) -> list[EntryResult]:
    """What need not or must not be sent, because an earlier try has done it. `began`: when an
    earlier try of the lane did, in seconds since 1970; `settled`: what it has come to so far."""
    own = {
        name: version
        for item in settled
        for name, _, version in [(item.location or "").partition("/_history/")]
        if item.written and version
    }
    asked: list[Asked] = []
    for entry in entries:
        since = _since(scout, entry, taken, began)
        name = name_of(entry, found)
        if since is not None and name is not None:
            answers = {**scout.answers, entry.target: name}  # it may refer to itself
            asked.append(Asked(entry, name, since, _resource(entry, answers), own.get(name)))
    if not asked:
        return []
    states = await _asked(scout, [one.name for one in asked])
    known = previous_attempt.proven(
        asked, states, atomic=unit.kind == "transaction", repeat=scout.delivery.repeat
    )
    if known is None:
        raise _unanswered(scout)
    return list(known.values())


def _since(
    scout: Preflight, entry: UnitEntry, taken: HeldLocks, began: float | None
) -> float | None:
    """When a try of this entry began whose end is not known; None: there was none."""
    if entry.reads or (entry.condition and entry.method == "POST"):
        return None  # to be repeated as it is
    if entry.created and scout.delivery.repeat:
        return began or 0.0  # the same bytes, before, had the same ids
    if entry.created or not scout.guarded:
        return began
    return taken.attempted_at.get(entry.position)


def name_of(entry: UnitEntry, found: Mapping[int, Sequence[str]]) -> str | None:
    """Type/id of what it writes, where that is known."""
    if entry.condition is None:
        return entry.target
    names = found.get(entry.position, ())
    return names[0] if len(names) == 1 else None


def _resource(entry: UnitEntry, answers: Mapping[str, str]) -> dict[str, Any] | None:
    if entry.method != "PUT":
        return None
    known = [name for name in entry.awaits if name in answers]
    body = decimal_json.decode(units.filled(bytes(entry.body), known, answers))
    resource: dict[str, Any] = body["resource"]
    return resource


async def _asked(scout: Preflight, addresses: Sequence[str]) -> list[Any]:
    with doing(action="look-up"):
        response: Response = await scout.fhir.send(units.reads(addresses), scout.delivery.id)
    answers = entry_results.entries_of(response)
    if answers is None or len(answers) < len(addresses):
        raise _unanswered(scout, response.retry_after)
    return answers


def _unanswered(scout: Preflight, retry_after: float | None = None) -> Unavailable:
    name = scout.fhir.upstream.name
    return Unavailable(name, "a look-up was not answered", retry_after)
