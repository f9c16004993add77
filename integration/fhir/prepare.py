"""Prepare entries for sending: give ids, rewrite links, serialise. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from integration.core import decimal_json
from integration.core.errors import Issue
from integration.fhir import resource_ids, write_mark
from integration.fhir.entries import Contents, Entry
from integration.fhir.linking import Linker, RewrittenEntry
from integration.fhir.resource_ids import Naming
from integration.fhir.source_version import derive_source_version
from integration.fhir.units import ENVELOPE, Limits, UnitEntry


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
    contents: Contents, naming: Naming, limits: Limits, write_order: str
) -> tuple[list[PreparedEntry], list[tuple[Entry, Issue]]]:
    """Return the entries that can be sent, in the order of writing, and those that cannot with the
    reason."""
    canonical = _find_canonical_entries(contents.entries)
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
            issue = rewritten.problem
        if issue is None:
            links = {canonical[n] for n in rewritten.links}
            awaits = {names[n] for n in links if contents.entries[n].is_conditional}
            links -= {position}
            unit_entry = _build_unit_entry(rewritten, names[position], awaits, others, write_order)
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
                searches=frozenset(rewritten.searches),
            )
        )
    return prepared, refused


def _find_canonical_entries(entries: Sequence[Entry]) -> list[int]:
    """Return the canonical entry of each: itself, or the first with the same conditional create.

    Two of them create one resource: https://github.com/hapifhir/hapi-fhir/issues/2933
    """
    first: dict[tuple[str, str], int] = {}
    return [
        first.setdefault((entry.type, entry.if_none_exist), entry.position)
        if entry.if_none_exist
        else entry.position
        for entry in entries
    ]


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
    request = {
        "method": method,
        "url": url,
        "ifMatch": entry.if_match,
        "ifNoneMatch": entry.if_none_match,
        "ifModifiedSince": entry.if_modified_since,
        "ifNoneExist": rewritten.if_none_exist,
    }
    body: dict[str, object] = {"fullUrl": name} if is_conditional else {}
    is_marked = resource is not None and method in ("PUT", "POST")
    if resource is not None:
        body["resource"] = write_mark.add_empty_mark(resource) if is_marked else resource
    # The last member, which units.build_request relies on.
    body["request"] = {key: value for key, value in request.items() if value is not None}
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
        digest=write_mark.compute_digest(serialised) if is_marked else "",
        has_precondition=bool(entry.if_match or entry.if_none_match),
        condition=rewritten.condition,
        source_version=None
        if created or entry.read_path is not None
        else derive_source_version(entry, write_order),
        same=same,
        sole=tuple(rewritten.sole),
        notes=tuple(rewritten.notes),
    )
