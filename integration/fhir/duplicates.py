"""Entries of one bundle that name the same resource: which are refused, and which stand. Pure.

https://hl7.org/fhir/R4/bundle.html#invs -- bdl-7: a fullUrl is unique, unless `meta.versionId`
differs. A history repeats both, and is not treated here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from integration.core import decimal_json
from integration.core.errors import Issue
from integration.fhir.entries import Entry
from integration.fhir.grammar import fold_url
from integration.fhir.json_objects import get_object
from integration.fhir.source_version import parse_version_number

_FULL_URL_TWICE = "fullUrl occurs more than once in the bundle"


def find_duplicates(entries: Sequence[Entry]) -> Iterator[Issue]:
    """Yield what a transaction must not do: https://hl7.org/fhir/R4/http.html#transaction"""
    urls = Counter(fold_url(entry.full_url) for entry in entries if entry.full_url)
    targets = Counter(entry.identity for entry in entries if entry.id)
    for entry in entries:
        if entry.full_url and urls[fold_url(entry.full_url)] > 1:
            yield Issue("duplicate", _FULL_URL_TWICE, f"{entry.where}.fullUrl")
        if entry.id and targets[entry.identity] > 1:
            text = "a transaction must not touch a resource twice"
            yield Issue("duplicate", text, f"{entry.where}.request.url")


def settle_duplicates(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries of a batch, or of a bundle without requests, by position.

    The very same write again is made once. Another version of a resource is written, the oldest
    first. Another entry of the same fullUrl is refused. A resource that is updated again gets a
    warning: the last update stands.
    """
    settled = list(entries)
    by_url: dict[str, int] = {}
    last_write: dict[str, int] = {}
    versions: dict[int, list[int]] = defaultdict(list)  # by the position of the first one
    for position, entry in enumerate(entries):
        if entry.refusal is not None or entry.same_as is not None:
            continue
        url, identity = fold_url(entry.full_url or ""), entry.identity if entry.id else None
        earlier = by_url.setdefault(url, position) if url else position
        if earlier != position:
            first = entries[earlier]
            if is_same_write(first, entry) and last_write.get(identity or "", earlier) == earlier:
                settled[position] = replace(entry, same_as=earlier)
            elif _is_other_version(first, entry):
                versions[earlier].append(position)
            else:
                issue = Issue("duplicate", _FULL_URL_TWICE, f"{entry.where}.fullUrl")
                settled[position] = replace(entry, refusal=issue)
            continue
        if identity is None:
            continue
        previous = last_write.setdefault(identity, position)
        if previous == position:
            continue
        if is_same_write(entries[previous], entry):
            settled[position] = replace(entry, same_as=previous)
            continue
        if entry.method == "PUT" == entries[previous].method:
            settled[previous] = _warn(settled[previous], entry)
        last_write[identity] = position
    for first_position, others in versions.items():
        _order_versions(settled, [first_position, *others])
    return settled


def is_same_write(first: Entry, second: Entry) -> bool:
    """Whether two entries ask for the very same, digits of decimals included. A patch that is
    applied twice may do more than once."""
    moved = replace(
        second,
        position=first.position,
        where=first.where,
        full_url=first.full_url,
        content=first.content,
        notes=first.notes,
        write_position=first.write_position,
    )
    if first.method == "PATCH" or moved != first:
        return False
    return decimal_json.encode(first.resource) == decimal_json.encode(second.resource)


def _is_other_version(first: Entry, second: Entry) -> bool:
    stated = [get_object(entry.resource, "meta").get("versionId") for entry in (first, second)]
    return (
        first.identity == second.identity is not None
        and first.method == second.method
        and None not in stated
        and stated[0] != stated[1]
    )


def _warn(entry: Entry, later: Entry) -> Entry:
    text = f"{later.where} updates the same resource: its content stands, not this one"
    note = Issue("duplicate", text, entry.where, "warning")
    return entry if note in entry.notes else replace(entry, notes=(*entry.notes, note))


def _order_versions(entries: list[Entry], positions: Sequence[int]) -> None:
    """Give versions their write positions, the oldest first if all of them are numbers."""
    stated = [get_object(entries[n].resource, "meta").get("versionId") for n in positions]
    numbers = [parse_version_number(value) for value in stated]
    known = [number for number in numbers if number is not None]
    if len(known) < len(positions) or all(a <= b for a, b in pairwise(known)):
        return
    in_order = [n for _, n in sorted(zip(known, positions, strict=True))]
    for position, n in zip(positions, in_order, strict=True):
        entries[n] = replace(entries[n], write_position=position)
