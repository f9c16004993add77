"""Which requests carry a delivery to the FHIR server, and in which order? Pure.

The same contents and naming give the same plan, so a message that is seen twice plans the same
work again. Creates become `PUT Type/id` with ids of ours, and every link follows; conditional
entries stay conditional, and what refers to them waits for the server's answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from integration.core.errors import Issue
from integration.fhir import graph, packing
from integration.fhir.entries import MAX_ISSUES, Contents, Entry
from integration.fhir.identity import Naming
from integration.fhir.prepare import Prepared, prepare
from integration.fhir.sequence import in_sequence
from integration.fhir.units import Lane, Limits


@dataclass(frozen=True, slots=True)
class Plan:
    """Lanes may go side by side; `refused` never go. `split`: a transaction lost its atomicity."""

    lanes: tuple[Lane, ...]
    refused: tuple[tuple[Entry, Issue], ...] = ()
    split: bool = False


def plan(
    contents: Contents, naming: Naming, limits: Limits = Limits(), order: str = "arrival"
) -> Plan:
    """Raises nothing: what cannot be sent is in `refused`. `order`: what tells which of two writes
    of a resource is the later one; see `stamps`."""
    atomic = contents.kind == "transaction"
    prepared, refused = prepare(contents, naming, limits, order)
    if atomic and refused:
        return Plan((), _all_or_nothing(contents, refused))
    if atomic and packing.fits(prepared, limits):
        return Plan((Lane((packing.unit("transaction", prepared),)),) if prepared else ())
    if atomic and limits.over == "reject":
        return Plan((), _all_or_nothing(contents, [_over_limit(contents, limits)]))
    prepared = in_sequence(prepared, atomic=atomic)
    refused += _tangled(contents, prepared, limits, atomic=atomic)
    if atomic and refused:
        return Plan((), _all_or_nothing(contents, refused))
    never = {entry.position for entry, _ in refused}
    nodes = {item.entry.position: item for item in prepared if item.entry.position not in never}
    groups = [
        [nodes[n] for n in part]
        for part in graph.connected_components(nodes, packing.edges_of(nodes))
    ]
    lanes, split = [], False
    for bin_ in packing.pack_groups(groups, limits):
        if atomic and packing.fits(bin_, limits):
            lanes.append(Lane((packing.unit("transaction", bin_),)))
        elif atomic:
            split = True
            lanes.append(Lane(tuple(packing.in_dependency_order(bin_, limits))))
        else:
            lanes.append(Lane(tuple(packing.in_levels(bin_, limits))))
    return Plan(tuple(lanes), tuple(refused), split or (atomic and len(lanes) > 1))


def _tangled(
    contents: Contents, prepared: Sequence[Prepared], limits: Limits, *, atomic: bool
) -> list[tuple[Entry, Issue]]:
    """Conditional entries that await each other, or themselves, where no transaction can hold
    them: only inside one does the server itself follow their placeholders."""
    text = "conditional entries that refer to each other need one transaction within the limits"
    return [
        (contents.entries[n], Issue("processing", text, contents.entries[n].where))
        for knot in packing.by_waiting(prepared)
        if packing.is_knotted(knot) and not (atomic and packing.fits(knot, limits))
        for item in knot
        for n in item.sent.positions
    ]


def _all_or_nothing(
    contents: Contents, refused: Sequence[tuple[Entry, Issue]]
) -> tuple[tuple[Entry, Issue], ...]:
    """https://hl7.org/fhir/R4/http.html#transaction: one refused entry refuses them all."""
    reasons = {entry.position: issue for entry, issue in refused[:MAX_ISSUES]}
    other = Issue("processing", "not sent: another entry of the transaction was refused")
    return tuple((entry, reasons.get(entry.position, other)) for entry in contents.entries)


def _over_limit(contents: Contents, limits: Limits) -> tuple[Entry, Issue]:
    text = (
        f"the transaction is above the FHIR server's {limits.entries} entries or {limits.bytes} "
        "bytes, and OVER_LIMIT is reject"
    )
    return contents.entries[0], Issue("too-costly", text, "Bundle")
