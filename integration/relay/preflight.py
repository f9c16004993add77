"""What is found out before a unit goes: whose turn it is, what its conditions find, and what an
earlier try has done."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from integration.core import decimal_json
from integration.core.activity import add_activity_context
from integration.core.errors import Unavailable
from integration.core.model import Delivery, EntryResult, Response
from integration.fhir import entry_results, previous_attempt, units
from integration.fhir.client import FhirServer
from integration.fhir.previous_attempt import UnconfirmedEntry
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
    identities: Mapping[str, str]

    @property
    def guarded(self) -> bool:
        return self.delivery.write_order != UNGUARDED


async def acquire_locks(
    preflight: Preflight,
    locks: HeldLocks,
    entries: Sequence[UnitEntry],
    followed_types: Collection[str],
) -> dict[int, list[str]]:
    """Hold the turns of these entries, and of what their conditions find: Type/id by position.

    Raises Unavailable when a turn is not free, or a search is not answered: a look-up that failed
    is no leave to write.
    """
    if preflight.guarded:
        await write_guard.acquire(
            preflight.guard, locks, _list_writes(entries, preflight.identities)
        )
    conditional = [
        entry for entry in entries if _has_to_be_searched(entry, preflight.guarded, followed_types)
    ]
    matches = await _search_matches(preflight, conditional)
    if preflight.guarded and matches:
        await write_guard.acquire(
            preflight.guard, locks, _list_matched_writes(conditional, matches)
        )
    return matches


async def release_previous_locks(
    preflight: Preflight,
    locks: HeldLocks,
    entries: Sequence[UnitEntry],
    matches: Mapping[int, Sequence[str]],
    written: Mapping[int, bool],
) -> None:
    """Give back what an earlier try of these settled entries still holds: it ended in between.
    `written` by position, and Type/id of what conditions found."""
    if preflight.guarded and entries:
        conditional = [entry for entry in entries if entry.position in matches]
        writes = [
            *_list_writes(entries, preflight.identities),
            *_list_matched_writes(conditional, matches),
        ]
        await write_guard.release_previous(preflight.guard, locks, writes, written)


def _has_to_be_searched(entry: UnitEntry, guarded: bool, followed_types: Collection[str]) -> bool:
    """A conditional create leaves alone what it finds; the others change it."""
    if entry.condition is None or entry.method == "POST":
        return False
    type_ = entry.condition.partition("?")[0]
    return guarded or (entry.method == "DELETE" and type_ in followed_types)


def _list_writes(entries: Sequence[UnitEntry], identities: Mapping[str, str]) -> list[Write]:
    """One for each resource that senders can name."""
    writes: dict[str, Write] = {}
    for entry in entries:
        if entry.is_read or entry.created:
            continue
        name = _fill_condition(entry, identities) if entry.condition else entry.target
        _add_write(writes, name, entry, ordered=entry.method != "POST")
    return list(writes.values())


def _list_matched_writes(
    entries: Sequence[UnitEntry], matches: Mapping[int, Sequence[str]]
) -> list[Write]:
    writes: dict[str, Write] = {}
    for entry in entries:
        for name in matches[entry.position]:
            _add_write(writes, name, entry, ordered=True)
    return list(writes.values())


def _add_write(writes: dict[str, Write], name: str, entry: UnitEntry, *, ordered: bool) -> None:
    positions = writes[name].positions if name in writes else ()
    writes[name] = Write(name, (*positions, entry.position), entry.source_version, ordered)


def _fill_condition(entry: UnitEntry, identities: Mapping[str, str]) -> str:
    placeholders = [name for name in entry.awaits if name in identities]
    return units.fill_placeholders(
        (entry.condition or "").encode(), placeholders, identities
    ).decode()


async def _search_matches(
    preflight: Preflight, entries: Sequence[UnitEntry]
) -> dict[int, list[str]]:
    if not entries:
        return {}
    queries = [_fill_condition(entry, preflight.identities) for entry in entries]
    answers = await _look_up(preflight, [f"{query}&_elements=id&_count=100" for query in queries])
    matches: dict[int, list[str]] = {}
    for entry, query, answer in zip(entries, queries, answers, strict=False):
        names = previous_attempt.list_matches(query, answer)
        if names is None:
            raise _make_lookup_error(preflight)
        matches[entry.position] = names
    return matches


async def find_ambiguous(preflight: Preflight, entries: Sequence[UnitEntry]) -> list[UnitEntry]:
    """Entries with a conditional reference to one of the delivery's own resources, of which the
    server knows another match: https://hl7.org/fhir/R4/http.html#trules demands exactly one."""
    pairs = sorted({pair for entry in entries for pair in entry.sole})
    if not pairs:
        return []
    answers = await _look_up(preflight, [f"{query}&_elements=id&_count=2" for query, _ in pairs])
    ambiguous_pairs: set[tuple[str, str]] = set()
    for (query, target), answer in zip(pairs, answers, strict=False):
        names = previous_attempt.list_matches(query, answer)
        if names is None:
            raise _make_lookup_error(preflight)
        expected = target if "/" in target else preflight.identities.get(target)
        # The one match may be what a condition will find: only a second one is one too many.
        if len(names) > 1 or (expected and set(names) - {expected}):
            ambiguous_pairs.add((query, target))
    return [entry for entry in entries if ambiguous_pairs.intersection(entry.sole)]


