"""Each entry as it will be sent: its id settled, its links rewritten, serialised. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from integration.core import decimal_json
from integration.core.errors import Issue
from integration.fhir import identity
from integration.fhir.entries import Contents, Entry
from integration.fhir.identity import Naming
from integration.fhir.linking import Linker, RewrittenEntry
from integration.fhir.source_version import source_version_of
from integration.fhir.units import ENVELOPE, Limits, UnitEntry


@dataclass(frozen=True, slots=True)
class Prepared:
    """An entry as it will be sent, and which others it refers to or must come after."""

    entry: Entry
    sent: UnitEntry
    after: tuple[int, ...]
    waits: frozenset[int] = frozenset()  # of these, which must be in an earlier unit
    searches: frozenset[str] = frozenset()  # the types in which its references search

    @property
    def resource(self) -> str:
        """The same for entries that are about the same resource, as far as can be seen here."""
        return self.sent.condition or self.sent.target


def prepare(
    contents: Contents, naming: Naming, limits: Limits, order: str
) -> tuple[list[Prepared], list[tuple[Entry, Issue]]]:
    """What can be sent, in the sender's order, and what cannot, with the reason."""
    speaker = _speakers(contents.entries)
    names = [_name(contents.entries[n], naming) for n in speaker]
    linker = Linker(contents, names)
    same: dict[int, list[tuple[int, str | None]]] = defaultdict(list)
    for entry in contents.entries:
        if speaker[entry.position] != entry.position:
            same[speaker[entry.position]].append((entry.position, entry.full_url))
    prepared, refused = [], []
    for entry in sorted(contents.entries, key=_turn):
        position = entry.position
        if speaker[position] != position:
            continue
        others, issue = tuple(same.get(position, ())), entry.refusal
        if issue is None:
            linked = linker.linked(entry)
            issue = linked.problem
        if issue is None:
            links = {speaker[n] for n in linked.links}
            awaits = {names[n] for n in links if contents.entries[n].conditional}
            links -= {position}
            sent = _sent(linked, names[position], awaits, others, order)
            if len(sent.body) + 1 + ENVELOPE > limits.bytes:
                issue = Issue("too-costly", "larger than the FHIR server takes", entry.where)
        if issue is not None:
            refused += [(contents.entries[n], issue) for n in (position, *(n for n, _ in others))]
            continue
        prepared.append(
            Prepared(entry, sent, tuple(sorted(links)), searches=frozenset(linked.searches))
        )
    return prepared, refused


def _speakers(entries: Sequence[Entry]) -> list[int]:
    """Which entry speaks for each: itself, or the first with the very same conditional create.

    Two of them are one resource: https://github.com/hapifhir/hapi-fhir/issues/2933
    """
    first: dict[tuple[str, str], int] = {}
    return [
        first.setdefault((entry.type, entry.if_none_exist), entry.position)
        if entry.if_none_exist
        else entry.position
        for entry in entries
    ]


def _turn(entry: Entry) -> int:
    return entry.position if entry.turn is None else entry.turn


def _name(entry: Entry, naming: Naming) -> str:
    """What links to this entry will say."""
    if entry.refusal:
        return ""
    if entry.conditional or entry.read is not None:
        return identity.placeholder(naming, entry)
    return f"{entry.type}/{entry.id or identity.new_id(naming, entry)}"


def _sent(
    linked: RewrittenEntry,
    name: str,
    awaits: set[str],
    same: tuple[tuple[int, str | None], ...],
    order: str,
) -> UnitEntry:
    entry, resource, conditional = linked.entry, linked.resource, linked.entry.conditional
    created = entry.method == "POST" and not conditional
    if created and resource is not None:
        resource = {**resource, "id": name.partition("/")[2]}
    url = name
    if conditional or entry.read is not None:
        path = entry.read or entry.type
        url = f"{path}?{linked.query}" if linked.query else path
    method = "PUT" if created else entry.method
    request = {
        "method": method,
        "url": url,
        "ifMatch": entry.if_match,
        "ifNoneMatch": entry.if_none_match,
        "ifModifiedSince": entry.if_modified_since,
        "ifNoneExist": linked.if_none_exist,
    }
    body: dict[str, object] = {"fullUrl": name} if conditional else {}
    if resource is not None:
        body["resource"] = resource
    body["request"] = {key: value for key, value in request.items() if value is not None}
    return UnitEntry(
        position=entry.position,
        where=entry.where,
        target=name,
        full_url=entry.full_url,
        method=method,
        created=created,
        awaits=tuple(sorted(awaits)),
        body=decimal_json.Raw(decimal_json.encode(body)),
        condition=linked.condition,
        source_version=None
        if created or entry.read is not None
        else source_version_of(entry, order),
        same=same,
        sole=tuple(linked.sole),
        notes=tuple(linked.notes),
    )
