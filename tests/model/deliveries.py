"""Deliveries of every shape, and what the FHIR server holds before they come."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from hypothesis import assume
from hypothesis import strategies as st

from integration.fhir.units import Limits
from tests.model.server import Server

Body = dict[str, Any]

TYPES = ("Patient", "Observation", "Encounter")
HOME = "https://ehr.example/fhir/"

SHAPES = {
    "create": 5,
    "update": 3,
    "update known": 3,
    "delete": 2,
    "if none exist": 4,
    "conditional update": 2,
    "patch": 2,
    "conditional patch": 1,
    "conditional delete": 1,
    "read": 1,
    "search": 1,
}
# They bring no resource, so that nothing refers to them, and they to nothing.
FINDING = ("conditional patch", "conditional delete", "read", "search")

# Keys that are searched for together with a link; others are searched for alone, so that of two
# different searches no more than one can find a resource.
WITH_LINK = "with-link-"

WHOLE = {"create": 2, "update": 3, "update known": 3, "delete": 2}

REQUESTED = ("transaction", "batch")
KINDS = ("transaction", "transaction", "transaction", "batch", "batch", "collection", "history")


@dataclass(frozen=True)
class Sent:
    """What a sender sends, and the limits under which the relay has to carry it."""

    kind: str
    entries: list[Body]
    limits: Limits
    before: tuple[Body, ...]

    @property
    def body(self) -> bytes:
        """The bytes; `padding` says how long a text is, so that examples stay readable."""
        entries = [_padded(each) for each in self.entries]
        if self.ndjson:
            return b"\n".join(json.dumps(each["resource"]).encode() for each in entries)
        bundle = {"resourceType": "Bundle", "type": self.kind, "entry": entries}
        return json.dumps(bundle).encode()

    @property
    def ndjson(self) -> bool:
        return self.kind == "ndjson"

    def server(self) -> Server:
        """The FHIR server as it is before. It rewrites what it stores, as servers do."""
        server = Server(rewrites=True)
        for resource in self.before:
            server.put(f"{resource['resourceType']}/{resource['id']}", resource)
        return server


@dataclass(frozen=True)
class Corrected:
    """A delivery of which something is refused, what an operator makes of it, and a delivery that
    came after the first."""

    first: Sent
    mended: Sent
    newer: Sent


@dataclass
class _Draft:
    """An entry in the making."""

    number: int
    shape: str
    type: str
    name: str  # the id that the sender chose, or would
    full_url: str | None = None
    key: str = ""  # what a search finds it by
    refers: list[str] = field(default_factory=list)

    @property
    def identity(self) -> str:
        return f"{self.type}/{self.name}"

    @property
    def conditional(self) -> bool:
        return self.shape in ("if none exist", "conditional update")

    @property
    def searches(self) -> bool:
        return self.conditional or self.shape in ("conditional patch", "conditional delete")


def limits() -> st.SearchStrategy[Limits]:
    """Mostly so small that something has to be split."""
    counts = st.sampled_from([2, 1, 3, 2, 4, 3, 5, 500])
    sizes = st.sampled_from([28_000_000] * 6 + [2500, 1500])
    return st.builds(Limits, counts, sizes, st.sampled_from(["split"] * 9 + ["reject"]))


@st.composite
def held(draw: st.DrawFn) -> tuple[Body, ...]:
    """What is there already: some of it is found by the searches that deliveries hold."""
    found = []
    for number in range(draw(st.integers(0, 3))):
        type_ = draw(st.sampled_from(TYPES[:2]))
        body: Body = {"resourceType": type_, "id": f"known-{number}", "mark": f"before {number}"}
        body["identifier"] = [{"value": f"key-{draw(st.integers(0, 2))}"}]
        found.append(body)
    return tuple(found)


@st.composite
def sent(draw: st.DrawFn) -> Sent:
    """A delivery to a server that holds something."""
    return draw(_sent(draw(st.sampled_from((*KINDS, "ndjson"))), draw(limits()), draw(held())))


@st.composite
def two_sent(draw: st.DrawFn) -> tuple[Sent, Sent]:
    """Two deliveries, one after the other, that write some of the same resources, whole."""
    small, before, kind = draw(limits()), draw(held()), st.sampled_from((*KINDS, "ndjson"))
    first, second = (_sent(draw(kind), small, before, tag=tag, shapes=WHOLE) for tag in ("A", "B"))
    return draw(first), draw(second)


@st.composite
def corrected(draw: st.DrawFn) -> Corrected:
    """A delivery with refused entries, and what it is corrected to: they are mended, and others may
    be changed, too. No entry is left out, since what is written stays."""
    good, newer = draw(two_sent())
    numbers = [n for n, each in enumerate(good.entries) if "resource" in each]
    assume(numbers)  # else there is nothing that could be refused
    refused = draw(st.sets(st.sampled_from(numbers), min_size=1))
    changed = draw(st.sets(st.sampled_from(numbers)))
    wholesome = [_changed(each, refused=False) for each in good.entries]
    first = [
        _changed(each, refused=True) if n in refused else each for n, each in enumerate(wholesome)
    ]
    mended = [
        _changed(each, mark=f"C{n}") if n in changed else each for n, each in enumerate(wholesome)
    ]
    entries = [*newer.entries, *draw(_updates_of_the_same(good, newer))]
    return Corrected(
        replace(good, entries=first),
        replace(good, entries=mended),
        replace(newer, entries=entries),
    )


@st.composite
def _updates_of_the_same(draw: st.DrawFn, older: Sent, newer: Sent) -> list[Body]:
    """Entries by which the newer delivery writes what the older one does, too."""
    known = {_identify(each) for each in newer.entries}
    names = dict.fromkeys(_identify(each) for each in older.entries)
    shared = [name for name in names if name and name not in known]
    if not shared:
        return []
    chosen = draw(st.lists(st.sampled_from(shared), unique=True, max_size=2))
    return [_build_update(name, newer.kind, f"B-{n}") for n, name in enumerate(chosen)]


def _identify(entry: Body) -> str | None:
    """`Type/id` of what an entry writes, where its sender has chosen the id."""
    request, resource = entry.get("request", {}), entry.get("resource", {})
    if "/" in request.get("url", ""):
        return str(request["url"])
    return f"{resource['resourceType']}/{resource['id']}" if "id" in resource else None


def _build_update(name: str, kind: str, mark: str) -> Body:
    type_, _, id_ = name.partition("/")
    entry: Body = {"resource": {"resourceType": type_, "id": id_, "mark": mark}}
    if kind in (*REQUESTED, "history"):
        entry["request"] = {"method": "PUT", "url": name}
    return {**entry, "fullUrl": HOME + name} if kind == "history" else entry


def _changed(entry: Body, **elements: Any) -> Body:
    """The entry with these elements in its resource, if it has one."""
    if "resource" not in entry:
        return entry
    kept = {name: value for name, value in entry["resource"].items() if name != "refused"}
    added = {name: value for name, value in elements.items() if value is not False}
    return {**entry, "resource": {**kept, **added}}


@st.composite
def _sent(
    draw: st.DrawFn,
    kind: str,
    limits: Limits,
    before: tuple[Body, ...],
    *,
    tag: str = "",
    shapes: dict[str, int] = SHAPES,
) -> Sent:
    drafts = [draw(_draft(number, kind, shapes)) for number in range(draw(st.integers(1, 8)))]
    if kind == "transaction":
        drafts = list({draft.identity: draft for draft in drafts}.values())
    _sensible(kind, drafts, before)
    for draft in drafts:
        if draft.shape == "patch" or draft.shape in FINDING:
            continue
        for n in draw(st.lists(st.integers(0, len(drafts) - 1), max_size=2)):
            link = draw(_link(kind, draft, drafts[n]))
            if link:
                draft.refers.append(link)
        if draw(st.integers(0, 4)) == 4:
            draft.refers.append(draw(_outside()))
    bare = shapes is WHOLE
    entries = [draw(_entry(kind, draft, tag, bare)) for draft in drafts]
    _forget_versions_of_deletions(drafts, entries)
    return Sent(kind, entries, limits, before)


def _forget_versions_of_deletions(drafts: list[_Draft], entries: list[Body]) -> None:
    """A sender knows the versions that it has read. The relay announces a delete in the resource,
    so that the deletion is not the version after the one that the sender knew."""
    for draft, entry in zip(drafts, entries, strict=True):
        deleted = [each for each in drafts if each.type == draft.type and "delete" in each.shape]
        if any(each.searches or each.name == draft.name for each in deleted):
            entry.get("request", {}).pop("ifMatch", None)


def _padded(entry: Body) -> Body:
    resource = entry.get("resource", {})
    if "padding" not in resource:
        return entry
    return {**entry, "resource": {**resource, "padding": "x" * resource["padding"]}}


@st.composite
def _draft(draw: st.DrawFn, number: int, kind: str, shapes: dict[str, int]) -> _Draft:
    some = [shape for shape, share in shapes.items() for _ in range(share)]
    if kind == "transaction":  # servers refuse it there
        some = [shape for shape in some if shape != "conditional delete"]
    if kind not in REQUESTED:
        some = ["update", "update", "update known"]
        some += ["delete"] if kind == "history" else ["create", "create"]
    draft = _Draft(number, draw(st.sampled_from(some)), draw(st.sampled_from(TYPES)), "")
    once = kind == "transaction"
    draft.name = f"own-{number if once else draw(st.integers(0, 2))}"
    if draft.shape in ("update known", "delete", "patch", "read") and draw(st.integers(0, 3)):
        draft.name = f"known-{draw(st.integers(0, 2))}"
    finds = draft.searches or draft.shape == "search"
    draft.key = f"key-{draw(st.integers(0, 2))}" if finds else f"mine-{number}"
    if draft.conditional and draw(st.integers(0, 3)) == 3:
        draft.key = f"{WITH_LINK}{number}"
    if kind != "ndjson" and draft.shape not in FINDING:
        draft.full_url = draw(_full_url(draft, kind))
    return draft


def _full_url(draft: _Draft, kind: str) -> st.SearchStrategy[str | None]:
    urn = f"urn:uuid:0b6d3d3e-9c4b-4a53-8f1f-{draft.number:012x}"
    if kind == "history":
        return st.just(HOME + draft.identity)
    if draft.shape in ("update known", "delete", "update", "patch"):
        return st.sampled_from([None, urn, f"{HOME}{draft.type}/x{draft.number}"])
    oid = f"urn:oid:1.2.3.{draft.number}"
    return st.sampled_from([urn, urn, oid, f"{HOME}{draft.type}/x{draft.number}", None])


def _sensible(kind: str, drafts: list[_Draft], before: tuple[Body, ...]) -> None:
    """In a batch nothing says what a search finds that others of the batch touch, so senders with
    their wits about them leave that be. In a transaction deletes come before searches; that an
    update could come between a search and its answer is left out here, too."""
    if kind not in REQUESTED:
        return
    first = ("delete",) if kind == "transaction" else ()
    apart = (*first, "read", "search")
    plain = [draft for draft in drafts if not draft.searches and draft.shape not in apart]
    touched = {draft.identity for draft in plain}
    found = {(each["resourceType"], f"{each['resourceType']}/{each['id']}") for each in before}
    shapes: dict[tuple[str, str], str] = {}
    writers: dict[tuple[str, str], str] = {}
    for draft in drafts:
        if not draft.searches:
            continue
        if any(type_ == draft.type and identity in touched for type_, identity in found):
            draft.key = f"new-{draft.number}"
        one = shapes.setdefault((draft.type, draft.key), draft.shape)
        if kind == "batch" and one != draft.shape:
            draft.key = f"new-{draft.number}"
        # Servers refuse a condition that is updated twice in a transaction; the relay sends the
        # last update for all: tests/fhir/test_duplicates.py.
        if kind == "transaction" and draft.conditional:
            other = writers.get((draft.type, draft.key))
            if other and "conditional update" in (other, draft.shape):
                draft.key = f"new-{draft.number}"
            writers[draft.type, draft.key] = draft.shape


@st.composite
def _link(draw: st.DrawFn, kind: str, draft: _Draft, target: _Draft) -> str | None:
    """How `draft` may call `target`; None when there is no way."""
    ways = []
    url = target.full_url or ""
    if target.full_url and kind != "history":
        ways.append(url)
    if url.startswith("urn:uuid:"):
        ways.append(url.upper().replace("URN:UUID:", "urn:uuid:"))
    if url.startswith(HOME) and not target.conditional:
        ways.append(f"{url}/_history/2")
        if (draft.full_url or "").startswith(HOME):
            ways.append(url.removeprefix(HOME))
    if target.shape in ("update", "update known", "delete", "patch"):
        ways.append(target.identity)
    if ways and not target.conditional:
        ways.append(f"{ways[0]}#part")
    return draw(st.sampled_from(ways)) if ways else None


def _outside() -> st.SearchStrategy[str]:
    """Links that lead out of the bundle, into the resource, or nowhere."""
    usual = ["#inside", "Patient/known-0", "https://other.example/fhir/Patient/9", "Patient/own-9"]
    lost = ["urn:uuid:00000000-0000-4000-8000-00000000dead"]
    return st.sampled_from(usual * 4 + lost)


@st.composite
def _entry(draw: st.DrawFn, kind: str, draft: _Draft, tag: str, bare: bool) -> Body:
    mark = f"{tag}{draft.number}"
    resource: Body = {"resourceType": draft.type, "mark": mark}
    resource["identifier"] = [{"value": draft.key}]
    links = draft.refers
    if links and draw(st.integers(0, 9)) == 9 and ":" in links[-1]:
        resource["attachment"] = {"url": links[-1]}
    if links and draw(st.integers(0, 9)) == 9:
        resource["text"] = {"div": f'<div><a href="{links[0]}">x</a></div>'}
    if links:
        resource["refers"] = [{"reference": link} for link in links]
        resource["instantiatesCanonical"] = resource["note"] = links[0]
    if draw(st.integers(0, 9)) == 9:
        resource["padding"] = draw(st.sampled_from([300, 900, 3000]))
    if draw(st.integers(0, 19)) == 19:
        resource["refused"] = True
    request = draw(_request(draft, bare))
    if kind in REQUESTED:
        found: Body = {"request": request}
    elif kind == "history":
        found = {"request": {"method": request["method"], "url": draft.identity}}
    else:
        found = {}
    if request["method"] == "PATCH":
        found["resource"] = _patch(draft, mark)
    elif request["method"] in ("POST", "PUT"):
        own = draft.shape in ("update", "update known")
        found["resource"] = {**resource, "id": draft.name} if own else resource
    if draft.full_url:
        found["fullUrl"] = draft.full_url
    return found


def _patch(draft: _Draft, mark: str) -> Body:
    """https://hl7.org/fhir/R4/fhirpatch.html"""
    path = f"{draft.type}.patched"
    parts = [{"name": "type", "valueCode": "replace"}, {"name": "path", "valueString": path}]
    parts.append({"name": "value", "valueString": mark})
    return {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}


