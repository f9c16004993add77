"""The order that entries need besides their references. Pure.

A server processes a bundle's deletes first, then creates, updates and patches, and reads last
(https://hl7.org/fhir/R4/http.html#trules). In several units the result must be the same. Entries
that must all come after the same many entries are chained, so that edges stay few.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from integration.fhir.prepare import PreparedEntry

_ByType = Mapping[str, Sequence[PreparedEntry]]


@dataclass(frozen=True, slots=True)
class _Edges:
    """By position: what the entry comes after, and for which of that it waits: an earlier unit."""

    after: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    waits: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))


def order_entries(items: Sequence[PreparedEntry], *, atomic: bool) -> list[PreparedEntry]:
    """Return the entries, each with all positions that it must come after."""
    edges = _Edges()
    writes: dict[str, list[PreparedEntry]] = defaultdict(list)
    last: dict[str, int] = {}
    for item in items:
        if item.unit_entry.is_read:
            continue
        # A batch or NDJSON may write a resource again: later entries come after earlier ones.
        position, resource = item.entry.position, item.resource_key
        if resource in last:
            edges.after[position].add(last[resource])
        last[resource] = position
        writes[item.entry.type].append(item)
    for group in writes.values():
        _order_conditional(group, edges)
    _order_searches(items, writes, edges)
    _order_reads(items, writes, last, edges)
    return [
        _add_edges(item, edges, atomic) if item.entry.position in edges.after else item
        for item in items
    ]


def _add_edges(item: PreparedEntry, edges: _Edges, atomic: bool) -> PreparedEntry:
    position = item.entry.position
    # Inside a transaction the server knows what it is about to write.
    waits = frozenset() if atomic else frozenset(edges.waits.get(position, ()))
    waits |= item.waits
    after = {*item.after, *edges.after[position]} - {position}
    return replace(item, after=tuple(sorted(after)), waits=waits)


def _order_conditional(group: Sequence[PreparedEntry], edges: _Edges) -> None:
    """Order the writes of one type around its conditional ones.

    Conditional deletes come before all other writes of the type and conditional patches after them,
    since only the server knows which resources they match. Other conditional entries come after all
    deletes: they must not match a resource that is deleted then.
    """
    finders = [item for item in group if item.entry.is_conditional]
    deletes = _list_positions(item for item in finders if item.unit_entry.method == "DELETE")
    patches = _list_positions(item for item in finders if item.unit_entry.method == "PATCH")
    _chain(deletes, edges)
    _chain(patches, edges)
    plain = _list_positions(item for item in group if item.unit_entry.method == "DELETE")
    apart = {*deletes, *patches}
    all_deletes = [*deletes, *(n for n in plain if n not in apart)]
    conditional_writes = _list_positions(
        item for item in finders if item.unit_entry.method != "DELETE"
    )
    if all_deletes and conditional_writes:
        _chain(all_deletes, edges)
        for position in conditional_writes:
            edges.after[position].add(all_deletes[-1])
    others = [n for n in _list_positions(group) if n not in apart] if apart else []
    if deletes:
        for position in [*others, *patches[:1]]:
            edges.after[position].add(deletes[-1])
    if patches:
        edges.after[patches[0]].update(others)


def _order_searches(items: Sequence[PreparedEntry], writes: _ByType, edges: _Edges) -> None:
    """Make entries with conditional references wait for everything that these may match.

    Of entries that have such references themselves, they wait only for earlier ones, else two of
    them could wait for each other.
    """
    last: dict[str, int] = {}
    new: dict[str, list[int]] = defaultdict(list)  # entries that search, since the last of them
    for item in items:
        position = item.entry.position
        for type_ in sorted(item.searches & writes.keys()):
            found = new.pop(type_, [])
            if type_ in last:
                edges.after[position].add(last[type_])
            else:
                found += [
                    entry.entry.position
                    for entry in writes[type_]
                    if not entry.searches and entry.unit_entry.method != "DELETE"
                ]
            edges.after[position].update(found)
            edges.waits[position].update(found)
            last[type_] = position
        if item.searches:
            new[item.entry.type].append(position)


def _order_reads(
    items: Sequence[PreparedEntry], writes: _ByType, last: Mapping[str, int], edges: _Edges
) -> None:
    """Make a read by id come after what may write that resource, and a search after all writes: it
    may follow references into any type."""
    finders = {
        type_: _list_positions(item for item in group if item.entry.is_conditional)
        for type_, group in writes.items()
    }
    everything = _list_positions(item for group in writes.values() for item in group)
    chains: dict[str, list[int]] = defaultdict(list)
    for item in items:
        if item.entry.read_path is None:
            continue
        position, (type_, *rest) = item.entry.position, item.entry.read_path.split("/")
        identity = "/".join((type_, *rest[:1]))
        before = finders.get(type_, []) if rest else everything
        same_resource = {last[identity]} if identity in last else set()
        chain = chains[type_ if rest else ""]
        # In a batch, a server may process the entries of a unit in any order.
        edges.waits[position] |= same_resource | (set() if chain else set(before))
        edges.after[position] |= same_resource | set(chain[-1:] or before)
        if before:
            chain.append(position)


def _chain(positions: Sequence[int], edges: _Edges) -> None:
    for earlier, later in pairwise(positions):
        edges.after[later].add(earlier)


def _list_positions(items: Iterable[PreparedEntry]) -> list[int]:
    return [item.entry.position for item in items]
