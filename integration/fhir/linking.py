"""Rewrite the links of entries, so that they point at the resources that are written. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from integration.core.errors import Issue
from integration.core.model import FhirResource
from integration.fhir import conditional_references, references
from integration.fhir.entries import Contents, Entry


@dataclass(slots=True, kw_only=True)
class RewrittenEntry:
    """The parts of an entry that may hold links. `problem` says why it cannot be sent."""

    entry: Entry
    resource: FhirResource | None
    query: str | None
    if_none_exist: str | None
    links: set[int] = field(default_factory=set)  # the entries that it refers to
    searches: set[str] = field(default_factory=set)  # types in which the server is to search
    sole: dict[tuple[str, str], None] = field(default_factory=dict)  # see UnitEntry.sole
    notes: list[Issue] = field(default_factory=list)
    problem: Issue | None = None

    @property
    def condition(self) -> str | None:
        """Return the search by which the server finds the resource of a conditional entry."""
        query = self.if_none_exist if self.query is None else self.query
        return f"{self.entry.type}?{query}" if self.entry.is_conditional else None

    def refuse(self, code: str, text: str) -> None:
        """Set the problem, unless there is an earlier one."""
        self.problem = self.problem or Issue(code, text, self.entry.where)


class Linker:
    """Rewrites the links of one delivery's entries. `names[position]` is what a link to the entry
    becomes: its Type/id, or a placeholder."""

    def __init__(self, contents: Contents, names: Sequence[str]) -> None:
        self.contents = contents
        self.names = names
        entries = [entry for entry in contents.entries if not entry.refusal]
        self.link_index = references.build_index(entry for entry in entries if entry.is_linkable)
        get_index = cache(lambda: conditional_references.build_index(entries))
        self.get_search_index = get_index
        # Cached: a delivery may hold the same search once for each entry that matches. Without a
        # reference to the linker, which would keep a whole delivery in memory until a collection.
        self.find_matches = cache(lambda search: _find_matches(search, get_index(), names))
        # Links with a scheme point at the same entry wherever they stand, and most occur again and
        # again: the patient, and the urls of extensions.
        self.resolved_links: dict[str, tuple[int, str] | None] = {}

    def rewrite_entry(self, entry: Entry) -> RewrittenEntry:
        """Return the entry with its links rewritten."""
        rewritten = RewrittenEntry(
            entry=entry,
            resource=entry.resource,
            query=entry.query,
            if_none_exist=entry.if_none_exist,
        )
        if entry.method == "DELETE" and entry.query is None:
            return rewritten

        def rewrite_link(element: str, value: str) -> str:
            return self._rewrite_link(rewritten, element, value)

        # A bundle inside stays as it is: its links mean its own entries.
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
            search = conditional_references.parse_reference(value)
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
            text = f"{text}; it is sent unchanged"
            rewritten.notes.append(Issue("not-found", text, rewritten.entry.where, "warning"))

    def _rewrite_conditional(
        self, rewritten: RewrittenEntry, reference: str, type_: str, query: str
    ) -> str:
        """Rewrite `Type?query`, which means the one match of its search:
        https://hl7.org/fhir/R4/http.html#trules"""
        search = conditional_references.parse_search(type_, query)
        position = conditional_references.find_same_search(search, self.get_search_index())
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


def _find_matches(
    search: conditional_references.Search,
    index: conditional_references.SearchIndex,
    names: Sequence[str],
) -> dict[str, int] | None:
    """Return the positions of the entries that a search finds, by their names."""
    positions = conditional_references.find_matches(search, index)
    return None if positions is None else {names[n]: n for n in reversed(positions)}
