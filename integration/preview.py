"""VERB preview: what would be sent, without sending it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from integration.fhir import issues
from integration.fhir.entries import Contents
from integration.fhir.plan import Plan
from integration.fhir.units import Unit


def as_json(contents: Contents, plan: Plan) -> dict[str, Any]:
    """The plan with every entry's target and every refusal; entries by the sender's position."""
    return {
        "kind": contents.kind,
        "entries": len(contents.entries),
        "split": plan.split,
        "lanes": [[_unit(unit) for unit in lane.units] for lane in plan.lanes],
        "refused": [
            {"position": entry.position, "issue": issues.as_json(issue)}
            for entry, issue in plan.refused
        ],
    }


def as_text(contents: Contents, plan: Plan) -> Iterator[str]:
    """The same for a terminal, a line for each unit."""
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


def _unit(unit: Unit) -> dict[str, Any]:
    return {
        "kind": unit.kind,
        "bytes": sum(len(entry.body) for entry in unit.entries),
        "entries": [
            {
                "positions": entry.positions,
                "target": entry.target,
                "created": entry.created,
                "awaits": list(entry.awaits),
            }
            for entry in unit.entries
        ],
    }
