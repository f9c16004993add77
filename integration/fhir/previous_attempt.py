"""Find out what an earlier attempt has already done, from the server's current state. Pure.

An attempt whose response was lost is never repeated blindly: somebody may have changed the resource
since, and that change must stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeGuard

from integration.core.errors import Issue
from integration.core.model import EntryResult, FhirResource
from integration.fhir import entry_results, operation_outcome
from integration.fhir.json_objects import get_object
from integration.fhir.resource_ids import PLACEHOLDER
from integration.fhir.units import UnitEntry

_CONFLICT = 409

_NUMBERS = (int, float, Decimal)

# Statuses that do not answer the question.
_INCONCLUSIVE = (401, 403, 408, 409, 429)

SUPERSEDED = Issue(
    "conflict",
    "superseded: the resource has changed since this write was first sent; it was not sent again",
    severity="warning",
)
_UNCLEAR = Issue(
    "incomplete",
    "the response to the patch was lost, and the resource has changed since it was sent",
    severity="warning",
)

# Elements of meta that servers set.
_META = {"versionId", "lastUpdated"}


@dataclass(frozen=True, slots=True, kw_only=True)
class UnconfirmedEntry:
    """An entry that an earlier attempt may have written."""

    entry: UnitEntry
    name: str  # Type/id
    attempted_at: float  # when that attempt began, seconds since 1970
    resource: FhirResource | None  # as it was sent
    delivery_version: str | None = None  # that an earlier entry of the delivery has written


def find_settled(
    unconfirmed: Sequence[UnconfirmedEntry], responses: Sequence[Any], *, atomic: bool, repeat: bool
) -> dict[int, EntryResult] | None:
    """Return the results, by position, of entries that need not or must not be sent again.

    `responses` are the entries of the response to `units.build_reads` of their names. `atomic`:
    they were sent in one transaction, so that one that was certainly written proves all, and
    without one none was written. `repeat`: the same bytes were processed before, with the same ids.
    None if the server has not answered for every entry whether it exists: then nothing may be sent.
    """
    pairs = list(zip(unconfirmed, responses, strict=False))
    if any(entry_results.get_status(response) not in (200, 404, 410) for _, response in pairs):
        return None
    if atomic and any(_is_ours(entry, response, repeat) for entry, response in pairs):
        return {
            entry.entry.position: _build_done_result(entry, response) for entry, response in pairs
        }
    results = {
        entry.entry.position: _settle_entry(entry, response)
        for entry, response in pairs
        if not (atomic and _is_harmless_to_repeat(entry, response))
    }
    return {position: result for position, result in results.items() if result}


def _is_ours(entry: UnconfirmedEntry, response: Any, repeat: bool) -> bool:
    """Whether only the earlier attempt of this entry can have written the current state."""
    status = entry_results.get_status(response)
    if entry.entry.created:
        return status != 404 and not repeat  # nobody else knows the id
    current = response.get("resource")
    return (
        status == 200
        and _is_same(entry.resource, current)
        and _is_newer(current, entry.attempted_at)
    )


def _is_harmless_to_repeat(entry: UnconfirmedEntry, response: Any) -> bool:
    """Whether the current state is the requested one, but may be older than the attempt: the entry
    is sent with the rest of its transaction, which changes nothing."""
    if entry.entry.created:
        return False
    is_gone = entry_results.get_status(response) != 200
    return is_gone or _is_same(entry.resource, response.get("resource"))


def _settle_entry(entry: UnconfirmedEntry, response: Any) -> EntryResult | None:
    """Return the result of an entry; None if it must be sent."""
    unit_entry, current = entry.entry, response.get("resource")
    status = entry_results.get_status(response)
    if unit_entry.created:
        return _build_done_result(entry, response) if status != 404 else None
    if status != 200:
        return _build_done_result(entry, response) if unit_entry.method == "DELETE" else None
    if _is_same(entry.resource, current):
        return _build_done_result(entry, response)
    is_delivery_version = (
        entry.delivery_version is not None and _get_version(current) == entry.delivery_version
    )
    if is_delivery_version or not _is_newer(current, entry.attempted_at):
        return None
    if unit_entry.method == "PATCH":
        return entry_results.add_issue(_build_done_result(entry, response), _UNCLEAR)
    return build_superseded_result(unit_entry, entry.name)


def build_superseded_result(
    entry: UnitEntry, name: str | None, issue: Issue = SUPERSEDED
) -> EntryResult:
    """Return the result of an entry that is not sent because a later write stands. `name` is its
    Type/id, if known."""
    return EntryResult(
        position=entry.position,
        status=_CONFLICT,
        full_url=entry.full_url,
        location=name,
        issues=[operation_outcome.as_json(issue)],
        superseded=True,
    )


def _build_done_result(entry: UnconfirmedEntry, response: Any) -> EntryResult:
    """Return the result of an entry that was written, even if the resource has been deleted or
    created again since: that change stays."""
    unit_entry = entry.entry
    if unit_entry.method == "DELETE":
        return EntryResult(position=unit_entry.position, status=204, full_url=unit_entry.full_url)
    result = (
        entry_results.read_entry_response(unit_entry, response)
        if entry_results.get_status(response) == 200
        else None
    )
    return result or EntryResult(
        position=unit_entry.position, status=200, full_url=unit_entry.full_url, location=entry.name
    )


def _is_same(ours: Mapping[str, Any] | None, theirs: Any) -> bool:
    """Whether two states are equal, apart from what a server sets. For a conditional update it may
    keep its own id."""
    if ours is None or not isinstance(theirs, dict):
        return False
    left = {name: value for name, value in ours.items() if name not in ("id", "meta")}
    right = {name: value for name, value in theirs.items() if name not in ("id", "meta")}
    return (
        ours.get("id") in (None, theirs.get("id"))
        and _is_alike(left, right)
        and _has_meta(ours.get("meta"), theirs.get("meta"))
    )


def _has_meta(ours: Any, theirs: Any) -> bool:
    """Whether `theirs` holds all of `ours`: a server adds tags and the like to existing ones.
    https://hl7.org/fhir/R4/http.html#update"""
    required = {n: v for n, v in ours.items() if n not in _META} if isinstance(ours, dict) else {}
    present = theirs if isinstance(theirs, dict) else {}
    return all(
        all(any(_is_alike(item, other) for other in present.get(name, [])) for item in value)
        if isinstance(value, list) and isinstance(present.get(name, []), list)
        else _is_alike(value, present.get(name))
        for name, value in required.items()
    )


