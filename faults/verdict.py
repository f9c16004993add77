"""What became of each entry, judged by what the servers hold. Pure.

Nothing here believes the relay: what its answer says is held against the world.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from faults.deliveries import Asked, Sent, Thing

HARM = ("lost", "doubled", "stale", "unexplained")


@dataclass(frozen=True, slots=True)
class Answer:
    """A response bundle's word about one entry."""

    status: int
    said: str = ""  # its issues


@dataclass(frozen=True, slots=True)
class Told:
    """An accepted delivery; `answers` is None when it did not end, and `state` says how."""

    sent: Sent
    address: str
    answers: Sequence[Answer] | None
    state: str = "done"

    @property
    def name(self) -> str:
        """What it is, and its id: where the log and the journal tell of it."""
        return f"{self.sent.name} {self.address.rpartition('/')[2]}"


@dataclass(frozen=True, slots=True)
class Held:
    """What the FHIR server holds of a thing: the resources that exist, and all states of one,
    oldest first: (version, mark), the mark None for a deletion."""

    identities: tuple[str, ...]
    states: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """What Dataverse shows of a patient: how many contacts; of the one, the version, whether it
    is active, and all versions that it has shown."""

    number: int
    version: str | None = None
    active: bool = False
    shown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """Harm done; `where` is what would reproduce it."""

    harm: str
    where: str
    what: str


@dataclass(slots=True)
class Tally:
    """The sum of many judgements."""

    counts: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.counts.update(other.counts)
        self.findings += other.findings

    @property
    def harmless(self) -> bool:
        return not any(self.counts[harm] for harm in HARM)

    def __str__(self) -> str:
        names = ("injected", "entries", "written", "refused", *HARM)
        return "faults: " + " ".join(f"{name}={self.counts[name]}" for name in names)


@dataclass(frozen=True, slots=True)
class _Write:
    """One entry about a thing, in the order in which the sender wanted them."""

    asked: Asked
    told: Told
    became: str  # written, refused, superseded, or nothing that is known


def judged(
    tolds: Sequence[Told], held: Mapping[Thing, Held], rows: Mapping[str, Row], where: str
) -> Tally:
    """The deliveries of some streams, in the order of their acceptance within each stream."""
    tally = Tally()
    writes: dict[Thing, list[_Write]] = defaultdict(list)
    for told in tolds:
        _judge_answers(tally, told, where, writes)
    for thing, each in writes.items():
        each.sort(key=lambda write: write.asked.turn)
        for harm, what in _of_thing(thing, each, held.get(thing, Held(()))):
            names = " > ".join(dict.fromkeys(write.told.name for write in each))
            _find(tally, harm, f"{where}: {names}", f"{thing.type} {thing.name}: {what}")
        for harm, what in _of_row(thing, held.get(thing, Held(())), rows):
            _find(tally, harm, where, f"{thing.type} {thing.name}: {what}")
    return tally


def _find(tally: Tally, harm: str, where: str, what: str) -> None:
    tally.counts[harm] += 1
    tally.findings.append(Finding(harm, where, what))


def _judge_answers(tally: Tally, told: Told, where: str, writes: dict[Thing, list[_Write]]) -> None:
    asked, answers = told.sent.asked, told.answers
    place = f"{where}: {told.name}"
    tally.counts["entries"] += len(asked)
    if answers is None:
        tally.counts["unexplained"] += len(asked) - 1
        _find(tally, "unexplained", place, f"the delivery did not end: {told.state}")
    elif len(answers) != len(asked):
        what = f"{len(answers)} answers for {len(asked)} entries"
        _find(tally, "unexplained", place, what)
    for number, each in enumerate(asked):
        answer = answers[number] if answers is not None and number < len(answers) else None
        became = _became(answer)
        tally.counts[became] += 1
        writes[each.thing].append(_Write(each, told, became))
        if answer and became == "refused" and each.does != "fails":
            what = f"entry {number} was refused without cause: {answer.status} {answer.said}"
            _find(tally, "unexplained", place, what)
        if became == "written" and each.does == "fails":
            _find(tally, "unexplained", place, f"entry {number} is wrong and was written")


def _became(answer: Answer | None) -> str:
    if answer is None:
        return "unknown"
    if answer.status < 300:
        return "written"
    return "superseded" if "superseded" in answer.said else "refused"


def _of_thing(thing: Thing, writes: Sequence[_Write], held: Held) -> Iterable[tuple[str, str]]:
    """What the FHIR server's history of a thing says against its writes."""
    if len(held.identities) > 1:
        yield "doubled", f"{len(held.identities)} resources"
        return
    marks = [mark for _, mark in held.states]
    if all(write.asked.does == "ensures" for write in writes):
        if len(marks) > 1:
            yield "doubled", f"{len(marks)} versions of a conditional create"
        if not marks and any(write.became == "written" for write in writes):
            yield "lost", "said to be written, and not there"
        return
    # A key for each state; deletions of one thing are told apart by their place only.
    wanted = [None if w.asked.does == "deletes" else w.asked.mark for w in writes]
    for place, (write, mark) in enumerate(zip(writes, wanted, strict=True)):
        # A deletion of what is not there yet makes no version; what was sent before must stay out.
        there = mark in marks or (mark is None and not set(wanted[:place]) & set(marks))
        if write.became == "written" and not there:
            harm = "stale" if mark is None else "lost"
            yield harm, "said to be written, and in no version"
        if write.became == "refused" and mark is not None and there:
            yield "unexplained", "said to be refused, and written"
        if write.became == "superseded" and write is writes[-1]:
            yield "unexplained", "said to be superseded, and nothing came after it"
    known = [mark for mark in marks if mark is not None]
    if len(set(known)) < len(known):
        yield "stale", f"a state came back: {_told(marks, wanted)}"
    elif not _in_order(marks, wanted):
        yield "stale", f"an earlier state after a later one: {_told(marks, wanted)}"


def _in_order(marks: Sequence[str | None], wanted: Sequence[str | None]) -> bool:
    """Whether the states are the wanted ones, in their order, some perhaps left out, and the last
    that was wanted and is there at all is the last."""
    place = 0
    for mark in marks:
        while place < len(wanted) and wanted[place] != mark:
            place += 1
        if place == len(wanted):
            return False
        place += 1
    return True


def _told(marks: Sequence[str | None], wanted: Sequence[str | None]) -> str:
    """States by their place in the order that the sender wanted."""
    numbers = {mark: str(n) for n, mark in enumerate(wanted) if mark is not None}
    return ", ".join("deleted" if m is None else numbers.get(m, "?") for m in marks)


def _of_row(thing: Thing, held: Held, rows: Mapping[str, Row]) -> Iterable[tuple[str, str]]:
    """What Dataverse shows against what the FHIR server holds."""
    if thing.type != "Patient" or not held.identities or not held.states:
        return
    row = rows.get(held.identities[0], Row(0))
    version, mark = held.states[-1]
    if mark is None:
        if row.number and row.active:
            yield "stale", "the contact of a deleted patient is active"
    elif row.number == 0:
        yield "lost", "a patient without a contact"
    elif row.number > 1:
        yield "doubled", f"{row.number} contacts"
    elif row.version != version or not row.active:
        yield "stale", f"the contact shows version {row.version} of {version}"
    shown = [int(each) for each in row.shown]
    if shown != sorted(shown):
        yield "stale", f"the contact went back: {shown}"
