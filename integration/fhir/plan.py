"""Which requests carry a delivery to the FHIR server, and in which order? Pure.

The same contents and naming give the same plan, so a message that is seen twice plans the same
work again. Creates become `PUT Type/id` with ids of ours, and every link follows; conditional
entries stay conditional, and what refers to them waits for the server's answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from integration import exact_json
from integration.errors import Issue
from integration.fhir import graph, identity, references
from integration.fhir.entries import MAX_ISSUES, Contents, Entry
from integration.fhir.identity import Naming
from integration.fhir.units import Lane, Unit, UnitEntry

# https://hl7.org/fhir/R4/http.html#trules -- DELETE, POST, PUT, then the rest
_ORDER = {"DELETE": 0, "POST": 1, "PUT": 2}

# Bytes of a bundle around its entries.
_ENVELOPE = 200


@dataclass(frozen=True, slots=True)
class Limits:
    """What the FHIR server takes in one request, and what to do with a transaction above it."""

    entries: int = 500
    bytes: int = 28_000_000
    over: str = "split"  # or reject


@dataclass(frozen=True, slots=True)
class Plan:
    """Lanes may go side by side; `refused` never go. `split`: a transaction lost its atomicity."""

    lanes: tuple[Lane, ...]
    refused: tuple[tuple[Entry, Issue], ...] = ()
    split: bool = False


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An entry as it will be sent, and which others it refers to or must come after."""

    entry: Entry
    sent: UnitEntry
    after: tuple[int, ...]


def plan(contents: Contents, naming: Naming, limits: Limits = Limits()) -> Plan:
    """Raises nothing: what cannot be sent is in `refused`."""
    atomic = contents.kind == "transaction"
    prepared, refused = _prepare(contents, naming, limits)
    if atomic and refused:
        return Plan((), _all_or_nothing(contents, refused))
    if atomic and _fits(prepared, limits):
        return Plan((Lane((_unit("transaction", prepared),)),) if prepared else ())
    if atomic and limits.over == "reject":
        return Plan((), _all_or_nothing(contents, [_over_limit(contents, limits)]))
    refused += _tangled(prepared, limits, atomic=atomic)
    if atomic and refused:
        return Plan((), _all_or_nothing(contents, refused))
    never = {entry.position for entry, _ in refused}
    nodes = {item.entry.position: item for item in prepared if item.entry.position not in never}
    groups = [[nodes[n] for n in part] for part in graph.parts(nodes, _edges(nodes))]
    lanes, split = [], False
    for bin_ in _bins(groups, limits):
        if atomic and _fits(bin_, limits):
            lanes.append(Lane((_unit("transaction", bin_),)))
        elif atomic:
            split = True
            lanes.append(Lane(tuple(_in_dependency_order(bin_, limits))))
        else:
            lanes.append(Lane(tuple(_in_levels(bin_, limits))))
    return Plan(tuple(lanes), tuple(refused), split or (atomic and len(lanes) > 1))


def _prepare(
    contents: Contents, naming: Naming, limits: Limits
) -> tuple[list[_Prepared], list[tuple[Entry, Issue]]]:
    known = references.index(entry for entry in contents.entries if not entry.refusal)
    names = [_name(entry, naming) for entry in contents.entries]
    prepared, refused = [], []
    last: dict[str, int] = {}
    for entry in contents.entries:
        issue, links, linked = entry.refusal, set[int](), entry
        if issue is None and entry.method != "DELETE":
            linked, issue = _linked(contents, entry, known, names, links)
        if issue is None:
            sent = _sent(contents, linked, names, links)
            if len(sent.body) + 1 + _ENVELOPE > limits.bytes:
                issue = Issue("too-costly", "larger than the FHIR server takes", entry.where)
        if issue is not None:
            refused.append((entry, issue))
            continue
        # The same resource again (a batch, NDJSON): later entries come after earlier ones.
        target = names[entry.position]
        after = links | ({last[target]} if target in last else set())
        last[target] = entry.position
        prepared.append(_Prepared(entry, sent, tuple(sorted(after - {entry.position}))))
    return prepared, refused


def _tangled(
    prepared: Sequence[_Prepared], limits: Limits, *, atomic: bool
) -> list[tuple[Entry, Issue]]:
    """Conditional entries that await each other, where no transaction can hold them."""
    text = "conditional entries that refer to each other need one transaction within the limits"
    return [
        (item.entry, Issue("processing", text, item.entry.where))
        for knot in _by_waiting(prepared)
        if len(knot) > 1 and not (atomic and _fits(knot, limits))
        for item in knot
    ]


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
        resource=references.relink(entry.resource or {}, link),
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
        target=name,
        full_url=entry.full_url,
        created=created,
        deletes=entry.method == "DELETE",
        awaits=tuple(
            sorted(names[n] for n in links if contents.entries[n].conditional and names[n] != name)
        ),
        body=exact_json.Raw(exact_json.encode(body)),
    )


