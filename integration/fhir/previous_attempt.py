"""What an earlier try has done already: what to ask the server, what its answer proves. Pure.

A try whose answer was lost is never repeated blindly: somebody may have changed since what it
wrote, and that stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeGuard

from integration.core.errors import Issue
from integration.core.model import EntryResult
from integration.fhir import entry_results, issues
from integration.fhir.identity import PLACEHOLDER
from integration.fhir.units import UnitEntry

_CONFLICT = 409

_NUMBERS = (int, float, Decimal)

# Answers that say nothing of the question.
_PASSING = (401, 403, 408, 409, 429)

LEFT_ALONE = Issue(
    "conflict",
    "superseded: changed since this write was first tried, and left as it is",
    severity="warning",
)
_UNCLEAR = Issue(
    "incomplete",
    "the answer to the patch was lost; the resource has changed since it was sent",
    severity="warning",
)

# What servers add to a resource, or keep of its last version.
_META = {"versionId", "lastUpdated"}


@dataclass(frozen=True, slots=True)
class Asked:
    """One entry of which an earlier try's end is not known."""

    entry: UnitEntry
    name: str  # Type/id
    since: float  # when that try began, seconds since 1970
    resource: dict[str, Any] | None  # as it was sent
    own: str | None = None  # the version that an earlier entry of the delivery has made of it


def proven(
    asked: Sequence[Asked], answers: Sequence[Any], *, atomic: bool, repeat: bool
) -> dict[int, EntryResult] | None:
    """The answers to `units.reads` of their names: which need not, or must not, be sent?

    `atomic`: they went in one transaction, so one that is certainly ours proves them all, and
    without one none was done. `repeat`: the same bytes were carried before, with the same ids.
    None when the server has not said of every one that it is there, or is not: that is no leave
    to write.
    """
    pairs = list(zip(asked, answers, strict=False))
    if any(entry_results.status_of(answer) not in (200, 404, 410) for _, answer in pairs):
        return None
    if atomic and any(_is_ours(one, answer, repeat) for one, answer in pairs):
        return {one.entry.position: _done(one, answer) for one, answer in pairs}
    verdicts = {
        one.entry.position: _verdict(one, answer)
        for one, answer in pairs
        if not (atomic and _is_no_news(one, answer))
    }
    return {position: verdict for position, verdict in verdicts.items() if verdict}


def _is_ours(one: Asked, answer: Any, repeat: bool) -> bool:
    """Whether only this try of the entry can have made it so."""
    status = entry_results.status_of(answer)
    if one.entry.created:
        return status != 404 and not repeat  # nobody else knows the id
    current = answer.get("resource")
    return status == 200 and _is_same(one.resource, current) and _is_newer(current, one.since)


def _is_no_news(one: Asked, answer: Any) -> bool:
    """As it was wanted, but perhaps before the try: to be sent with the rest, and harmless."""
    if one.entry.created:
        return False
    gone = entry_results.status_of(answer) != 200
    return gone or _is_same(one.resource, answer.get("resource"))


def _verdict(one: Asked, answer: Any) -> EntryResult | None:
    """None: it must be sent."""
    entry, status, current = one.entry, entry_results.status_of(answer), answer.get("resource")
    if entry.created:
        return _done(one, answer) if status != 404 else None
    if status != 200:
        return _done(one, answer) if entry.method == "DELETE" else None
    if _is_same(one.resource, current):
        return _done(one, answer)
    ours_before = one.own is not None and _version(current) == one.own
    if ours_before or not _is_newer(current, one.since):
        return None
    if entry.method == "PATCH":
        return entry_results.noted(_done(one, answer), _UNCLEAR)
    return left_alone(entry, one.name)


def left_alone(entry: UnitEntry, name: str | None, issue: Issue = LEFT_ALONE) -> EntryResult:
    """An entry that is not sent, because a later write stands; `name`: of what."""
    return EntryResult(
        entry.position,
        _CONFLICT,
        entry.full_url,
        location=name,
        issues=[issues.as_json(issue)],
        superseded=True,
    )


def _done(one: Asked, answer: Any) -> EntryResult:
    """What somebody has deleted, or made again, since then is not ours to bring back."""
    entry = one.entry
    if entry.method == "DELETE":
        return EntryResult(entry.position, 204, entry.full_url)
    read = entry_results.of_entry(entry, answer) if entry_results.status_of(answer) == 200 else None
    return read or EntryResult(entry.position, 200, entry.full_url, location=one.name)


def _is_same(ours: Mapping[str, Any] | None, theirs: Any) -> bool:
    """Apart from what a server adds. It may keep its own id for a conditional update."""
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
    """Tags and the like are added to those that are there: https://hl7.org/fhir/R4/http.html#update"""
    wanted = {n: v for n, v in ours.items() if n not in _META} if isinstance(ours, dict) else {}
    have = theirs if isinstance(theirs, dict) else {}
    return all(
        all(any(_is_alike(item, other) for other in have.get(name, [])) for item in value)
        if isinstance(value, list) and isinstance(have.get(name, []), list)
        else _is_alike(value, have.get(name))
        for name, value in wanted.items()
    )


def _is_alike(ours: Any, theirs: Any) -> bool:
    """Numbers by their value, since not every server keeps every digit; and where a transaction
    left a placeholder for the server to follow, whatever it has led to."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(
            _is_alike(value, theirs[name]) for name, value in ours.items()
        )
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(_is_alike, ours, theirs))
    if isinstance(ours, str) and isinstance(theirs, str):
        return ours == theirs or _is_followed(ours, theirs)
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


def _is_followed(ours: str, theirs: str) -> bool:
    around = PLACEHOLDER.split(ours.encode())
    pattern = rb"[A-Za-z]+/[A-Za-z0-9.-]+".join(map(re.escape, around))
    return len(around) > 1 and re.fullmatch(pattern, theirs.encode()) is not None


def _version(resource: Any) -> Any:
    meta = resource.get("meta") if isinstance(resource, dict) else None
    return meta.get("versionId") if isinstance(meta, dict) else None


def _is_newer(current: Any, since: float) -> bool:
    """Whether it was written after the try began. One that does not say when may have been."""
    meta = current.get("meta") if isinstance(current, dict) else None
    stated = meta.get("lastUpdated") if isinstance(meta, dict) else None
    try:
        moment = datetime.fromisoformat(stated) if isinstance(stated, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        return True
    return moment.timestamp() >= since


def matches(query: str, answer: Any) -> list[str] | None:
    """Type/id of what a search found, without what it includes; None: it was not answered.

    A search that the server refuses finds nothing: it will refuse the condition as well.
    """
    status = entry_results.status_of(answer)
    if status is not None and 400 <= status < 500 and status not in _PASSING:
        return []
    bundle = answer.get("resource") if isinstance(answer, dict) else None
    entries = bundle.get("entry", []) if isinstance(bundle, dict) else None
    if status != 200 or not isinstance(entries, list):
        return None
    kind = query.partition("?")[0]
    resources = (entry.get("resource") for entry in entries if isinstance(entry, dict))
    return [f"{kind}/{found['id']}" for found in resources if _is_match(found, kind)]


def _is_match(resource: Any, kind: str) -> TypeGuard[dict[str, Any]]:
    return (
        isinstance(resource, dict)
        and resource.get("resourceType") == kind
        and isinstance(resource.get("id"), str)
    )