def _unread() -> st.SearchStrategy[Body]:
    """A condition of a delete, which Microsoft's server does not read."""
    return st.sampled_from([{}, {}, {}, {}, {}, {"ifMatch": 'W/"2"'}])


@st.composite
def _request(draw: st.DrawFn, draft: _Draft, bare: bool) -> Body:
    found = f"{draft.type}?identifier={draft.key}"
    if draft.shape in ("read", "search"):
        url = draft.identity if draft.shape == "read" else found
        return {"method": draw(st.sampled_from(["GET", "HEAD"])), "url": url}
    if draft.shape in ("patch", "conditional patch"):
        return {"method": "PATCH", "url": draft.identity if draft.shape == "patch" else found}
    if draft.shape in ("delete", "conditional delete"):
        url = draft.identity if draft.shape == "delete" else found
        return {"method": "DELETE", "url": url, **(draw(_unread()) if not bare else {})}
    if draft.shape in ("update", "update known"):
        request: Body = {"method": "PUT", "url": draft.identity}
        condition = 0 if bare else draw(st.integers(0, 11))
        if condition > 7:
            request["ifMatch"] = f'W/"{1 + condition % 3 // 2}"'
        elif condition == 7:
            request["ifNoneMatch"] = "*"
        return request
    request = {"method": "POST", "url": draft.type}
    if not draft.conditional:
        return request
    query = f"identifier={draft.key}"
    placeholders = [link for link in draft.refers if link.startswith("urn:") and "#" not in link]
    if placeholders and draft.key.startswith(WITH_LINK):
        link = placeholders[0]
        query += f"&refers={draw(st.sampled_from([link, quote(link, safe='')]))}"
    if draft.shape == "if none exist":
        return {**request, "ifNoneExist": query}
    return {"method": "PUT", "url": f"{draft.type}?{query}"}