def _all_or_nothing(
    contents: Contents, refused: Sequence[tuple[Entry, Issue]]
) -> tuple[tuple[Entry, Issue], ...]:
    """https://hl7.org/fhir/R4/http.html#transaction: one refused entry refuses them all."""
    reasons = {entry.position: issue for entry, issue in refused[:MAX_ISSUES]}
    other = Issue("processing", "not sent: another entry of the transaction was refused")
    return tuple((entry, reasons.get(entry.position, other)) for entry in contents.entries)


def _over_limit(contents: Contents, limits: Limits) -> tuple[Entry, Issue]:
    text = (
        f"the transaction is above the FHIR server's {limits.entries} entries or {limits.bytes} "
        "bytes, and OVER_LIMIT is reject"
    )
    return contents.entries[0], Issue("too-costly", text, "Bundle")


def _edges(items: Mapping[int, _Prepared]) -> dict[int, tuple[int, ...]]:
    return {
        position: tuple(n for n in item.after if n in items) for position, item in items.items()
    }


def _fits(items: Sequence[_Prepared], limits: Limits) -> bool:
    return len(items) <= limits.entries and _size(items) <= limits.bytes


def _size(items: Iterable[_Prepared]) -> int:
    return _ENVELOPE + sum(len(item.sent.body) + 1 for item in items)


def _bins(groups: Iterable[list[_Prepared]], limits: Limits) -> Iterator[list[_Prepared]]:
    """Small groups travel together, up to what one unit holds; a large one travels alone."""
    current: list[_Prepared] = []
    count, size = 0, _ENVELOPE
    for group in groups:
        group_size = _size(group)
        if current and (count + len(group) > limits.entries or size + group_size > limits.bytes):
            yield current
            current, count, size = [], 0, _ENVELOPE
        current = current + group if current else group
        count, size = count + len(group), size + group_size
    if current:
        yield current


def _in_dependency_order(items: Sequence[_Prepared], limits: Limits) -> Iterator[Unit]:
    """Units of a transaction that does not fit: deletes first, referenced before referencing;
    entries that refer to each other in a circle stay together where a unit can hold them."""
    by_position = {item.entry.position: item for item in items}
    knots = graph.knots(by_position, _edges(by_position))
    ordered = [[by_position[n] for n in knot] for knot in knots]
    ordered.sort(key=lambda knot: all(item.sent.deletes for item in knot), reverse=True)
    for bin_ in _bins(_cut(ordered, limits), limits):
        yield _unit("transaction", bin_)


def _cut(knots: Iterable[list[_Prepared]], limits: Limits) -> Iterator[list[_Prepared]]:
    for knot in knots:
        if _fits(knot, limits):
            yield knot
        else:
            yield from _by_waiting(knot)


def _in_levels(items: Sequence[_Prepared], limits: Limits) -> Iterator[Unit]:
    """Units of independent entries: what needs another's answer, or writes the same resource
    again, goes into a later unit; referenced before referencing otherwise."""
    by_position = {item.entry.position: item for item in items}
    edges = _edges(by_position)
    level: dict[int, int] = {}
    order = [
        item.entry.position
        for knot in graph.knots(by_position, edges)
        for (item,) in _by_waiting([by_position[n] for n in knot])
    ]
    for position in order:
        item = by_position[position]
        level[position] = max(
            (level.get(n, 0) + _must_wait(item, by_position[n]) for n in edges[position]),
            default=0,
        )
    ranked = sorted(order, key=level.__getitem__)
    start = 0
    for end in range(1, len(ranked) + 1):
        if end == len(ranked) or level[ranked[end]] != level[ranked[start]]:
            singles = ([by_position[n]] for n in ranked[start:end])
            for bin_ in _bins(singles, limits):
                yield _unit("batch", bin_)
            start = end


def _by_waiting(items: Sequence[_Prepared]) -> list[list[_Prepared]]:
    """What must wait, after what it waits for; together only what waits for each other."""
    by_position = {item.entry.position: item for item in items}
    edges = {
        position: [n for n in targets if _must_wait(by_position[position], by_position[n])]
        for position, targets in _edges(by_position).items()
    }
    return [[by_position[n] for n in knot] for knot in graph.knots(by_position, edges)]


def _must_wait(item: _Prepared, earlier: _Prepared) -> int:
    same = item.sent.target == earlier.sent.target
    return int(same or earlier.sent.target in item.sent.awaits)


def _unit(kind: str, items: Sequence[_Prepared]) -> Unit:
    inside = {item.sent.target for item in items} if kind == "transaction" else set()
    entries = (
        replace(item.sent, awaits=tuple(name for name in item.sent.awaits if name not in inside))
        for item in sorted(items, key=_by_method)
    )
    return Unit(kind, tuple(entries))


def _by_method(item: _Prepared) -> int:
    return _ORDER["PUT" if item.sent.created else item.entry.method]
