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
        return f"{self.entry.type}?{query}" if self.entry.is_conditional else None

    def refuse(self, code: str, text: str) -> None:
        """The first reason stands."""
        self.problem = self.problem or Issue(code, text, self.entry.where)


class Linker:
    """Links the entries of one delivery; `names[position]` is what links to an entry will say."""

    def __init__(self, contents: Contents, names: Sequence[str]) -> None:
        self.contents = contents
        self.names = names
        entries = [entry for entry in contents.entries if not entry.refusal]
        self.link_index = references.build_index(entry for entry in entries if entry.is_linkable)
        self.get_search_index = known = cache(lambda: criteria.build_index(entries))
        # A delivery may search for the same as often as it has entries that match.
        self.find_matches = cache(
            lambda asked: _name_matches(criteria.find_matches(asked, known()), names)
        )
        # What links with a scheme mean, whoever names them: most are named again and again, above
        # all the patient and the urls of extensions.
        self.resolved_links: dict[str, tuple[int, str] | None] = {}

    def rewrite_entry(self, entry: Entry) -> RewrittenEntry:
        """The entry with its links rewritten."""
        rewritten = RewrittenEntry(entry, entry.resource, entry.query, entry.if_none_exist)
        if entry.method == "DELETE" and entry.query is None:
            return rewritten

        def rewrite_link(element: str, value: str) -> str:
            return self._rewrite_link(rewritten, element, value)

        # A bundle inside is kept as it is: what it says of its own entries is its own affair.
        if entry.resource is not None and entry.resource["resourceType"] != "Bundle":
            rewritten.resource = references.rewrite_resource(entry.resource, rewrite_link)
        if entry.query:
            rewritten.query = references.rewrite_query(entry.query, rewrite_link)
        if entry.if_none_exist:
            rewritten.if_none_exist = references.rewrite_query(entry.if_none_exist, rewrite_link)
        return rewritten

    def _rewrite_link(self, rewritten: RewrittenEntry, element: str, value: str) -> str:
        target = self._resolve(rewritten.entry, value)
        if target is None and element not in ("reference", "query"):
            return value
        if target is None and element == "reference":
            search = criteria.parse_reference(value)
            if search:
                return self._rewrite_conditional(rewritten, value, *search)
        if target is not None:
            position, suffix = target
            is_conditional = self.contents.entries[position].is_conditional
            if is_conditional and element != "reference" and position != rewritten.entry.position:
                rewritten.refuse(
                    "not-supported", "only a Reference can point at a conditional entry"
                )
            rewritten.links.add(position)
            return self.names[position] + ("" if is_conditional else suffix)
        if value[:4].lower() == "urn:":
            self._report_dangling(rewritten)
        return value

    def _resolve(self, entry: Entry, value: str) -> tuple[int, str] | None:
        if value in self.resolved_links:
            return self.resolved_links[value]
        target = references.resolve(value, entry, self.link_index)
        if ":" in value:  # without a scheme it may be relative to its entry
            self.resolved_links[value] = target
        return target

    def _report_dangling(self, rewritten: RewrittenEntry) -> None:
        if self.contents.kind == "ndjson":
            return  # a line has no fullUrl, so nothing in it can be a placeholder
        text = "the reference names an entry that is not in the bundle"
        if self.contents.dangling == "refuse":
            rewritten.refuse("not-found", text)
        elif not rewritten.notes:
            text = f"{text}, and is left as it came"
            rewritten.notes.append(Issue("not-found", text, rewritten.entry.where, "warning"))

    def _rewrite_conditional(
        self, rewritten: RewrittenEntry, reference: str, type_: str, query: str
    ) -> str:
        """https://hl7.org/fhir/R4/http.html#trules: a conditional reference means one match."""
        search = criteria.parse_search(type_, query)
        position = criteria.find_same_search(search, self.get_search_index())
        if position is not None:
            rewritten.links.add(position)
            return self.names[position]
        targets = self.find_matches(search)
        if targets and len(targets) > 1:
            text = "a conditional reference matches more than one entry of the bundle"
            rewritten.refuse("multiple-matches", text)
        elif targets:
            ((target, position),) = targets.items()
            rewritten.links.add(position)
            rewritten.sole[reference, target] = None
            return target
        if targets is None:
            rewritten.searches.add(type_)

        def rewrite_link(element: str, value: str) -> str:
            return self._rewrite_link(rewritten, element, value)

        return f"{type_}?{references.rewrite_query(query, rewrite_link)}"


def _name_matches(matches: Sequence[int] | None, names: Sequence[str]) -> dict[str, int] | None:
    """The entries that a search finds, by what links to them will say."""
    return None if matches is None else {names[n]: n for n in reversed(matches)}
