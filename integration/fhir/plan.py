"""Plan a delivery: which requests go to the FHIR server, and in which order. Pure.

The same contents and naming give the same plan, so a queue message that comes twice plans the same
work. Creates become `PUT Type/id` with ids of this app, and every link to them is rewritten.
Conditional entries stay conditional, and what refers to them waits for the server's response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from integration.core.errors import Issue
from integration.fhir import graph, split_into_units
from integration.fhir.entries import MAX_ISSUES, Contents, Entry
from integration.fhir.prepare import PreparedEntry, prepare
from integration.fhir.resource_ids import Naming
from integration.fhir.sequence import order_entries
from integration.fhir.units import Lane, Limits

# The version of the planner. Raise it with each change that could plan the same delivery otherwise,
# or store lanes otherwise: what an earlier version has planned is then planned anew.
PLANNER = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """Lanes are independent of each other; `refused` entries are never sent. `split`: a transaction
    lost its atomicity."""

    lanes: tuple[Lane, ...]
    refused: tuple[tuple[Entry, Issue], ...] = ()
    split: bool = False


def plan(
    contents: Contents,
    naming: Naming,
    limits: Limits = Limits(),
    write_order: str = "arrival",
    *,
    is_correction: bool = False,
) -> Plan:
    """Return the plan of a delivery. Raises nothing: what cannot be sent is in `refused`.

    `write_order` is the setting WRITE_ORDER; see `source_version`. `is_correction`: it takes the
    place of another delivery, which may have created what it creates.
    """
    atomic = contents.kind == "transaction"
    prepared, refused = prepare(contents, naming, limits, write_order, is_correction=is_correction)
    if atomic and refused:
        return Plan((), _refuse_all(contents, refused))
    if atomic and split_into_units.can_be_atomic(prepared, limits):
        return Plan(
            (Lane((split_into_units.build_unit("transaction", prepared),)),) if prepared else ()
        )
    if atomic and limits.over == "reject":
        return Plan((), _refuse_all(contents, [_refuse_to_split(contents, prepared, limits)]))
    ordered = order_entries(prepared, atomic=atomic)
    while cycles := _refuse_cycles(contents, ordered, limits, atomic=atomic):
        refused += cycles
        if atomic:
            return Plan((), _refuse_all(contents, refused))
        # What comes before a refused entry and what comes after it have an order all the same.
        gone = {entry.position for entry, _ in cycles}
        prepared = [item for item in prepared if item.entry.position not in gone]
        ordered = order_entries(prepared, atomic=atomic)
    nodes = {item.entry.position: item for item in ordered}
    groups = [
        [nodes[n] for n in part]
        for part in graph.find_connected_components(nodes, split_into_units.find_edges(nodes))
    ]
    lanes, split = [], False
    for group in split_into_units.pack_groups(groups, limits):
        if atomic and split_into_units.can_be_atomic(group, limits):
            lanes.append(Lane((split_into_units.build_unit("transaction", group),)))
        elif atomic:
            split = True
            lanes.append(Lane(tuple(split_into_units.pack_in_dependency_order(group, limits))))
        else:
            lanes.append(Lane(tuple(split_into_units.pack_in_levels(group, limits))))
    return Plan(tuple(lanes), tuple(refused), split or (atomic and len(lanes) > 1))


def _refuse_cycles(
    contents: Contents, prepared: Sequence[PreparedEntry], limits: Limits, *, atomic: bool
) -> list[tuple[Entry, Issue]]:
    """Refuse conditional entries that refer to each other, or to themselves, unless one transaction
    can hold them: only inside one does the server resolve their placeholders."""
    text = "conditional entries that refer to each other need one transaction within the limits"
    return [
        (contents.entries[n], Issue("processing", text, contents.entries[n].where))
        for component in split_into_units.group_by_waiting(prepared)
        if split_into_units.is_cycle(component)
        and not (atomic and split_into_units.can_be_atomic(component, limits))
        for item in component
        for n in item.unit_entry.positions
    ]


def _refuse_all(
    contents: Contents, refused: Sequence[tuple[Entry, Issue]]
) -> tuple[tuple[Entry, Issue], ...]:
    """Refuse all entries, as https://hl7.org/fhir/R4/http.html#transaction demands if one is."""
    reasons = {entry.position: issue for entry, issue in refused[:MAX_ISSUES]}
    other = Issue("processing", "not sent: another entry of the transaction was refused")
    return tuple((entry, reasons.get(entry.position, other)) for entry in contents.entries)


def _refuse_to_split(
    contents: Contents, prepared: Sequence[PreparedEntry], limits: Limits
) -> tuple[Entry, Issue]:
    waiting = next((item.entry for item in prepared if item.waits), None)
    if waiting is not None and split_into_units.fits(prepared, limits):
        text = (
            "an element that is no Reference points at a conditional entry, which needs two "
            "requests, and OVER_LIMIT is reject: send a batch"
        )
        return waiting, Issue("not-supported", text, waiting.where)
    text = (
        f"the transaction has more than {limits.entries} entries or {limits.bytes} bytes, which is "
        "the FHIR server's limit, and OVER_LIMIT is reject: send smaller transactions"
    )
    return contents.entries[0], Issue("too-costly", text, "Bundle")
