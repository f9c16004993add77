"""Compare the list of what needs attention with what is not where it should be. Pure.

An entry that the FHIR server does not hold, and that no later write stands in place of, must be on
the list, and so must a row that does not show its resource. Nothing else may be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

from faults.deliveries import EntryIntent, TrackedResource
from faults.verdict import AcceptedDelivery, StoredResource

_MAX_POSITIONS = 20  # of refused entries that a line of the list names
_ENTRIES = "entries"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownConcern:
    """A line of the list, as it is answered."""

    kind: str
    delivery: str
    positions: tuple[int, ...] = ()
    number: int = 0
    resource: str | None = None  # Type/id of a row

    @property
    def is_row(self) -> bool:
        return self.kind.startswith("row-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What must be on the list: positions of entries by delivery, and resources whose rows are
    wrong. `either`: resources whose rows staff have taken, which may be on it or not. `repeats`:
    what is missing of deliveries whose first request had no answer: there may be one more of each.
    """

    entries: Mapping[str, frozenset[int]] = field(default_factory=dict)
    rows: frozenset[str] = frozenset()
    either: frozenset[str] = frozenset()
    repeats: Sequence[frozenset[int]] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """So many entries or rows that the list lacks (`unseen`) or has too many (`false_alarms`)."""

    harm: str
    number: int
    what: str


def find_missing(
    accepted: Iterable[AcceptedDelivery], held: Mapping[TrackedResource, StoredResource]
) -> dict[str, frozenset[int]]:
    """Return the positions of the entries that the FHIR server does not hold and that nothing later
    stands in place of, by delivery. Those of one stream must be in the order of their acceptance.
    """
    writes: dict[TrackedResource, list[tuple[EntryIntent, str, int]]] = defaultdict(list)
    missing: dict[str, set[int]] = {}
    for item in accepted:
        missing[item.id] = set()
        for position, intent in enumerate(item.sent.intents):
            writes[intent.tracked].append((intent, item.id, position))
    for tracked, of_resource in writes.items():
        of_resource.sort(key=lambda write: write[0].sequence)
        stored = held.get(tracked, StoredResource(()))
        intents = [intent for intent, _, _ in of_resource]
        for place, (intent, delivery, position) in enumerate(of_resource):
            if not _is_reached(intent, intents[place + 1 :], stored):
                missing[delivery].add(position)
    return {delivery: frozenset(positions) for delivery, positions in missing.items()}


def _is_reached(intent: EntryIntent, later: Sequence[EntryIntent], stored: StoredResource) -> bool:
    """Whether the FHIR server holds, or held, what an entry sets, or something later."""
    markers = {marker for _, marker in stored.states}
    is_gone = not stored.states or stored.states[-1][1] is None
    if intent.action == "ensures":
        return bool(markers - {None})
    written = [write.marker for write in (intent, *later) if write.action != "deletes"]
    if markers.intersection(written):
        return True
    return is_gone and any(write.action == "deletes" for write in (intent, *later))


def compare(
    due: Due, shown: Iterable[ShownConcern], refused: Mapping[str, Set[int]]
) -> list[Difference]:
    """Compare what must be on the list with what is on it. `refused`: the positions that the answer
    of a delivery says were refused, for those that are done and have a line, of whatever kind."""
    by_delivery: dict[str, list[ShownConcern]] = defaultdict(list)
    rows: list[str] = []
    repeats = list(due.repeats)
    for concern in shown:
        if concern.delivery not in due.entries and concern.kind == _ENTRIES:
            listed = _list_positions(concern, refused.get(concern.delivery))
            if listed in repeats:
                repeats.remove(listed)
                continue
        if concern.is_row:
            rows.append(concern.resource or "")
        else:
            by_delivery[concern.delivery].append(concern)
    found = [
        difference
        for delivery in sorted({*due.entries, *by_delivery})
        for difference in _compare_delivery(
            delivery,
            due.entries.get(delivery, frozenset()),
            by_delivery[delivery],
            refused.get(delivery),
        )
    ]
    return [*found, *_compare_rows(due, rows)]


def _compare_delivery(
    delivery: str,
    due: frozenset[int],
    lines: Sequence[ShownConcern],
    refused: Set[int] | None,
) -> Iterator[Difference]:
    if not lines:
        if due:
            yield Difference("unseen", len(due), f"entries {_name(due)} of {delivery}: no line")
        return
    if len(lines) > 1:
        kinds = ", ".join(line.kind for line in lines)
        yield Difference("false_alarms", len(lines) - 1, f"{delivery} has several lines: {kinds}")
    line = lines[0]
    if line.kind != _ENTRIES:  # of all that it has not written
        if refused is not None and due:
            yield Difference("unseen", len(due), f"{delivery} is done, and its line {line.kind}")
        if not due:
            yield Difference(
                "false_alarms", 1, f"{delivery} is {line.kind}, and all of it is there"
            )
        return
    listed = _list_positions(line, refused)
    if unseen := due - listed:
        what = f"entries {_name(unseen)} of {delivery}: not in its line"
        yield Difference("unseen", len(unseen), what)
    if false := listed - due:
        what = f"entries {_name(false)} of {delivery}: in its line"
        yield Difference("false_alarms", len(false), what)


def _list_positions(line: ShownConcern, refused: Set[int] | None) -> frozenset[int]:
    """Return the positions that a line stands for: those of the answer, if the line fits it."""
    named = frozenset(line.positions)
    if refused is None or line.number != len(refused):
        return named
    is_fitting = list(line.positions) == sorted(refused)[:_MAX_POSITIONS]
    return frozenset(refused) if is_fitting else named


def _compare_rows(due: Due, lines: Sequence[str]) -> Iterator[Difference]:
    for resource in sorted(due.rows - {*lines} - due.either):
        yield Difference("unseen", 1, f"the row of {resource}: no line")
    for resource in sorted({*lines} - due.rows - due.either):
        yield Difference("false_alarms", 1, f"the row of {resource} has a line")
    if len(lines) > len({*lines}):
        number = len(lines) - len({*lines})
        yield Difference("false_alarms", number, "a row has several lines")


def _name(positions: Iterable[int]) -> str:
    """Name some positions."""
    ordered = sorted(positions)
    more = f" and {len(ordered) - 5} more" if len(ordered) > 5 else ""
    return ", ".join(map(str, ordered[:5])) + more
