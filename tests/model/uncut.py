"""A whole delivery done at once, as if the FHIR server had no limits: what ought to come out.

Where the specification leaves a delivery to the receiver, docs/route.md is followed: resources
without requests are written by their own identity, the oldest version first, and links between the
entries of a batch are followed, although nothing holds the entries together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.model.links import entry_named, links_of, replaced, suffix_of, with_searches
from tests.model.server import TWICE, Refused, Server

Body = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """A delivery as requests, in the sender's order; `turns`: the order in which they are meant."""

    kind: str
    entries: tuple[Body, ...]
    turns: tuple[int, ...]

    @property
    def atomic(self) -> bool:
        return self.kind == "transaction"


def asked(body: bytes, ndjson: bool = False) -> Asked:
    """What a delivery asks for."""
    if ndjson:
        lines = [_kept({"resource": json.loads(line)}) for line in body.splitlines()]
        return Asked("ndjson", tuple(lines), tuple(range(len(lines))))
    bundle = json.loads(body)
    kind, entries = bundle["type"], bundle["entry"]
    turns: Sequence[int] = range(len(entries))
    if kind == "history":
        # Newest first: https://hl7.org/fhir/R4/http.html#history
        return Asked(kind, tuple(_version(each) for each in entries), tuple(reversed(turns)))
    if kind not in ("batch", "transaction"):
        entries = [_kept(each) for each in entries]
    if kind == "batch":
        turns = sorted(turns, key=lambda n: _batch_rank(entries[n]))
    return Asked(kind, tuple(entries), tuple(turns))


@dataclass(frozen=True)
class End:
    """The status of each entry; `twice`: refused, because searches led to one resource twice."""

    statuses: list[int]
    twice: bool = False

    @property
    def failed(self) -> bool:
        return any(status >= 300 for status in self.statuses)


def done(server: Server, wanted: Asked, left_out: frozenset[int] = frozenset()) -> End:
    """Do it; the end of it. `left_out` are refused without being tried."""
    if wanted.atomic and left_out:
        return End([422] * len(wanted.entries))
    if not wanted.atomic:
        return End(_each(server, wanted, left_out))
    try:
        said = server.transaction(wanted.entries)
    except Refused as refused:
        return End([refused.status] * len(wanted.entries), twice=str(refused) == TWICE)
    return End([int(each["response"]["status"]) for each in said])


def conditional(entry: Body) -> bool:
    """Only the server can say which resource it is."""
    request = entry["request"]
    writes = request["method"] not in ("GET", "HEAD")
    return "ifNoneExist" in request or (writes and "?" in request["url"])


def targets(wanted: Asked, n: int) -> set[int]:
    """The entries that entry n refers to, in its resource and its searches."""
    entry = wanted.entries[n]
    found: list[str] = links_of(entry.get("resource", {}))

    def seen(link: str) -> str:
        found.append(link)
        return link

    with_searches(entry, seen)
    named = {entry_named(link, entry, wanted.entries) for link in found}
    return {each for each in named if each is not None}


def _batch_rank(entry: Body) -> int:
    """What finds and deletes comes first, what finds and patches last, then what reads."""
    request = entry["request"]
    if request["method"] in ("GET", "HEAD"):
        return 3
    return {"DELETE": 0, "PATCH": 2}.get(request["method"], 1) if "?" in request["url"] else 1


def _kept(entry: Body) -> Body:
    resource = entry["resource"]
    url = resource["resourceType"]
    request = {"method": "POST", "url": url}
    if "id" in resource:
        request = {"method": "PUT", "url": f"{url}/{resource['id']}"}
    return {**entry, "request": request}


def _version(entry: Body) -> Body:
    if entry["request"]["method"] == "DELETE":
        return entry
    return _kept({name: value for name, value in entry.items() if name != "request"})


