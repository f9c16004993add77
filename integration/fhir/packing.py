"""Prepared entries in units within the server's limits, in an order that works. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from integration.fhir import graph
from integration.fhir.prepare import PreparedEntry
from integration.fhir.units import ENVELOPE, Limits, Unit

# https://hl7.org/fhir/R4/http.html#trules
_ORDER = {"DELETE": 0, "POST": 1, "PUT": 2, "PATCH": 3, "GET": 4, "HEAD": 5}


def find_edges(items: Mapping[int, PreparedEntry]) -> dict[int, tuple[int, ...]]:
    """What each refers to, among these."""
    return {
        position: tuple(n for n in item.after if n in items) for position, item in items.items()
    }


def fits(items: Sequence[PreparedEntry], limits: Limits) -> bool:
    """Whether one unit can hold them."""
    return len(items) <= limits.entries and _measure(items) <= limits.bytes


def _measure(items: Iterable[PreparedEntry]) -> int:
    return ENVELOPE + sum(len(item.unit_entry.body) + 1 for item in items)


def pack_groups(
    groups: Iterable[list[PreparedEntry]], limits: Limits
) -> Iterator[list[PreparedEntry]]:
    """Small groups travel together, up to what one unit holds; a large one travels alone."""
    current: list[PreparedEntry] = []
    count, size = 0, ENVELOPE
    for group in groups:
        group_size = _measure(group)
        if current and (count + len(group) > limits.entries or size + group_size > limits.bytes):
            yield current
            current, count, size = [], 0, ENVELOPE
        current += group
        count, size = count + len(group), size + group_size
    if current:
        yield current


def pack_in_dependency_order(items: Sequence[PreparedEntry], limits: Limits) -> Iterator[Unit]:
    """Units of a transaction that does not fit: deletes first, reads last, referenced
    before referencing; entries that refer to each other in a circle stay together where a unit
    can hold them."""
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
        if fits(component, limits):
            yield component
        else:
            yield from group_by_waiting(component)


def pack_in_levels(items: Sequence[PreparedEntry], limits: Limits) -> Iterator[Unit]:
    """Units of independent entries: what needs another's answer, or writes the same resource
    again, goes into a later unit; referenced before referencing otherwise."""
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
    """What must wait, after what it waits for; together only what waits for each other."""
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
    """As in most deliveries: nothing awaits an answer, and no resource comes twice."""
    if any(item.unit_entry.awaits or item.waits for item in items):
        return False
    return len({item.resource_key for item in items}) == len(items)


def is_cycle(component: Sequence[PreparedEntry]) -> bool:
    """Whether entries wait for each other, or one for itself."""
    return len(component) > 1 or component[0].unit_entry.target in component[0].unit_entry.awaits


def _find_must_wait(item: PreparedEntry) -> Callable[[PreparedEntry], bool]:
    """Which earlier entries must be in an earlier unit than this one."""
    awaits = frozenset(
        item.unit_entry.awaits
    )  # as many as its links: a search for each is quadratic

    def must_wait(earlier: PreparedEntry) -> bool:
        same = item.resource_key == earlier.resource_key
        waits = earlier.entry.position in item.waits
        return same or waits or earlier.unit_entry.target in awaits

    return must_wait


def build_unit(kind: str, items: Sequence[PreparedEntry]) -> Unit:
    """One unit, in FHIR's order."""
    return Unit(kind, tuple(item.unit_entry for item in sorted(items, key=_get_method_rank)))


def _get_method_rank(item: PreparedEntry) -> int:
    return _ORDER[item.unit_entry.method]
