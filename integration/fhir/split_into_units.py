"""Pack prepared entries into units within the server's limits, in an order that works. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from itertools import groupby

from integration.fhir import graph
from integration.fhir.prepare import PreparedEntry
from integration.fhir.units import ENVELOPE, Limits, Unit

# https://hl7.org/fhir/R4/http.html#trules
_ORDER = {"DELETE": 0, "POST": 1, "PUT": 2, "PATCH": 3, "GET": 4, "HEAD": 5}


def find_edges(items: Mapping[int, PreparedEntry]) -> dict[int, tuple[int, ...]]:
    """Return the entries that each must come after, among these."""
    return {
        position: tuple(n for n in item.after if n in items) for position, item in items.items()
    }


def fits(items: Sequence[PreparedEntry], limits: Limits) -> bool:
    """Whether one unit can hold them."""
    return len(items) <= limits.entries and _measure(items) <= limits.bytes


def can_be_atomic(items: Sequence[PreparedEntry], limits: Limits) -> bool:
    """Whether one transaction can hold them: they fit, and none must be sent after another."""
    if not fits(items, limits):
        return False
    positions = {item.entry.position for item in items}
    return all(item.waits.isdisjoint(positions) for item in items)


def _measure(items: Iterable[PreparedEntry]) -> int:
    return ENVELOPE + sum(len(item.unit_entry.body) + 1 for item in items)


def pack_groups(
    groups: Iterable[list[PreparedEntry]], limits: Limits
) -> Iterator[list[PreparedEntry]]:
    """Join small groups, up to what one unit can hold. A group that is larger stays alone, and one
    that must be sent after another is not joined with it."""
    current: list[PreparedEntry] = []
    positions, size = set[int](), ENVELOPE
    for group in groups:
        group_size = _measure(group)
        is_full = len(current) + len(group) > limits.entries or size + group_size > limits.bytes
        if current and (is_full or _waits_for_any(group, positions)):
            yield current
            current, positions, size = [], set(), ENVELOPE
        current += group
        positions.update([item.entry.position for item in group])
        size += group_size
    if current:
        yield current


def _waits_for_any(group: Sequence[PreparedEntry], positions: Set[int]) -> bool:
    return any([item.waits and not item.waits.isdisjoint(positions) for item in group])


def pack_in_dependency_order(items: Sequence[PreparedEntry], limits: Limits) -> Iterator[Unit]:
    """Yield the units of a transaction that does not fit into one.

    Deletes come first, reads last, referenced entries before those that refer to them. Entries that
    refer to each other in a cycle stay together if a unit can hold them.
    """
    by_position = {item.entry.position: item for item in items}
    components = graph.find_strongly_connected_components(by_position, find_edges(by_position))
    ordered = [[by_position[n] for n in component] for component in components]
    ordered.sort(key=_get_phase)
    for group in pack_groups(_split_components(ordered, limits), limits):
        yield build_unit("transaction", group)


def _get_phase(component: Sequence[PreparedEntry]) -> int:
    methods = {item.unit_entry.method for item in component}
    if methods == {"DELETE"}:
        return 0
    return 2 if methods <= {"GET", "HEAD"} else 1


def _split_components(
    components: Iterable[list[PreparedEntry]], limits: Limits
) -> Iterator[list[PreparedEntry]]:
    for component in components:
        if len(component) == 1 or can_be_atomic(component, limits):
            yield component
        else:
            yield from group_by_waiting(component)


def pack_in_levels(items: Sequence[PreparedEntry], limits: Limits) -> Iterator[Unit]:
    """Yield the units of independent entries.

    An entry that needs the result of another, or writes its resource again, goes into a later unit.
    Otherwise referenced entries come before those that refer to them.
    """
    by_position = {item.entry.position: item for item in items}
    edges = find_edges(by_position)
    level: dict[int, int] = {}
    order = [
        item.entry.position
        for component in graph.find_strongly_connected_components(by_position, edges)
        for (item,) in group_by_waiting([by_position[n] for n in component])
    ]
    for position in order:
        must_wait = _find_must_wait(by_position[position])
        level[position] = max(
            (level.get(n, 0) + must_wait(by_position[n]) for n in edges[position]),
            default=0,
        )
    for _, positions in groupby(sorted(order, key=level.__getitem__), level.__getitem__):
        for group in pack_groups(([by_position[n]] for n in positions), limits):
            yield build_unit("batch", group)


def group_by_waiting(items: Sequence[PreparedEntry]) -> list[list[PreparedEntry]]:
    """Return groups of entries, each after those that it waits for. Only entries that wait for each
    other share a group."""
    if _can_share_units(items):
        return [[item] for item in items]
    by_position = {item.entry.position: item for item in items}
    edges = {}
    for position, targets in find_edges(by_position).items():
        must_wait = _find_must_wait(by_position[position])
        edges[position] = [n for n in targets if must_wait(by_position[n])]
    return [
        [by_position[n] for n in component]
        for component in graph.find_strongly_connected_components(by_position, edges)
    ]


def _can_share_units(items: Sequence[PreparedEntry]) -> bool:
    """Whether no entry waits for another. So it is in most deliveries."""
    if any(item.unit_entry.awaits or item.waits for item in items):
        return False
    return len({item.resource_key for item in items}) == len(items)


def is_cycle(component: Sequence[PreparedEntry]) -> bool:
    """Whether entries of a group wait for each other, or one for itself."""
    return len(component) > 1 or component[0].unit_entry.target in component[0].unit_entry.awaits


def _find_must_wait(item: PreparedEntry) -> Callable[[PreparedEntry], bool]:
    """Return the predicate that tells which entries must be in an earlier unit than this one."""
    # A set, since there may be as many as links: searching a tuple would be quadratic.
    awaits = frozenset(item.unit_entry.awaits)

    def must_wait(earlier: PreparedEntry) -> bool:
        same = item.resource_key == earlier.resource_key
        waits = earlier.entry.position in item.waits
        return same or waits or earlier.unit_entry.target in awaits

    return must_wait


def build_unit(kind: str, items: Sequence[PreparedEntry]) -> Unit:
    """Build one unit, its entries in FHIR's order of methods."""
    return Unit(kind, tuple(item.unit_entry for item in sorted(items, key=_get_method_rank)))


def _get_method_rank(item: PreparedEntry) -> int:
    return _ORDER[item.unit_entry.method]
