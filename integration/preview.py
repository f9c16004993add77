"""VERB preview: what would be sent, without sending it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from integration.fhir.entries import Contents
from integration.fhir.plan import Plan


def as_text(contents: Contents, plan: Plan) -> Iterator[str]:
    """A line for each unit, for what would be lost and for each refusal."""
    units = sum(len(lane.units) for lane in plan.lanes)
    yield f"{contents.kind}: entries={len(contents.entries)} lanes={len(plan.lanes)} units={units}"
    for number, lane in enumerate(plan.lanes):
        for index, unit in enumerate(lane.units):
            size = sum(len(entry.body) for entry in unit.entries)
            created = sum(entry.created for entry in unit.entries)
            waiting = sum(bool(entry.awaits) for entry in unit.entries)
            yield (
                f"  lane {number}, unit {index}: {unit.kind} of {len(unit.entries)} entries, "
                f"{size} bytes; {created} created with ids of ours, {waiting} await an answer"
            )
    if plan.split:
        yield "lost: the transaction is above the limits, so it is not all or nothing any more"
    for entry, issue in plan.refused:
        yield f"refused: {entry.where}: {issue.text}"
