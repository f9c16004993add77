"""What a correction takes over from the delivery that it corrects. Pure.

A correction has the key of that delivery, so an entry with the same `fullUrl`, or at the same
place, is the same resource. What was written, and is in the correction as it was, is not sent
again. What differs replaces only what the corrected delivery has left there: its version is the
base, so that a change by anybody else since is found by the history, as at a retry
(`write_decisions`).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from integration.core import decimal_json
from integration.core.errors import Issue
from integration.core.model import ALL_RIGHTS, DeliveryRequest, EntryResult
from integration.fhir import bundle, entry_results, operation_outcome
from integration.fhir.entries import Contents, Entry
from integration.fhir.units import UnitEntry
from integration.fhir.write_decisions import (
    ABSENT,
    build_superseded_result,
    tells_other_version,
)

_TAKEN_OVER = Issue(
    "informational",
    "as in the delivery that this one corrects, which has written it; not sent again",
    severity="information",
)

_DELETED_SINCE = Issue(
    "conflict",
    "superseded: a later entry of this delivery deletes the resource, which the delivery that this "
    "one corrects has done",
    severity="warning",
)

# Where entries write the same resource, as far as it is known: target and condition.
_Place = tuple[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected:
    """The delivery that is corrected: its entries that could be sent, in the order of writing,
    their results by position, and the versions that they found at their first attempt."""

    entries: Sequence[UnitEntry] = ()
    results: Mapping[int, EntryResult] = field(default_factory=dict)
    bases: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TakenOver:
    """`results`: of the entries that are not sent; `bases`: of the others, by position."""

    results: tuple[EntryResult, ...]
    bases: Mapping[int, str]


def take_over(
    corrected: Corrected, entries: Sequence[UnitEntry], created: frozenset[int]
) -> TakenOver:
    """Return what a correction takes over. `entries`: its own, in the order of writing; `created`:
    the positions of those whose id is derived from the key of the delivery."""
    pairs = _pair(corrected.entries, entries)
    deleted = _find_deleted(corrected, entries, pairs)
    others = [entry for entry in entries if entry.position not in deleted]
    kept = _find_kept(corrected, others, pairs)
    results: list[EntryResult] = []
    bases: dict[int, str] = {}
    for entry in entries:
        before = pairs.get(entry.position)
        if entry.position in deleted:
            results += _settle_deleted(corrected, before, entry)
            continue
        if entry.position in kept and before is not None:
            results += _copy_result(entry, corrected.results[before.position])
            continue
        base = _find_base(corrected, before) if before is not None else None
        if base is None and entry.position in created:
            base = ABSENT  # nobody but the corrected delivery could make it
        if base is not None:
            bases[entry.position] = base
    return TakenOver(tuple(results), bases)


def read_corrected(body: bytes, request: DeliveryRequest) -> Contents:
    """Parse a delivery that is corrected, with all that may have been sent of it, whatever its
    sender may do now. Raises Rejected."""
    policy = replace(request.policy, validate=False, dangling="note")
    return bundle.read(body, replace(request, rights=ALL_RIGHTS, policy=policy))


def list_moved(before: Contents, after: Contents, refused: Collection[int]) -> Iterator[Entry]:
    """Yield the entries of a delivery whose resource a correction would take for another one: they
    were written, or may have been, have an id by their place, and have it no more.

    `refused`: the positions of entries of which it is known that they were not written.
    """
    digests = {entry.position: _compute_digest(entry) for entry in after.entries}
    everywhere = {*digests.values()}
    for entry in before.entries:
        if entry.position in refused or not _is_named_by_place(entry):
            continue
        counterpart = after.entries[entry.position] if entry.position < len(after.entries) else None
        if (
            counterpart is None
            or not _is_named_by_place(counterpart)
            or counterpart.type != entry.type
        ):
            yield entry
            continue
        digest = _compute_digest(entry)
        if digests[entry.position] != digest and digest in everywhere:
            yield entry


def is_created(entry: Entry) -> bool:
    """Whether the id of its resource is derived from the delivery."""
    return entry.method == "POST" and not entry.is_conditional and not entry.refusal


def _compute_digest(entry: Entry) -> bytes | None:
    """Return a digest of a resource that is created without `fullUrl`."""
    if not _is_named_by_place(entry) or entry.content is None:
        return None
    return hashlib.sha256(decimal_json.encode(entry.resource)).digest()


def _is_named_by_place(entry: Entry) -> bool:
    return is_created(entry) and not entry.full_url


def _get_place(entry: UnitEntry) -> _Place:
    return entry.target, entry.condition


def _pair(before: Sequence[UnitEntry], after: Sequence[UnitEntry]) -> dict[int, UnitEntry]:
    """Return by position the entry that each one corrects: that of the same resource; of several,
    the first is the first."""
    places: dict[_Place, list[UnitEntry]] = defaultdict(list)
    for entry in before:
        if not entry.is_read:
            places[_get_place(entry)].append(entry)
    waiting = {place: iter(entries) for place, entries in places.items()}
    pairs = {}
    for entry in after:
        found = None if entry.is_read else next(waiting.get(_get_place(entry), iter(())), None)
        if found is not None:
            pairs[entry.position] = found
    return pairs


def _find_deleted(
    corrected: Corrected, entries: Sequence[UnitEntry], pairs: Mapping[int, UnitEntry]
) -> set[int]:
    """Return the positions of what need not be sent, since a later entry of the correction deletes
    the resource, and the corrected delivery has done that. To send it would bring the resource
    back: a delete that was done is not done again."""
    deleted: set[int] = set()
    gone: set[str] = set()
    for entry in reversed(entries):
        before = pairs.get(entry.position)
        result = corrected.results.get(before.position) if before is not None else None
        if entry.method == "DELETE":
            if before is not None and result is not None and _is_done(before, entry, result):
                gone.add(entry.target)
        elif entry.target in gone and not entry.is_read:
            deleted.add(entry.position)
    return deleted


def _settle_deleted(
    corrected: Corrected, before: UnitEntry | None, entry: UnitEntry
) -> Iterator[EntryResult]:
    """Yield the results of what is not sent, since the resource was deleted after it: what was done
    stays done."""
    known = corrected.results.get(before.position) if before is not None else None
    if (
        before is not None
        and known is not None
        and (known.superseded or _is_done(before, entry, known))
    ):
        yield from _copy_result(entry, known)
        return
    result = build_superseded_result(entry, entry.target, _DELETED_SINCE)
    for position, full_url in ((entry.position, entry.full_url), *entry.same):
        yield replace(result, position=position, full_url=full_url)


def _is_done(before: UnitEntry, after: UnitEntry, result: EntryResult) -> bool:
    return result.is_written and not result.superseded and _is_same(before, after)


def _find_kept(
    corrected: Corrected, entries: Sequence[UnitEntry], pairs: Mapping[int, UnitEntry]
) -> set[int]:
    """Return the positions of what is not sent again. A link may lead elsewhere by now, so what it
    leads to must be kept too; and of several writes of one resource the later ones follow those
    before them."""
    superseded, kept = set(), set()
    for entry in entries:
        before = pairs.get(entry.position)
        result = corrected.results.get(before.position) if before is not None else None
        if before is None or result is None:
            continue
        if result.superseded:
            superseded.add(entry.position)
        elif result.is_written and _is_same(before, entry):
            kept.add(entry.position)
    while moved := _find_moved(entries, kept, kept | superseded):
        kept -= moved
    return kept | superseded


def _find_moved(entries: Sequence[UnitEntry], kept: set[int], all_kept: set[int]) -> set[int]:
    """Return those of `kept` that are to be sent, since something that they depend on is."""
    sent = {entry.target for entry in entries if entry.position not in all_kept}
    sent_before: set[str] = set()
    moved = set()
    for entry in entries:
        if entry.position not in all_kept:
            sent_before.add(entry.target)
        elif entry.position in kept and (
            entry.target in sent_before or sent.intersection(entry.awaits)
        ):
            moved.add(entry.position)
    return moved


def _is_same(before: UnitEntry, after: UnitEntry) -> bool:
    return before.method == after.method and before.body == after.body


def _find_base(corrected: Corrected, before: UnitEntry) -> str | None:
    """Return the version that a corrected entry has left, else the one that it found."""
    result = corrected.results.get(before.position)
    if result is not None and result.is_written and not tells_other_version(result):
        version = entry_results.get_version(result.etag)
        if version and before.method != "DELETE":
            return version
    known = corrected.bases.get(before.position)
    if known is None and result is not None and result.is_written:
        return ABSENT  # all that has happened to it counts
    return known


def _copy_result(entry: UnitEntry, result: EntryResult) -> Iterator[EntryResult]:
    issues = result.issues
    if not result.superseded:
        note = operation_outcome.as_json(_TAKEN_OVER)
        issues = [*(issue for issue in issues or () if issue != note), note]
    for position, full_url in ((entry.position, entry.full_url), *entry.same):
        yield replace(
            result,
            position=position,
            full_url=full_url,
            issues=issues,
            unit=None,
            queued=None,
            skipped=result.is_written,
            round=0,
        )
