"""What is asked before a unit is sent: locks, conditions, and what an earlier attempt has done."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from integration.core import decimal_json
from integration.core.activity import add_activity_context
from integration.core.errors import Unavailable
from integration.core.model import Delivery, EntryResult
from integration.fhir import entry_results, previous_attempt, units
from integration.fhir.client import FhirServer
from integration.fhir.previous_attempt import UnconfirmedEntry
from integration.fhir.units import Unit, UnitEntry
from integration.journal import write_guard
from integration.journal.write_guard import HeldLocks, Write, WriteGuard

UNGUARDED = "off"  # a WRITE_ORDER by which no write is later than another


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """The questions before one attempt of a unit. `identities`: `Type/id` by placeholder."""

    fhir: FhirServer
    guard: WriteGuard
    delivery: Delivery
    identities: Mapping[str, str]
    locks: HeldLocks

    @property
    def is_guarded(self) -> bool:
        """Whether the write guard orders the writes of this delivery."""
        return self.delivery.write_order != UNGUARDED

    async def acquire_locks(
        self, entries: Sequence[UnitEntry], followed_types: Collection[str]
    ) -> dict[int, list[str]]:
        """Acquire write locks for the entries and for the resources that their conditions match.

        Return the matched `Type/id` by entry position. Raises Unavailable when a lock is not free
        or a search is not answered: without its answer nothing may be written.
        """
        if self.is_guarded:
            await write_guard.acquire(self.guard, self.locks, self._list_writes(entries))
        conditional = [entry for entry in entries if self._is_searched(entry, followed_types)]
        matches = await self._search_matches(conditional)
        if self.is_guarded and matches:
            writes = _list_matched_writes(conditional, matches)
            await write_guard.acquire(self.guard, self.locks, writes)
        return matches

    async def release_previous_locks(
        self,
        entries: Sequence[UnitEntry],
        matches: Mapping[int, Sequence[str]],
        written: Mapping[int, bool],
    ) -> None:
        """Release what an earlier attempt still holds for these settled entries.

        `matches`: the `Type/id` that conditions matched, by position. `written`: whether an entry
        was written, by position.
        """
        if self.is_guarded and entries:
            conditional = [entry for entry in entries if entry.position in matches]
            writes = [*self._list_writes(entries), *_list_matched_writes(conditional, matches)]
            await write_guard.release_previous(self.guard, self.locks, writes, written)

    async def find_ambiguous(self, entries: Sequence[UnitEntry]) -> list[UnitEntry]:
        """Return the entries with a conditional reference that has a second match on the server.

        The first match is a resource of the delivery itself. FHIR demands exactly one:
        https://hl7.org/fhir/R4/http.html#trules
        """
        pairs = sorted({pair for entry in entries for pair in entry.sole})
        if not pairs:
            return []
        responses = await self._look_up([f"{query}&_elements=id&_count=2" for query, _ in pairs])
        ambiguous: set[tuple[str, str]] = set()
        for (query, target), response in zip(pairs, responses, strict=False):
            names = previous_attempt.list_matches(query, response)
            if names is None:
                raise self._make_lookup_error()
            expected = target if "/" in target else self.identities.get(target)
            # The single match may be the one that a condition of the unit will match.
            if len(names) > 1 or (expected and set(names) - {expected}):
                ambiguous.add((query, target))
        return [entry for entry in entries if ambiguous.intersection(entry.sole)]

    async def find_already_applied(
        self,
        unit: Unit,
        entries: Sequence[UnitEntry],
        matches: Mapping[int, Sequence[str]],
        *,
        previous_start: float | None,
        settled: Iterable[EntryResult],
    ) -> list[EntryResult]:
        """Return results for the entries that an earlier attempt has written.

        They need not, and some must not, be sent again. `previous_start`: when an earlier run of
        the lane began, in seconds since 1970. `settled`: the results of the lane so far.
        """
        versions = {
            name: version
            for result in settled
            for name, _, version in [(result.location or "").partition("/_history/")]
            if result.is_written and version
        }
        unconfirmed: list[UnconfirmedEntry] = []
        for entry in entries:
            start = self._find_previous_start(entry, previous_start)
            name = get_target(entry, matches)
            if start is not None and name is not None:
                resource = _build_resource(entry, {**self.identities, entry.target: name})
                unconfirmed.append(
                    UnconfirmedEntry(
                        entry=entry,
                        name=name,
                        attempted_at=start,
                        resource=resource,
                        delivery_version=versions.get(name),
                    )
                )
        if not unconfirmed:
            return []
        states = await self._look_up([candidate.name for candidate in unconfirmed])
        results = previous_attempt.find_settled(
            unconfirmed, states, atomic=unit.kind == "transaction", repeat=self.delivery.repeat
        )
        if results is None:
            raise self._make_lookup_error()
        return list(results.values())

    def _is_searched(self, entry: UnitEntry, followed_types: Collection[str]) -> bool:
        """Whether to search what a condition matches. A conditional create changes no match."""
        if entry.condition is None or entry.method == "POST":
            return False
        type_ = entry.condition.partition("?")[0]
        return self.is_guarded or (entry.method == "DELETE" and type_ in followed_types)

    def _list_writes(self, entries: Sequence[UnitEntry]) -> list[Write]:
        """One write for each resource that a sender can name."""
        writes: dict[str, Write] = {}
        for entry in entries:
            if entry.is_read or entry.created:
                continue
            name = _fill_condition(entry, self.identities) if entry.condition else entry.target
            _add_write(writes, name, entry, ordered=entry.method != "POST")
        return list(writes.values())

    async def _search_matches(self, entries: Sequence[UnitEntry]) -> dict[int, list[str]]:
        if not entries:
            return {}
        queries = [_fill_condition(entry, self.identities) for entry in entries]
        searches = [f"{query}&_elements=id&_count=100" for query in queries]
        responses = await self._look_up(searches)
        matches: dict[int, list[str]] = {}
        for entry, query, response in zip(entries, queries, responses, strict=False):
            names = previous_attempt.list_matches(query, response)
            if names is None:
                raise self._make_lookup_error()
            matches[entry.position] = names
        return matches

    def _find_previous_start(self, entry: UnitEntry, previous_start: float | None) -> float | None:
        """Return when an unfinished attempt at this entry began. None: there is none."""
        if entry.is_read or (entry.condition and entry.method == "POST"):
            return None  # harmless to repeat as it is
        if entry.created and self.delivery.repeat:
            return previous_start or 0.0  # an earlier delivery of the same bytes has the same ids
        if entry.created or not self.is_guarded:
            return previous_start
        return self.locks.attempted_at.get(entry.position)

    async def _look_up(self, addresses: Sequence[str]) -> list[Any]:
        """Read these addresses in one batch. Return the entries of the response."""
        with add_activity_context(action="look-up"):
            response = await self.fhir.send(units.build_reads(addresses), self.delivery.id)
        entries = entry_results.parse_response_entries(response)
        if entries is None or len(entries) < len(addresses):
            raise self._make_lookup_error(response.retry_after)
        return entries

    def _make_lookup_error(self, retry_after: float | None = None) -> Unavailable:
        name = self.fhir.upstream.name
        return Unavailable(name, "a look-up was not answered", retry_after)


def get_target(entry: UnitEntry, matches: Mapping[int, Sequence[str]]) -> str | None:
    """Return the `Type/id` that an entry writes. None: not known, or more than one."""
    if entry.condition is None:
        return entry.target
    names = matches.get(entry.position, ())
    return names[0] if len(names) == 1 else None


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
    condition = (entry.condition or "").encode()
    return _fill_placeholders(condition, entry, identities).decode()


def _build_resource(entry: UnitEntry, identities: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the resource that an update sends. Its references may lead to itself."""
    if entry.method != "PUT":
        return None
    body = decimal_json.decode(_fill_placeholders(bytes(entry.body), entry, identities))
    resource: dict[str, Any] = body["resource"]
    return resource


def _fill_placeholders(text: bytes, entry: UnitEntry, identities: Mapping[str, str]) -> bytes:
    placeholders = [name for name in entry.awaits if name in identities]
    return units.fill_placeholders(text, placeholders, identities)
