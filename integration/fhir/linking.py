"""An entry with its links following the entries that they mean. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from integration.core.errors import Issue
from integration.fhir import criteria, references
from integration.fhir.entries import Contents, Entry


@dataclass(slots=True)
class RewrittenEntry:
    """What of an entry its links change; `problem` says why it cannot be sent."""

    entry: Entry
    resource: dict[str, Any] | None
    query: str | None
    if_none_exist: str | None
    links: set[int] = field(default_factory=set)  # the entries that it refers to
    searches: set[str] = field(default_factory=set)  # types in which the server is to search
    sole: dict[tuple[str, str], None] = field(default_factory=dict)
    notes: list[Issue] = field(default_factory=list)
    problem: Issue | None = None

    @property
    def condition(self) -> str | None:
        """The search by which the server finds the resource of a conditional entry."""
        query = self.if_none_exist if self.query is None else self.query
        return f"{self.entry.type}?{query}" if self.entry.conditional else None

    def refuse(self, code: str, text: str) -> None:
        """The first reason stands."""
        self.problem = self.problem or Issue(code, text, self.entry.where)


class Linker:
    """Links the entries of one delivery; `names[position]` is what links to an entry will say."""

    def __init__(self, contents: Contents, names: Sequence[str]) -> None:
        self.contents = contents
        self.names = names
        entries = [entry for entry in contents.entries if not entry.refusal]
        self.known = references.index(entry for entry in entries if entry.linkable)
        self.criteria = known = cache(lambda: criteria.index(entries))
        # A delivery may search for the same as often as it has entries that match.
        self.matches = cache(lambda asked: _named(criteria.matching(asked, known()), names))
        # What links with a scheme mean, whoever names them: most are named again and again, above
        # all the patient and the urls of extensions.
        self.meanings: dict[str, tuple[int, str] | None] = {}

    def linked(self, entry: Entry) -> RewrittenEntry:
        """The entry with its links rewritten."""
        found = RewrittenEntry(entry, entry.resource, entry.query, entry.if_none_exist)
        if entry.method == "DELETE" and entry.query is None:
            return found

        def link(element: str, value: str) -> str:
            return self._link(found, element, value)

        # A bundle inside is kept as it is: what it says of its own entries is its own affair.
        if entry.resource is not None and entry.resource["resourceType"] != "Bundle":
            found.resource = references.relink(entry.resource, link)
        if entry.query:
            found.query = references.in_query(entry.query, link)
        if entry.if_none_exist:
            found.if_none_exist = references.in_query(entry.if_none_exist, link)
        return found

    def _link(self, found: RewrittenEntry, element: str, value: str) -> str:
        meant = self._meant(found.entry, value)
        if meant is None and element not in ("reference", "query"):
            return value
        if meant is None and element == "reference":
            search = criteria.conditional(value)
            if search:
                return self._search(found, value, *search)
        if meant is not None:
            position, suffix = meant
            conditional = self.contents.entries[position].conditional
            if conditional and element != "reference" and position != found.entry.position:
                found.refuse("not-supported", "only a Reference can point at a conditional entry")
            found.links.add(position)
            return self.names[position] + ("" if conditional else suffix)
        if value[:4].lower() == "urn:":
            self._dangling(found)
        return value

    def _meant(self, entry: Entry, value: str) -> tuple[int, str] | None:
        if value in self.meanings:
            return self.meanings[value]
        meant = references.resolve(value, entry, self.known)
        if ":" in value:  # without a scheme it may be relative to its entry
            self.meanings[value] = meant
        return meant

    def _dangling(self, found: RewrittenEntry) -> None:
        if self.contents.kind == "ndjson":
            return  # a line has no fullUrl, so nothing in it can be a placeholder
        text = "the reference names an entry that is not in the bundle"
        if self.contents.dangling == "refuse":
            found.refuse("not-found", text)
        elif not found.notes:
            text = f"{text}, and is left as it came"
            found.notes.append(Issue("not-found", text, found.entry.where, "warning"))

    def _search(self, found: RewrittenEntry, reference: str, type_: str, query: str) -> str:
        """https://hl7.org/fhir/R4/http.html#trules: a conditional reference means one match."""
        asked = criteria.search(type_, query)
        position = criteria.same_search(asked, self.criteria())
        if position is not None:
            found.links.add(position)
            return self.names[position]
        targets = self.matches(asked)
        if targets and len(targets) > 1:
            text = "a conditional reference matches more than one entry of the bundle"
            found.refuse("multiple-matches", text)
        elif targets:
            ((target, position),) = targets.items()
            found.links.add(position)
            found.sole[reference, target] = None
            return target
        if targets is None:
            found.searches.add(type_)

        def link(element: str, value: str) -> str:
            return self._link(found, element, value)

        return f"{type_}?{references.in_query(query, link)}"


def _named(matches: Sequence[int] | None, names: Sequence[str]) -> dict[str, int] | None:
    """The entries that a search finds, by what links to them will say."""
    return None if matches is None else {names[n]: n for n in reversed(matches)}