def _each(server: Server, wanted: Asked, left_out: frozenset[int]) -> list[int]:
    """Each for itself, but after those that only the server can name and that it refers to, and
    after those with the same search that come before it."""
    entries = wanted.entries
    status: dict[int, int] = dict.fromkeys(left_out, 422)
    names = {n: server.decided(each) for n, each in enumerate(entries) if not conditional(each)}
    speaker = speakers(wanted)
    before = _list_before(wanted)
    open_: set[int] = set()  # in a circle, which only a transaction can have, names come first

    def run(n: int) -> int:
        if n in status:
            return status[n]
        if speaker[n] != n:
            status[n] = 200 if run(speaker[n]) < 300 else run(speaker[n])
            names[n] = names.get(speaker[n], "")
            return status[n]
        open_.add(n)
        for m in before[n]:
            if m not in open_:
                run(m)
        named = {m for m in targets(wanted, n) if conditional(entries[m]) and speaker[m] != n}
        for m in named & open_ - status.keys():
            names[m] = names.get(m) or server.decided(entries[m])
        named -= open_ - status.keys()
        if any(run(m) >= 300 for m in sorted(named)):
            status[n] = 424
            return 424
        entry = with_searches(entries[n], lambda link: linked(link, n))
        try:
            names.setdefault(n, "")
            names[n] = names[n] or server.decided(entry)
            if "resource" in entry:
                resource = replaced(entry["resource"], lambda link: linked(link, n))
                entry = {**entry, "resource": resource}
            status[n] = int(server.done(entry, names[n])["response"]["status"])
        except Refused as refused:
            status[n] = refused.status
        return status[n]

    def linked(link: str, n: int) -> str:
        target = entry_named(link, entries[n], entries)
        if target is None:
            return link
        return names.get(speaker[target], "nowhere") + suffix_of(link, entries[target])

    for n in wanted.turns:
        run(n)
    return [status[n] for n in range(len(entries))]


def _list_before(wanted: Asked) -> list[list[int]]:
    """The entries with the same search that come before each."""
    before: list[list[int]] = [[] for _ in wanted.entries]
    same: dict[str, list[int]] = {}
    for n in wanted.turns:
        request = wanted.entries[n]["request"]
        if conditional(wanted.entries[n]):
            search = request["url"]
            if "ifNoneExist" in request:
                search += f"?{request['ifNoneExist']}"
            before[n] = list(same.setdefault(search, []))
            same[search].append(n)
    return before


def speakers(wanted: Asked) -> list[int]:
    """Which entry speaks for each: itself, or the first with the very same conditional create."""
    first: dict[tuple[str, str], int] = {}
    requests = [(n, each["request"]) for n, each in enumerate(wanted.entries)]
    return [
        first.setdefault((request["url"], request["ifNoneExist"]), n)
        if "ifNoneExist" in request
        else n
        for n, request in requests
    ]


def circles(wanted: Asked) -> frozenset[int]:
    """Conditional entries that wait for themselves, by way of conditional entries alone."""
    speaker = speakers(wanted)
    waits = {
        n: {speaker[m] for m in targets(wanted, n) if conditional(wanted.entries[m])}
        for n in set(speaker)
    }

    def reach(n: int) -> set[int]:
        seen, left = set[int](), [n]
        while left:
            fresh = waits[left.pop()] - seen
            seen |= fresh
            left.extend(fresh)
        return seen

    return frozenset(n for n, each in enumerate(speaker) if each in reach(each))


def done_in_part(server: Server, wanted: Asked, part: frozenset[int]) -> None:
    """Some entries of a transaction, each for itself; links to the others lead nowhere."""
    alone = Asked("batch", wanted.entries, _as_a_transaction(wanted))
    _each(server, alone, frozenset(range(len(wanted.entries))) - part)


def _as_a_transaction(wanted: Asked) -> tuple[int, ...]:
    rank = {"DELETE": 0, "POST": 1}
    methods = [each["request"]["method"] for each in wanted.entries]
    return tuple(sorted(wanted.turns, key=lambda n: rank.get(methods[n], 2)))
