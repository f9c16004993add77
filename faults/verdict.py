"""Judge each entry by what the servers hold. Pure.

The relay's response is never trusted: it is compared with the servers' contents.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from faults.deliveries import Delivery, EntryIntent, TrackedResource

HARM = (
    *("lost", "doubled", "stale", "unexplained", "wrong_person"),
    *("unseen", "false_alarms"),
)


@dataclass(frozen=True, slots=True)
class EntryAnswer:
    """The response bundle's status for one entry, and its issues as text."""

    status: int
    issues: str = ""


@dataclass(frozen=True, slots=True)
class AcceptedDelivery:
    """An accepted delivery. `answers` is None if it never finished; `state` then says why."""

    sent: Delivery
    address: str
    answers: Sequence[EntryAnswer] | None
    state: str = "done"

    @property
    def id(self) -> str:
        return self.address.rpartition("/")[2]

    @property
    def name(self) -> str:
        """Kind and delivery id, as in the log and the journal."""
        return f"{self.sent.name} {self.id}"


@dataclass(frozen=True, slots=True)
class StoredResource:
    """A tracked resource in the FHIR server: the resources found, and the versions of the first,
    oldest first, as (version, marker). The marker of a deletion is None. `is_rewritten`: whether
    the server stores a value otherwise than it was sent."""

    identities: tuple[str, ...]
    states: tuple[tuple[str, str | None], ...] = ()
    is_rewritten: bool = False


@dataclass(frozen=True, slots=True)
class StoredContact:
    """A patient's contact in Dataverse: how many rows there are and, if it is one, its FHIR
    version, whether it is active, and all versions that it has had."""

    number: int
    version: str | None = None
    active: bool = False
    versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation. `where` says how to reproduce it."""

    harm: str
    where: str
    what: str


@dataclass(slots=True)
class Tally:
    """Counts and findings of many deliveries. `injected`: the faults by their kind."""

    counts: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.counts.update(other.counts)
        self.injected.update(other.injected)
        self.findings += other.findings

    @property
    def is_harmless(self) -> bool:
        return not any(self.counts[harm] for harm in HARM)

    def __str__(self) -> str:
        counts = {"injected": self.injected.total(), **self.counts}
        names = ("injected", "entries", "written", "refused", *HARM)
        return "faults: " + " ".join(f"{name}={counts.get(name, 0)}" for name in names)


@dataclass(frozen=True, slots=True)
class _Write:
    """One entry of a tracked resource."""

    intent: EntryIntent
    delivery: AcceptedDelivery
    outcome: str  # written, refused, superseded or unknown


def judge_deliveries(
    accepted: Sequence[AcceptedDelivery],
    held: Mapping[TrackedResource, StoredResource],
    rows: Mapping[str, StoredContact],
    where: str,
) -> Tally:
    """Judge deliveries. Those of one stream must be in the order of their acceptance."""
    tally = Tally()
    writes: dict[TrackedResource, list[_Write]] = defaultdict(list)
    for delivery in accepted:
        _judge_answers(tally, delivery, where, writes)
    for tracked, thing_writes in writes.items():
        thing_writes.sort(key=lambda write: write.intent.sequence)
        for harm, what in _find_resource_harm(
            tracked, thing_writes, held.get(tracked, StoredResource(()))
        ):
            names = " > ".join(dict.fromkeys(write.delivery.name for write in thing_writes))
            _record_finding(
                tally, harm, f"{where}: {names}", f"{tracked.type} {tracked.name}: {what}"
            )
        for harm, what in _find_contact_harm(tracked, held.get(tracked, StoredResource(())), rows):
            _record_finding(tally, harm, where, f"{tracked.type} {tracked.name}: {what}")
    return tally


def _record_finding(tally: Tally, harm: str, where: str, what: str) -> None:
    tally.counts[harm] += 1
    tally.findings.append(Finding(harm, where, what))


def _judge_answers(
    tally: Tally,
    accepted: AcceptedDelivery,
    where: str,
    writes: dict[TrackedResource, list[_Write]],
) -> None:
    intents, answers = accepted.sent.intents, accepted.answers
    place = f"{where}: {accepted.name}"
    tally.counts["entries"] += len(intents)
    if answers is None:
        tally.counts["unexplained"] += len(intents) - 1
        _record_finding(
            tally, "unexplained", place, f"the delivery did not finish: {accepted.state}"
        )
    elif len(answers) != len(intents):
        what = f"{len(answers)} answers for {len(intents)} entries"
        _record_finding(tally, "unexplained", place, what)
    for number, intent in enumerate(intents):
        answer = answers[number] if answers is not None and number < len(answers) else None
        outcome = _classify(answer)
        tally.counts[outcome] += 1
        writes[intent.tracked].append(_Write(intent, accepted, outcome))
        if answer and outcome == "refused" and intent.action != "fails":
            what = f"entry {number} was refused without cause: {answer.status} {answer.issues}"
            _record_finding(tally, "unexplained", place, what)
        elif answer and outcome == "refused" and not answer.issues:
            _record_finding(
                tally, "unexplained", place, f"entry {number} was refused, and no issue says why"
            )
        if outcome == "written" and intent.action == "fails":
            _record_finding(
                tally, "unexplained", place, f"entry {number} is invalid and was written"
            )


def _classify(answer: EntryAnswer | None) -> str:
    if answer is None:
        return "unknown"
    if answer.status < 300:
        return "written"
    return "superseded" if "superseded" in answer.issues else "refused"


def _find_resource_harm(
    tracked: TrackedResource, writes: Sequence[_Write], held: StoredResource
) -> Iterable[tuple[str, str]]:
    """Compare a resource's history with its writes. Yield (harm, description)."""
    if len(held.identities) > 1:
        yield "doubled", f"{len(held.identities)} resources"
        return
    markers = [marker for _, marker in held.states]
    if all(write.intent.action == "ensures" for write in writes):
        if len(markers) > 1:
            yield "doubled", f"{len(markers)} versions of a conditional create"
        if not markers and any(write.outcome == "written" for write in writes):
            yield "lost", "reported as written, but does not exist"
        return
    # The marker of each write; a deletion has none.
    expected = [None if w.intent.action == "deletes" else w.intent.marker for w in writes]
    for place, (write, marker) in enumerate(zip(writes, expected, strict=True)):
        # Deleting a missing resource makes no version, but earlier writes must not appear later.
        exists = marker in markers or (marker is None and not set(expected[:place]) & set(markers))
        if write.outcome == "written" and not exists:
            harm = "stale" if marker is None else "lost"
            yield harm, "reported as written, but in no version"
        if write.outcome == "refused" and marker is not None and exists:
            yield "unexplained", "reported as refused, but written"
        if write.outcome == "superseded" and write is writes[-1]:
            yield "unexplained", "reported as superseded, but no later write exists"
    present = [marker for marker in markers if marker is not None]
    if len(set(present)) < len(present):
        yield "stale", f"an earlier state returned: {_describe_states(markers, expected)}"
    elif not _is_in_order(markers, expected):
        yield "stale", f"an earlier state after a later one: {_describe_states(markers, expected)}"