def _is_alike(ours: Any, theirs: Any) -> bool:
    """Whether two JSON values are equal. Numbers compare by value, since not every server keeps all
    digits; a placeholder that the server resolves equals any Type/id."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(
            _is_alike(value, theirs[name]) for name, value in ours.items()
        )
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(_is_alike, ours, theirs))
    if isinstance(ours, str) and isinstance(theirs, str):
        return ours == theirs or _is_resolved_placeholder(ours, theirs)
    if isinstance(ours, bool) or isinstance(theirs, bool):
        return ours is theirs
    if isinstance(ours, _NUMBERS) and isinstance(theirs, _NUMBERS):
        return _is_equal(ours, theirs)
    return ours is None and theirs is None


def _is_equal(ours: int | float | Decimal, theirs: int | float | Decimal) -> bool:
    try:
        return float(ours) == float(theirs)
    except OverflowError:
        return ours == theirs


def _is_resolved_placeholder(ours: str, theirs: str) -> bool:
    around = PLACEHOLDER.split(ours.encode())
    pattern = rb"[A-Za-z]+/[A-Za-z0-9.-]+".join(map(re.escape, around))
    return len(around) > 1 and re.fullmatch(pattern, theirs.encode()) is not None


def _get_version(resource: Any) -> Any:
    return get_object(resource, "meta").get("versionId")


def _is_newer(current: Any, since: float) -> bool:
    """Whether the resource was written after the attempt began, or does not state its time."""
    stated = get_object(current, "meta").get("lastUpdated")
    try:
        updated = datetime.fromisoformat(stated) if isinstance(stated, str) else None
    except ValueError:
        updated = None
    if updated is None or updated.tzinfo is None:
        return True
    return updated.timestamp() >= since


def list_matches(query: str, response: Any) -> list[str] | None:
    """Return the Type/id of a search's matches; None if the search was not answered.

    A search that the server refuses has no matches: it will refuse the condition as well.
    """
    status = entry_results.get_status(response)
    if status is not None and 400 <= status < 500 and status not in _INCONCLUSIVE:
        return []
    bundle = response.get("resource") if isinstance(response, dict) else None
    entries = bundle.get("entry", []) if isinstance(bundle, dict) else None
    if status != 200 or not isinstance(entries, list):
        return None
    kind = query.partition("?")[0]
    resources = (entry.get("resource") for entry in entries if isinstance(entry, dict))
    return [f"{kind}/{resource['id']}" for resource in resources if _is_match(resource, kind)]


def _is_match(resource: Any, kind: str) -> TypeGuard[dict[str, Any]]:
    return (
        isinstance(resource, dict)
        and resource.get("resourceType") == kind
        and isinstance(resource.get("id"), str)
    )
