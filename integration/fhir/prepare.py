"""Each entry as it will be sent: its id settled, its links rewritten, serialised. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from integration import exact_json
from integration.errors import Issue
from integration.fhir import identity, references
from integration.fhir.entries import Contents, Entry
from integration.fhir.identity import Naming
from integration.fhir.units import ENVELOPE, Limits, UnitEntry


@dataclass(frozen=True, slots=True)
class Prepared:
    """An entry as it will be sent, and which others it refers to or must come after."""

    entry: Entry
    sent: UnitEntry
    after: tuple[int, ...]


def prepare(
    contents: Contents, naming: Naming, limits: Limits
) -> tuple[list[Prepared], list[tuple[Entry, Issue]]]:
    """What can be sent, in the sender's order, and what cannot, with the reason."""
    known = references.index(entry for entry in contents.entries if not entry.refusal)
    speaker = _speakers(contents.entries)
    names = [_name(contents.entries[n], naming) for n in speaker]
    same: dict[int, tuple[tuple[int, str | None], ...]] = defaultdict(tuple)
    for entry in contents.entries:
        if speaker[entry.position] != entry.position:
            same[speaker[entry.position]] += ((entry.position, entry.full_url),)
    prepared, refused = [], []
    last: dict[str, int] = {}
    for entry in sorted(contents.entries, key=_turn):
        if speaker[entry.position] != entry.position:
            continue
        issue, links, linked = entry.refusal, set[int](), entry
        if issue is None and entry.method != "DELETE":
            linked, issue = _linked(contents, entry, known, names, links)
        if issue is None:
            links = {speaker[n] for n in links}
            sent = replace(_sent(contents, linked, names, links), same=same[entry.position])
            if len(sent.body) + 1 + ENVELOPE > limits.bytes:
                issue = Issue("too-costly", "larger than the FHIR server takes", entry.where)
        if issue is not None:
            refused += [
                (contents.entries[n], issue)
                for n in (entry.position, *(n for n, _ in same[entry.position]))
            ]
            continue
        # The same resource again (a batch, NDJSON): later entries come after earlier ones.
        target = names[entry.position]
        after = links | ({last[target]} if target in last else set())
        last[target] = entry.position
        prepared.append(Prepared(entry, sent, tuple(sorted(after - {entry.position}))))
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
    if entry.conditional:
        return identity.placeholder(naming, entry)
    return f"{entry.type}/{entry.id or identity.new_id(naming, entry)}"


def _linked(
    contents: Contents,
    entry: Entry,
    known: references.Index,
    names: Sequence[str],
    links: set[int],
) -> tuple[Entry, Issue | None]:
    """The entry with its links rewritten, adding to `links` the entries that it refers to."""
    problems: list[Issue] = []

    def link(element: str, value: str) -> str:
        found = references.resolve(value, entry, known)
        if found is None:
            if element == "reference" and value.startswith("urn:") and contents.kind != "ndjson":
                text = "the reference names an entry that is not in the bundle"
                problems.append(Issue("not-found", text, entry.where))
            return value
        position, suffix = found
        if contents.entries[position].conditional:
            if element != "reference" and position != entry.position:
                text = "only a Reference can point at a conditional entry"
                problems.append(Issue("not-supported", text, entry.where))
            suffix = ""
        links.add(position)
        return names[position] + suffix

    linked = replace(
        entry,
        # A bundle inside is kept as it is: what it says of its own entries is its own affair.
        resource=entry.resource
        if entry.type == "Bundle"
        else references.relink(entry.resource or {}, link),
        query=entry.query and references.in_query(entry.query, link),
        if_none_exist=entry.if_none_exist and references.in_query(entry.if_none_exist, link),
    )
    return linked, problems[0] if problems else None


def _sent(contents: Contents, entry: Entry, names: Sequence[str], links: set[int]) -> UnitEntry:
    name = names[entry.position]
    conditional = entry.conditional
    created = entry.method == "POST" and not conditional
    resource = entry.resource
    if created and resource is not None:
        resource = {**resource, "id": name.partition("/")[2]}
    url = name
    if conditional:
        url = f"{entry.type}?{entry.query}" if entry.query else entry.type
    request = {
        "method": "PUT" if created else entry.method,
        "url": url,
        "ifMatch": entry.if_match,
        "ifNoneMatch": entry.if_none_match,
        "ifNoneExist": entry.if_none_exist,
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
        created=created,
        deletes=entry.method == "DELETE",
        awaits=tuple(
            sorted(names[n] for n in links if contents.entries[n].conditional and names[n] != name)
        ),
        body=exact_json.Raw(exact_json.encode(body)),
    )