async def find_already_applied(
    preflight: Preflight,
    unit: Unit,
    entries: Sequence[UnitEntry],
    locks: HeldLocks,
    matches: Mapping[int, Sequence[str]],
    previous_start: float | None,
    settled: Iterable[EntryResult],
) -> list[EntryResult]:
    """What need not or must not be sent, because an earlier try has done it. `began`: when an
    earlier try of the lane did, in seconds since 1970; `settled`: what it has come to so far."""
    versions = {
        name: version
        for item in settled
        for name, _, version in [(item.location or "").partition("/_history/")]
        if item.is_written and version
    }
    candidates: list[UnconfirmedEntry] = []
    for entry in entries:
        since = _find_unsettled_start(preflight, entry, locks, previous_start)
        name = get_target(entry, matches)
        if since is not None and name is not None:
            identities = {**preflight.identities, entry.target: name}  # it may refer to itself
            candidates.append(
                UnconfirmedEntry(
                    entry=entry,
                    name=name,
                    attempted_at=since,
                    resource=_build_resource(entry, identities),
                    delivery_version=versions.get(name),
                )
            )
    if not candidates:
        return []
    states = await _look_up(preflight, [candidate.name for candidate in candidates])
    results = previous_attempt.find_settled(
        candidates, states, atomic=unit.kind == "transaction", repeat=preflight.delivery.repeat
    )
    if results is None:
        raise _make_lookup_error(preflight)
    return list(results.values())


def _find_unsettled_start(
    preflight: Preflight, entry: UnitEntry, locks: HeldLocks, previous_start: float | None
) -> float | None:
    """When a try of this entry began whose end is not known; None: there was none."""
    if entry.is_read or (entry.condition and entry.method == "POST"):
        return None  # to be repeated as it is
    if entry.created and preflight.delivery.repeat:
        return previous_start or 0.0  # the same bytes, before, had the same ids
    if entry.created or not preflight.guarded:
        return previous_start
    return locks.attempted_at.get(entry.position)


def get_target(entry: UnitEntry, matches: Mapping[int, Sequence[str]]) -> str | None:
    """Type/id of what it writes, where that is known."""
    if entry.condition is None:
        return entry.target
    matched = matches.get(entry.position, ())
    return matched[0] if len(matched) == 1 else None


def _build_resource(entry: UnitEntry, identities: Mapping[str, str]) -> dict[str, Any] | None:
    if entry.method != "PUT":
        return None
    placeholders = [name for name in entry.awaits if name in identities]
    body = decimal_json.decode(units.fill_placeholders(bytes(entry.body), placeholders, identities))
    resource: dict[str, Any] = body["resource"]
    return resource


async def _look_up(preflight: Preflight, addresses: Sequence[str]) -> list[Any]:
    with add_activity_context(action="look-up"):
        response: Response = await preflight.fhir.send(
            units.build_reads(addresses), preflight.delivery.id
        )
    answers = entry_results.parse_response_entries(response)
    if answers is None or len(answers) < len(addresses):
        raise _make_lookup_error(preflight, response.retry_after)
    return answers


def _make_lookup_error(preflight: Preflight, retry_after: float | None = None) -> Unavailable:
    name = preflight.fhir.upstream.name
    return Unavailable(name, "a look-up was not answered", retry_after)
