"""Prepare entries for sending: give ids, rewrite links, serialise. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from integration.core import decimal_json
from integration.core.errors import Issue
from integration.fhir import resource_ids, write_mark
from integration.fhir.conditions import Search, parse_search
from integration.fhir.entries import MAX_ISSUES, Contents, Entry
from integration.fhir.linking import Linker, RewrittenEntry
from integration.fhir.resource_ids import Naming
from integration.fhir.source_version import derive_source_version
from integration.fhir.units import ENVELOPE, Limits, UnitEntry

# Shared, since each empty set takes as much memory as a short entry.
_NONE: frozenset[Any] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedEntry:
    """An entry as it will be sent, and the positions of those that must be sent before it."""

    entry: Entry
    unit_entry: UnitEntry
    after: tuple[int, ...]
    waits: frozenset[int] = frozenset()  # those of `after` that must be in an earlier unit
    searches: frozenset[str] = frozenset()  # the types in which its references search

    @property
    def resource_key(self) -> str:
        """Return a key that entries of the same resource share, as far as it is known here."""
        return self.unit_entry.condition or self.unit_entry.target


def prepare(
    contents: Contents,
    naming: Naming,
    limits: Limits,
    write_order: str,
    *,
    is_correction: bool = False,
) -> tuple[list[PreparedEntry], list[tuple[Entry, Issue]]]:
    """Return the entries that can be sent, in the order of writing, and those that cannot with the
    reason. `is_correction`: what is created may be there already, by an earlier delivery."""
    canonical = _find_canonical_entries(contents)
    names = [_name_target(contents.entries[n], naming) for n in canonical]
    linker = Linker(contents, names)
    duplicates: dict[int, list[tuple[int, str | None]]] = defaultdict(list)
    for entry in contents.entries:
        if canonical[entry.position] != entry.position:
            duplicates[canonical[entry.position]].append((entry.position, entry.full_url))
    prepared, refused = [], []
    for entry in sorted(contents.entries, key=_get_write_position):
        position = entry.position
        if canonical[position] != position:
            continue
        others, issue = tuple(duplicates.get(position, ())), entry.refusal
        if issue is None:
            rewritten = linker.rewrite_entry(entry)
            if others:
                replaced = (contents.entries[n] for n, _ in others)
                rewritten.notes += _note_replaced(entry, replaced)
            issue = rewritten.problem
        if issue is None:
            links = {canonical[n] for n in rewritten.links}
            waits = {canonical[n] for n in rewritten.waits}
            awaits = {names[n] for n in links if contents.entries[n].is_conditional}
            links -= {position}
            unit_entry = _build_unit_entry(rewritten, names[position], awaits, others, write_order)
            if is_correction:
                unit_entry = replace(unit_entry, created=False)
            if len(unit_entry.body) + 1 + ENVELOPE > limits.bytes:
                issue = Issue(
                    "too-costly", "the entry is larger than the FHIR server accepts", entry.where
                )
        if issue is not None:
            refused += [(contents.entries[n], issue) for n in (position, *(n for n, _ in others))]
            continue
        prepared.append(
            PreparedEntry(
                entry=entry,
                unit_entry=unit_entry,
                after=tuple(sorted(links)),
                waits=frozenset(waits - {position}) or _NONE,
                searches=frozenset(rewritten.searches) or _NONE,
            )
        )
    return prepared, refused


def _find_canonical_entries(contents: Contents) -> list[int]:
    """Return the canonical entry of each: itself, or the one that is sent for it, since both are
    the very same write, or have the same condition.

    Two conditional entries of one condition make one resource:
    https://github.com/hapifhir/hapi-fhir/issues/2933. A batch makes updates one after the other.
    """
    atomic = contents.kind == "transaction"
    groups: dict[Search, int] = {}
    keys: dict[int, Search] = {}
    for entry in contents.entries:
        query = entry.if_none_exist
        is_update = atomic and entry.method == "PUT" and entry.query is not None
        if is_update:
            query = entry.query
        if not query:
            continue
        key = keys[entry.position] = parse_search(entry.type, query)
        groups.setdefault(key, entry.position)
        if is_update:  # the last update stands, and it creates as well
            groups[key] = entry.position
    canonical = [
        entry.position if entry.same_as is None else entry.same_as for entry in contents.entries
    ]
    for position, key in keys.items():
        canonical[position] = groups[key]
    return [canonical[n] for n in canonical]


def _note_replaced(entry: Entry, others: Iterable[Entry]) -> Iterator[Issue]:
    """Yield a warning if a conditional update is sent for others that say something else."""
    replaced = [other.where for other in others if other.content != entry.content]
    if entry.method == "PUT" and entry.query is not None and replaced:
        text = (
            f"sent for {', '.join(replaced[:MAX_ISSUES])} too, of the same condition: this stands"
        )
        yield Issue("duplicate", text, entry.where, "warning")


def _get_write_position(entry: Entry) -> int:
    return entry.position if entry.write_position is None else entry.write_position


def _name_target(entry: Entry, naming: Naming) -> str:
    """Return what a link to this entry becomes."""
    if entry.refusal:
        return ""
    if entry.is_conditional or entry.read_path is not None:
        return resource_ids.derive_placeholder(naming, entry)
    return f"{entry.type}/{entry.id or resource_ids.derive_id(naming, entry)}"


def _build_unit_entry(
    rewritten: RewrittenEntry,
    name: str,
    awaits: set[str],
    same: tuple[tuple[int, str | None], ...],
    write_order: str,
) -> UnitEntry:
    entry, resource = rewritten.entry, rewritten.resource
    is_conditional = entry.is_conditional
    created = entry.method == "POST" and not is_conditional
    if created and resource is not None:
        resource = {**resource, "id": name.partition("/")[2]}
    url = name
    if is_conditional or entry.read_path is not None:
        path = entry.read_path or entry.type
        url = f"{path}?{rewritten.query}" if rewritten.query else path
    method = "PUT" if created else entry.method
    request = {"method": method, "url": url}
    for name_of_header, value in (
        ("ifMatch", entry.if_match),
        ("ifNoneMatch", entry.if_none_match),
        ("ifModifiedSince", entry.if_modified_since),
        ("ifNoneExist", rewritten.if_none_exist),
    ):
        if value is not None:
            request[name_of_header] = value
    body: dict[str, object] = {"fullUrl": name} if is_conditional else {}
    is_marked = resource is not None and method in ("PUT", "POST")
    if resource is not None:
        body["resource"] = write_mark.add_empty_mark(resource) if is_marked else resource
    # The last member, which units.build_request relies on; nothing but fullUrl precedes `resource`.
    body["request"] = request
    serialised = decimal_json.encode(body)
    return UnitEntry(
        position=entry.position,
        where=entry.where,
        target=name,
        full_url=entry.full_url,
        method=method,
        created=created,
        awaits=tuple(sorted(awaits)),
        body=decimal_json.Raw(serialised),
        mark_at=write_mark.locate_mark(serialised) if is_marked else None,
        has_precondition=bool(entry.if_match or entry.if_none_match),
        condition=rewritten.condition,
        source_version=None
        if created or entry.read_path is not None
        else derive_source_version(entry, write_order),
        same=same,
        sole=tuple(rewritten.sole),
        notes=(*entry.notes, *rewritten.notes),
    )
