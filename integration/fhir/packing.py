"""Prepared entries in units within the server's limits, in an order that works. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from integration.fhir import graph
from integration.fhir.prepare import Prepared
from integration.fhir.units import ENVELOPE, Limits, Unit

# https://hl7.org/fhir/R4/http.html#trules
_ORDER = {"DELETE": 0, "POST": 1, "PUT": 2, "PATCH": 3, "GET": 4, "HEAD": 5}


def edges_of(items: Mapping[int, Prepared]) -> dict[int, tuple[int, ...]]:
    """What each refers to, among these."""
    return {
        position: tuple(n for n in item.after if n in items) for position, item in items.items()
    }


def fits(items: Sequence[Prepared], limits: Limits) -> bool:
    """Whether one unit can hold them."""
    return len(items) <= limits.entries and _size(items) <= limits.bytes


def _size(items: Iterable[Prepared]) -> int:
    return ENVELOPE + sum(len(item.sent.body) + 1 for item in items)


def pack_groups(groups: Iterable[list[Prepared]], limits: Limits) -> Iterator[list[Prepared]]:
    """Small groups travel together, up to what one unit holds; a large one travels alone."""
    current: list[Prepared] = []
    count, size = 0, ENVELOPE
    for group in groups:
        group_size = _size(group)
        if current and (count + len(group) > limits.entries or size + group_size > limits.bytes):
            yield current
            current, count, size = [], 0, ENVELOPE
        current += group
        count, size = count + len(group), size + group_size
    if current:
        yield current


def in_dependency_order(items: Sequence[Prepared], limits: Limits) -> Iterator[Unit]:
    """Units of a transaction that does not fit: deletes first, reads last, referenced
    before referencing; entries that refer to each other in a circle stay together where a unit
    can hold them."""
    by_position = {item.entry.position: item for item in items}
    knots = graph.strongly_connected_components(by_position, edges_of(by_position))
    ordered = [[by_position[n] for n in knot] for knot in knots]
    ordered.sort(key=_phase)
    for bin_ in pack_groups(_cut(ordered, limits), limits):
        yield unit("transaction", bin_)


def _phase(knot: Sequence[Prepared]) -> int:
    methods = {item.sent.method for item in knot}
    if methods == {"DELETE"}:
        return 0
    return 2 if methods <= {"GET", "HEAD"} else 1


def _cut(knots: Iterable[list[Prepared]], limits: Limits) -> Iterator[list[Prepared]]:
    for knot in knots:
        if fits(knot, limits):
            yield knot
        else:
            yield from by_waiting(knot)


def in_levels(items: Sequence[Prepared], limits: Limits) -> Iterator[Unit]:
    """Units of independent entries: what needs another's answer, or writes the same resource
    again, goes into a later unit; referenced before referencing otherwise."""
    by_position = {item.entry.position: item for item in items}
    edges = edges_of(by_position)
    level: dict[int, int] = {}
    order = [
        item.entry.position
        for knot in graph.strongly_connected_components(by_position, edges)
        for (item,) in by_waiting([by_position[n] for n in knot])
    ]
    for position in order:
        must_wait = _waiting(by_position[position])
        level[position] = max(
            (level.get(n, 0) + must_wait(by_position[n]) for n in edges[position]),
            default=0,
        )
    for _, positions in groupby(sorted(order, key=level.__getitem__), level.__getitem__):
        for bin_ in pack_groups(([by_position[n]] for n in positions), limits):
            yield unit("batch", bin_)


def by_waiting(items: Sequence[Prepared]) -> list[list[Prepared]]:
    """What must wait, after what it waits for; together only what waits for each other."""
    if _none_waits(items):
        return [[item] for item in items]
    by_position = {item.entry.position: item for item in items}
    edges = {}
    for position, targets in edges_of(by_position).items():
        must_wait = _waiting(by_position[position])
        edges[position] = [n for n in targets if must_wait(by_position[n])]
    return [
        [by_position[n] for n in knot]
        for knot in graph.strongly_connected_components(by_position, edges)
    ]


def _none_waits(items: Sequence[Prepared]) -> bool:
    """As in most deliveries: nothing awaits an answer, and no resource comes twice."""
    if any(item.sent.awaits or item.waits for item in items):
        return False
    return len({item.resource for item in items}) == len(items)


def is_knotted(knot: Sequence[Prepared]) -> bool:
    """Whether entries wait for each other, or one for itself."""
    return len(knot) > 1 or knot[0].sent.target in knot[0].sent.awaits


def _waiting(item: Prepared) -> Callable[[Prepared], bool]:
    """Which earlier entries must be in an earlier unit than this one."""
    awaits = frozenset(item.sent.awaits)  # as many as its links: a search for each is quadratic

    def must_wait(earlier: Prepared) -> bool:
        same = item.resource == earlier.resource
        waits = earlier.entry.position in item.waits
        return same or waits or earlier.sent.target in awaits

    return must_wait


def unit(kind: str, items: Sequence[Prepared]) -> Unit:
    """One unit, in FHIR's order."""
    return Unit(kind, tuple(item.sent for item in sorted(items, key=_by_method)))


def _by_method(item: Prepared) -> int:
    return _ORDER[item.sent.method]
