"""What is asked before a unit is sent: conditions, the states of its resources, their histories."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from integration.core.activity_recorder import add_activity_context
from integration.core.errors import Unavailable
from integration.core.model import EntryResult
from integration.fhir import entry_results, state_reads, units, write_decisions
from integration.fhir.client import FhirServer
from integration.fhir.json_objects import get_object
from integration.fhir.resource_states import ResourceState, ResourceVersion
from integration.fhir.units import Unit, UnitEntry
from integration.fhir.write_decisions import Attempt, Candidate, Step
from integration.journal import write_guard
from integration.journal.store import Journal
from integration.journal.write_guard import HeldLocks, Write, WriteGuard
from integration.relay import repeats

UNGUARDED = "off"  # a WRITE_ORDER by which no write is later than another

_WRITTEN = (Step.DONE, Step.DONE_AND_CHANGED, Step.OVERTAKEN)

# The states of what a condition matches, by Type/id.
Matches = Mapping[str, ResourceState]


@dataclass(slots=True, kw_only=True)
class Findings:
    """What is known about the entries of a unit. `candidates`: by position, of those that are to be
    sent. `overtaken`: those whose earlier attempt has replaced the state of a later delivery.
    `unlocked`: those whose names must be locked before anything else can be said. `unseen`: those
    whose resource was made just now, and is not shown yet. `has_other_worker`: the resources show
    writes of this delivery that this worker knows nothing of."""

    settled: list[EntryResult] = field(default_factory=list)
    candidates: dict[int, Candidate] = field(default_factory=dict)
    overtaken: list[Candidate] = field(default_factory=list)
    unlocked: list[Candidate] = field(default_factory=list)
    unseen: list[Candidate] = field(default_factory=list)
    has_other_worker: bool = False
    matches: dict[int, Matches] = field(default_factory=dict)

    def get_only_match(self, position: int) -> str | None:
        """Return the Type/id that a condition matches; None for none, or several."""
        names = list(self.matches.get(position, ()))
        return names[0] if len(names) == 1 else None

    def map_targets(self, entries: Sequence[UnitEntry]) -> dict[str, str]:
        """Return the Type/id that conditions match alone, by the placeholder of the entry."""
        names = {entry.target: self.get_only_match(entry.position) for entry in entries}
        return {target: name for target, name in names.items() if name is not None}

    def list_matched(self) -> dict[int, list[str]]:
        """Return the Type/id that conditions match, by position."""
        return {position: list(states) for position, states in self.matches.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """The questions before one attempt of a unit. `identities`: `Type/id` by placeholder. `bases`:
    see `write_decisions`, by position. `settled`: the positions whose results this worker knows.
    `waits_for_others`: for another worker with the same delivery, which may be ahead."""

    fhir: FhirServer
    journal: Journal
    guard: WriteGuard
    attempt: Attempt
    identities: Mapping[str, str]
    locks: HeldLocks
    bases: Mapping[int, str]
    settled: Collection[int] = ()
    waits_for_others: bool = True

    async def lock_conditions(self, entries: Sequence[UnitEntry]) -> None:
        """Lock the conditions of conditional entries: two that race must not both find nothing.

        Raises Unavailable when a lock is not free.
        """
        conditions = self._list_conditions(entries) if self.attempt.is_ordered else []
        if conditions:
            await write_guard.claim(self.guard, self.locks, conditions)
            ordered = [write for write in conditions if write.ordered]
            await write_guard.acquire(self.guard, self.locks, ordered)

    async def lock_names(self, candidates: Sequence[Candidate]) -> None:
        """Lock the names of resources that are written on no condition.

        Raises Unavailable when a lock is not free.
        """
        await write_guard.claim(self.guard, self.locks, list(map(_build_write, candidates)))
        firsts = [candidate for candidate in candidates if candidate.is_first_write]
        others = [candidate for candidate in candidates if not candidate.is_first_write]
        await write_guard.acquire(
            self.guard,
            self.locks,
            list(map(_build_write, others)),
            are_deletes=any(candidate.entry.method == "DELETE" for candidate in others),
        )
        if firsts:
            await write_guard.heed_deletes(self.guard, self.locks, list(map(_build_write, firsts)))

    async def announce_deletes(self, entries: Sequence[UnitEntry], found: Findings) -> bool:
        """Announce the deletes among these entries. Return whether all are as they were found.

        Who looks at such a resource from now on waits for the lock of its name.
        """
        positions = [
            entry.position
            for entry in entries
            if entry.method == "DELETE"
            and self.attempt.is_ordered
            and (candidate := found.candidates.get(entry.position)) is not None
            and candidate.state is not None
        ]
        states = {
            found.candidates[n].name: state
            for n in positions
            if (state := found.candidates[n].state) is not None
        }
        if not states:
            return True
        with add_activity_context(action="announce deletes"):
            request = units.build_announcements(states, self.attempt.delivery)
            response = await self.fhir.send(request, self.attempt.delivery)
        answers = entry_results.parse_response_entries(response)
        if answers is None or len(answers) < len(states):
            raise self._make_lookup_error(response.retry_after)
        versions = dict(zip(states, answers, strict=False))
        for n in positions:
            candidate = found.candidates[n]
            status = entry_results.get_status(versions[candidate.name])
            if status in (404, 409, 410, 412):
                return False
            etag = get_object(versions[candidate.name], "response").get("etag")
            version = entry_results.get_version(etag)
            if status == 200 and version and candidate.state is not None:
                state = replace(candidate.state, version=version)
                found.candidates[n] = replace(candidate, state=state)
        return True

    async def release_previous_locks(
        self, entries: Sequence[UnitEntry], written: Mapping[int, bool]
    ) -> None:
        """Release what an earlier attempt still holds for these settled entries.

        `written`: whether an entry was written, by position.
        """
        if not self.attempt.is_ordered:
            return
        writes = [write for write in self._list_conditions(entries) if write.ordered] + [
            Write(entry.target, (entry.position,), entry.source_version)
            for entry in entries
            if entry.condition is None and entry.method == "DELETE"
        ]
        if writes:
            await write_guard.release_previous(self.guard, self.locks, writes, written)

    async def look(
        self, unit: Unit, entries: Sequence[UnitEntry], followed_types: Collection[str]
    ) -> Findings:
        """Find out what becomes of these entries.

        Raises Unavailable if the server does not answer: without its answer nothing may be written.
        """
        found = Findings()
        conditional = [entry for entry in entries if self._is_searched(entry, followed_types)]
        queries = [self._fill_condition(entry) for entry in conditional]
        named = [entry for entry in entries if self._is_looked_at(entry)]
        states = await self._find_states(queries, [entry.target for entry in named])
        for entry, query in zip(conditional, queries, strict=True):
            found.matches[entry.position] = states.by_query[query]
        candidates = [
            self._make_candidate(entry, entry.target, states.by_name.get(entry.target))
            for entry in named
        ]
        for entry in conditional:
            candidates += [
                self._make_candidate(entry, name, state)
                for name, state in found.matches[entry.position].items()
            ]
        # What is sent without a look is checked afterwards all the same.
        candidates += [
            self._make_candidate(entry, entry.target, None)
            for entry in entries
            if entry.created and entry not in named
        ]
        if self.attempt.is_ordered:
            found.unlocked = [
                candidate
                for candidate in candidates
                if candidate.needs_lock
                and not write_guard.is_held(self.locks, candidate.name)
                and candidate.entry.position not in self.locks.superseded
            ]
        found.unseen = [
            candidate
            for candidate in candidates
            if candidate.state is None
            and not candidate.entry.created
            and write_guard.was_written_just_now(self.guard, self.locks, candidate.name)
        ]
        if found.unlocked or found.unseen:
            return found
        found.has_other_worker = (
            self.waits_for_others
            and self.attempt.is_ordered
            and any(map(self._is_of_other_worker, candidates))
        )
        if found.has_other_worker:
            return found
        steps = await self._decide_all(candidates)
        if unit.kind == "transaction":
            steps = _complete_transaction(candidates, steps)
        identities = {**self.identities, **found.map_targets(entries)}
        steps = await self._leave_repeats_out(candidates, steps, identities)
        for candidate, step in zip(candidates, steps, strict=True):
            _record_step(found, candidate, step)
        settled = {result.position for result in found.settled}
        for position in settled:
            found.candidates.pop(position, None)
        return found

    async def find_ambiguous(self, entries: Sequence[UnitEntry]) -> list[UnitEntry]:
        """Return the entries with a conditional reference that has a second match on the server.

        The first match is a resource of the delivery itself. FHIR demands exactly one:
        https://hl7.org/fhir/R4/http.html#trules
        """
        pairs = sorted({pair for entry in entries for pair in entry.sole})
        if not pairs:
            return []
        responses = await self.read([f"{query}&_elements=id&_count=2" for query, _ in pairs])
        ambiguous: set[tuple[str, str]] = set()
        for (query, target), response in zip(pairs, responses, strict=False):
            names = state_reads.read_states(query, response)
            if names is None:
                raise self._make_lookup_error()
            expected = target if "/" in target else self.identities.get(target)
            # The single match may be the one that a condition of the unit will match.
            if len(names) > 1 or (expected and set(names) - {expected}):
                ambiguous.add((query, target))
        return [entry for entry in entries if ambiguous.intersection(entry.sole)]

    async def read_histories(
        self, names: Sequence[str], newest: int = state_reads.MAX_VERSIONS
    ) -> list[list[ResourceVersion]]:
        """Return the versions of each of these resources, newest first. Raises Unavailable."""
        addresses = [state_reads.build_history_read(name, newest) for name in names]
        histories = [state_reads.read_history(response) for response in await self.read(addresses)]
        if None in histories:
            raise self._make_lookup_error()
        return [versions for versions in histories if versions is not None]

    async def read(self, addresses: Sequence[str]) -> list[Any]:
        """Read these addresses in one batch. Return the entries of the response."""
        if not addresses:
            return []
        with add_activity_context(action="look-up"):
            response = await self.fhir.send(units.build_reads(addresses), self.attempt.delivery)
        entries = entry_results.parse_response_entries(response)
        if entries is None or len(entries) < len(addresses):
            raise self._make_lookup_error(response.retry_after)
        return entries

    async def _decide_all(self, candidates: Sequence[Candidate]) -> list[Step]:
        steps = [write_decisions.decide(self.attempt, candidate) for candidate in candidates]
        asked = [n for n, step in enumerate(steps) if step is Step.ASK_HISTORY]
        histories = await self.read_histories([candidates[n].name for n in asked])
        for n, versions in zip(asked, histories, strict=True):
            steps[n] = write_decisions.decide_by_history(self.attempt, candidates[n], versions)
        return steps

    async def _leave_repeats_out(
        self,
        candidates: Sequence[Candidate],
        steps: Sequence[Step],
        identities: Mapping[str, str],
    ) -> list[Step]:
        """Settle the entries that would write what is there already: see `repeats`."""
        same = [
            n
            for n, (candidate, step) in enumerate(zip(candidates, steps, strict=True))
            if step is Step.SEND
            and self.attempt.is_ordered
            and repeats.is_same_content(candidate, identities)
        ]
        if not same:
            return list(steps)
        histories = await self.read_histories([candidates[n].name for n in same], newest=2)
        writers = {
            n: mark.delivery
            for n, versions in zip(same, histories, strict=True)
            if repeats.is_unchanged(candidates[n], versions)
            and (state := candidates[n].state) is not None
            and (mark := state.mark) is not None
        }
        if not writers:
            return list(steps)
        delivery = self.attempt.delivery
        between = await repeats.list_open_between(self.journal, min(writers.values()), delivery)
        newest = max(between, default="")
        return [
            Step.DONE if n in writers and writers[n] >= newest else step
            for n, step in enumerate(steps)
        ]

    async def _find_states(self, queries: Sequence[str], names: Sequence[str]) -> _States:
        """Search for what the queries match, and for the resources with these names."""
        distinct = sorted(set(queries))
        searches = state_reads.build_state_searches(names)
        responses = await self.read(
            [*(state_reads.build_state_search(query) for query in distinct), *searches]
        )
        states = _States()
        for query, response in zip([*distinct, *searches], responses, strict=False):
            matched = state_reads.read_states(query, response)
            if matched is None:
                raise self._make_lookup_error()
            if query in distinct:
                states.by_query[query] = matched
            else:
                states.by_name.update(matched)
        return states

    def _is_of_other_worker(self, candidate: Candidate) -> bool:
        """Whether the resource shows a write of this delivery that this worker knows nothing of.

        A work item was delivered twice, and the other worker is ahead. What it has recorded by the
        next attempt tells whether this entry was written, too.
        """
        mark = candidate.state.mark if candidate.state else None
        return (
            mark is not None
            and candidate.base is None
            and mark.delivery == self.attempt.delivery
            and mark.position not in self.settled
        )

    def _make_candidate(
        self, entry: UnitEntry, name: str, state: ResourceState | None
    ) -> Candidate:
        return Candidate(
            entry=entry,
            name=name,
            state=state,
            base=self.bases.get(entry.position),
        )

    def _is_searched(self, entry: UnitEntry, followed_types: Collection[str]) -> bool:
        """Whether to search what a condition matches. A conditional create changes no match."""
        if entry.condition is None or entry.method == "POST":
            return False
        type_ = entry.condition.partition("?")[0]
        return self.attempt.is_ordered or (entry.method == "DELETE" and type_ in followed_types)

    def _is_looked_at(self, entry: UnitEntry) -> bool:
        """Whether to look at the resource that an entry names."""
        if entry.is_read or entry.condition is not None:
            return False
        if entry.created:
            return self.attempt.is_retry or self.attempt.is_repeat
        return self.attempt.is_ordered or self.attempt.is_retry

    def _list_conditions(self, entries: Sequence[UnitEntry]) -> list[Write]:
        writes: dict[str, Write] = {}
        for entry in entries:
            if entry.condition is not None and not entry.is_read:
                name = self._fill_condition(entry)
                positions = writes[name].positions if name in writes else ()
                writes[name] = Write(
                    name,
                    (*positions, entry.position),
                    entry.source_version,
                    ordered=entry.method != "POST",
                )
        return list(writes.values())

    def _fill_condition(self, entry: UnitEntry) -> str:
        placeholders = [name for name in entry.awaits if name in self.identities]
        condition = (entry.condition or "").encode()
        return units.fill_placeholders(condition, placeholders, self.identities).decode()

    def _make_lookup_error(self, retry_after: float | None = None) -> Unavailable:
        name = self.fhir.upstream.name
        return Unavailable(name, "a look-up was not answered", retry_after)


@dataclass(frozen=True, slots=True)
class _States:
    by_query: dict[str, Matches] = field(default_factory=dict)
    by_name: dict[str, ResourceState] = field(default_factory=dict)


def _build_write(candidate: Candidate) -> Write:
    entry = candidate.entry
    is_first = candidate.is_first_write
    return Write(candidate.name, (entry.position,), entry.source_version, is_first=is_first)


def _complete_transaction(candidates: Sequence[Candidate], steps: Sequence[Step]) -> list[Step]:
    """Where one entry of a transaction was written, all were: a delete leaves no mark."""
    if not any(step in _WRITTEN for step in steps):
        return list(steps)
    return [
        Step.DONE if candidate.entry.method == "DELETE" and step is Step.SEND else step
        for candidate, step in zip(candidates, steps, strict=True)
    ]


def _record_step(found: Findings, candidate: Candidate, step: Step) -> None:
    position = candidate.entry.position
    if step is Step.SEND:
        # A condition with several matches: only the server can say what it does to them.
        if len(found.matches.get(position, (None,))) == 1:
            found.candidates[position] = candidate
        return
    if step is Step.OVERTAKEN:
        found.overtaken.append(candidate)
    if all(result.position != position for result in found.settled):
        found.settled.append(write_decisions.build_result(candidate, step))
