"""VERB plan_delivery: what would become of a delivery, without keeping, queueing or sending it.

The plan is the one that the relay would make, ids included. It repeats the sender's own request and
may contain its queries, so it belongs in a response and in no log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from integration.core.offload import offload
from integration.fhir import operation_outcome
from integration.fhir.entries import Contents
from integration.fhir.notifications import Notification
from integration.fhir.plan import Plan, plan
from integration.fhir.resource_ids import Naming
from integration.fhir.units import Lane, Limits, Unit, UnitEntry
from integration.intake.accept import (
    CheckedRequest,
    Intake,
    check_request,
    find_earlier,
    parse_headers,
)
from integration.intake.http_request import IncomingRequest, ParsedRequest, add_content_key

_ATOMICITY = (
    "atomicity: the FHIR server cannot take the transaction in one request, so it will be sent in "
    "several units, and some of its entries may be refused while others are written"
)
_PAGES = "pages: further pages are not in this plan; they are fetched only from below FETCH_FROM"


@dataclass(frozen=True, slots=True)
class _SentEntry:
    """An entry of a unit as it is sent, without its resource."""

    request: dict[str, str]


_sent_entry_decoder = msgspec.json.Decoder(_SentEntry)


async def plan_delivery(intake: Intake, limits: Limits, request: IncomingRequest) -> dict[str, Any]:
    """Return the plan as JSON. Raises what accepting the request would raise."""
    parsed = parse_headers(intake, request)
    with intake.budget.take_now(len(parsed.body)):
        return await _plan(intake, limits, await add_content_key(parsed))


async def _plan(intake: Intake, limits: Limits, parsed: ParsedRequest) -> dict[str, Any]:
    checked = await check_request(intake, parsed)
    delivery = checked.delivery
    first_id = await intake.journal.find_delivery_by_key(delivery.sender, delivery.key)
    if first_id is not None:
        await find_earlier(intake.journal, checked, first_id)
    planned = await offload(delivery.bytes, lambda: _make_plan(checked, limits))
    return {"repeats": first_id, **planned} if first_id else planned


def _make_plan(checked: CheckedRequest, limits: Limits) -> dict[str, Any]:
    trusts_uuids = checked.payload.request.policy.trust == "uuids"
    naming = Naming(checked.delivery.sender, checked.delivery.key, trusts_uuids)
    order = checked.delivery.write_order
    return as_json(checked.contents, plan(checked.contents, naming, limits, order))


def as_json(contents: Contents, made_plan: Plan) -> dict[str, Any]:
    """Return lanes, units and entries, what would be refused, and what would be lost. Pure."""
    positions = {
        entry.target: entry.position
        for lane in made_plan.lanes
        for unit in lane.units
        for entry in unit.entries
    }
    to_fetch = contents.urls_to_fetch if isinstance(contents, Notification) else {}
    lost = [_ATOMICITY] * made_plan.split + [_PAGES] * contents.has_next_page
    return {
        "kind": contents.kind,
        "entries": len(contents.entries),
        "lanes": [_describe_lane(lane, positions) for lane in made_plan.lanes],
        "refused": [
            {"position": entry.position, "where": entry.where, **operation_outcome.as_json(issue)}
            for entry, issue in made_plan.refused
            if entry.position not in to_fetch
        ],
        "toFetch": [{"position": n, "address": url} for n, url in sorted(to_fetch.items())],
        "lost": lost,
    }


def _describe_lane(lane: Lane, positions: Mapping[str, int]) -> dict[str, Any]:
    return {"units": [_describe_unit(unit, positions) for unit in lane.units]}


def _describe_unit(unit: Unit, positions: Mapping[str, int]) -> dict[str, Any]:
    return {
        "kind": unit.kind,
        "bytes": sum(len(entry.body) for entry in unit.entries),
        "entries": [_describe_entry(entry, positions) for entry in unit.entries],
    }


def _describe_entry(entry: UnitEntry, positions: Mapping[str, int]) -> dict[str, Any]:
    """Describe an entry. In `request` a placeholder stands for each id that is not known yet."""
    fields: dict[str, Any] = {
        "position": entry.position,
        "where": entry.where,
        "request": _sent_entry_decoder.decode(entry.body).request,
        "created": entry.created,
        "waitsFor": [positions[name] for name in entry.awaits if name in positions],
        "blocked": not positions.keys() >= set(entry.awaits),  # it waits for a refused entry
        "answersFor": [position for position, _ in entry.same],
        "notes": [operation_outcome.as_json(issue) for issue in entry.notes],
    }
    return {name: value for name, value in fields.items() if value is not False and value != []}


def as_text(planned: Mapping[str, Any]) -> Iterator[str]:
    """Yield the plan for a terminal: a line for each unit and each refusal. Pure."""
    lanes = planned["lanes"]
    units = sum(len(lane["units"]) for lane in lanes)
    yield f"{planned['kind']}: entries={planned['entries']} lanes={len(lanes)} units={units}"
    for number, lane in enumerate(lanes):
        for index, unit in enumerate(lane["units"]):
            entries = unit["entries"]
            created = sum("created" in entry for entry in entries)
            waiting = sum("waitsFor" in entry for entry in entries)
            details = [f"{created} created with ids of the relay"] * (created > 0)
            details += [f"{waiting} wait for the id of another entry"] * (waiting > 0)
            size = f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'}"
            line = f"  lane {number}, unit {index}: {unit['kind']} of {size}, {unit['bytes']} bytes"
            yield "; ".join([line, *details])
    for entry in planned["toFetch"]:
        yield f"to fetch, if FETCH_FROM allows it: entry {entry['position']}"
    for text in planned["lost"]:
        yield f"lost: {text}"
    for issue in planned["refused"]:
        kind = "refused" if issue["severity"] == "error" else "not sent"
        yield f"{kind}: {issue['where']}: {issue['diagnostics']}"