def _is_in_order(markers: Sequence[str | None], expected: Sequence[str | None]) -> bool:
    """Whether the markers are a subsequence of the expected ones."""
    place = 0
    for marker in markers:
        while place < len(expected) and expected[place] != marker:
            place += 1
        if place == len(expected):
            return False
        place += 1
    return True


def _describe_states(markers: Sequence[str | None], expected: Sequence[str | None]) -> str:
    """Describe each state by its position in the order of the writes."""
    numbers = {marker: str(n) for n, marker in enumerate(expected) if marker is not None}
    return ", ".join("deleted" if m is None else numbers.get(m, "?") for m in markers)


def _find_contact_harm(
    tracked: TrackedResource, held: StoredResource, rows: Mapping[str, StoredContact]
) -> Iterable[tuple[str, str]]:
    """Compare a patient's contact with the patient. Yield (harm, description)."""
    if tracked.type != "Patient" or not held.identities or not held.states:
        return
    row = rows.get(held.identities[0], StoredContact(0))
    version, marker = held.states[-1]
    if marker is None:
        if row.number and row.active:
            yield "stale", "the contact of a deleted patient is active"
    elif row.number == 0:
        yield "lost", "a patient without a contact"
    elif row.number > 1:
        yield "doubled", f"{row.number} contacts"
    elif row.version != version or not row.active:
        yield "stale", f"the contact shows version {row.version} of {version}"
    numbers = [int(version) for version in row.versions]
    if numbers != sorted(numbers):
        yield "stale", f"the contact returned to an earlier version: {numbers}"
