"""Rewrite the links of entries, so that they point at the resources that are written. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from integration.core.errors import Issue
from integration.core.model import FhirResource
from integration.fhir import conditional_references, references
from integration.fhir.conditions import Search, canonicalize_condition, parse_search
from integration.fhir.entries import Contents, Entry
from integration.fhir.references import ResolvedLink

# Bundles that ask for something to be done: https://hl7.org/fhir/R4/bundle.html
_TO_PROCESS = ("transaction", "batch")

# Where a link stands in a search: in a condition, or in a conditional reference.
_QUERIES = ("request.url", "request.ifNoneExist", "query")

# Where a placeholder that names no entry is no text of the sender, but an error.
_REPORTED = frozenset({"reference", *_QUERIES})


@dataclass(slots=True, kw_only=True)
class RewrittenEntry:
    """The parts of an entry that may hold links. `problem` says why it cannot be sent."""

    entry: Entry
    resource: FhirResource | None
    query: str | None
    if_none_exist: str | None
    links: set[int] = field(default_factory=set)  # the entries that it refers to
    waits: set[int] = field(default_factory=set)  # those of them that must be sent in earlier units
    searches: set[str] = field(default_factory=set)  # types in which the server is to search
    sole: dict[tuple[str, str], None] = field(default_factory=dict)  # see UnitEntry.sole
    notes: list[Issue] = field(default_factory=list)
    problem: Issue | None = None

    @property
    def condition(self) -> str | None:
        """Return the search by which the server finds the resource of a conditional entry."""
        query = self.if_none_exist if self.query is None else self.query
        if not self.entry.is_conditional:
            return None
        return canonicalize_condition(f"{self.entry.type}?{query}")

    def refuse(self, code: str, text: str, element: str = "") -> None:
        """Set the problem, unless there is an earlier one. `element`: its path below the entry."""
        where = f"{self.entry.where}.{element}" if element else self.entry.where
        self.problem = self.problem or Issue(code, text, where)

    def note(self, code: str, text: str, severity: str = "warning") -> None:
        """Add a note on the entry, once."""
        issue = Issue(code, text, self.entry.where, severity)
        if issue not in self.notes:
            self.notes.append(issue)


class Linker:
    """Rewrites the links of one delivery's entries. `names[position]` is what a link to the entry
    becomes: its Type/id, or a placeholder."""

    def __init__(self, contents: Contents, names: Sequence[str]) -> None:
        self.contents = contents
        self.names = names
        entries = [entry for entry in contents.entries if not entry.refusal]
        # Refused entries too: what refers to one must not get to another resource.
        self.link_index = references.build_index(
            (entry for entry in contents.entries if entry.is_linkable),
            [
                _name_refused(entry) if entry.refusal else names[entry.position]
                for entry in contents.entries
            ],
        )
        get_index = cache(lambda: conditional_references.build_index(entries))
        self.get_search_index = get_index
        # Cached: a delivery may hold the same search once for each entry that matches. Without a
        # reference to the linker, which would keep a whole delivery in memory until a collection.
        self.find_matches = cache(lambda search: _find_matches(search, get_index(), names))
        # Links with a scheme become the same wherever they stand, and most occur again and again:
        # the patient, and the urls of extensions. By link: its entry, if any, and what it becomes.
        self.known_links: dict[str, tuple[int | None, str]] = {}

    def rewrite_entry(self, entry: Entry) -> RewrittenEntry:
        """Return the entry with its links rewritten."""
        resource = entry.resource
        rewritten = RewrittenEntry(
            entry=entry,
            resource=resource,
            query=entry.query,
            if_none_exist=entry.if_none_exist,
        )
        if entry.method == "DELETE" and entry.query is None:
            return rewritten

        known_links, links = self.known_links, rewritten.links

        def rewrite_link(element: str, value: str) -> str:
            known = known_links.get(value)
            if known is None:
                return self._rewrite_link(rewritten, element, value)
            position, name = known
            if position is None:
                return value
            links.add(position)
            return name

        # A bundle inside stays as it is: its links mean its own entries.
        if resource is not None and resource["resourceType"] != "Bundle":
            rewritten.resource = references.rewrite_resource(resource, rewrite_link)
        elif resource is not None and resource.get("type") in _TO_PROCESS:
            text = (
                "this bundle is stored as a document, and its entries are not processed: to have "
            )
            rewritten.note("informational", f"{text}them processed, post it to /api/fhir itself")
        if entry.query:
            rewritten.query = self._rewrite_query(rewritten, "request.url", entry.query)
        if entry.if_none_exist:
            condition = entry.if_none_exist
            rewritten.if_none_exist = self._rewrite_query(
                rewritten, "request.ifNoneExist", condition
            )
        return rewritten

    def _rewrite_query(self, rewritten: RewrittenEntry, element: str, query: str) -> str:
        return references.rewrite_query(
            query, lambda _, value: self._rewrite_link(rewritten, element, value)
        )

    def _rewrite_link(self, rewritten: RewrittenEntry, element: str, value: str) -> str:
        target = references.resolve(value, rewritten.entry, self.link_index)
        if target is not None:
            return self._rewrite_target(rewritten, element, value, target)
        if element == "reference":
            search = conditional_references.parse_reference(value)
            if search:
                return self._rewrite_conditional(rewritten, value, *search)
        if element in _REPORTED and value[:4].lower() == "urn:":
            self._report_dangling(
                rewritten, "the reference names an entry that is not in the bundle"
            )
        elif value.startswith("http"):
            self.known_links[value] = (None, value)
        return value

    def _rewrite_target(
        self, rewritten: RewrittenEntry, element: str, value: str, target: ResolvedLink
    ) -> str:
        """Return what a link to an entry of the delivery becomes."""
        positions, version, fragment = target
        if len(positions) > 1:
            places = " or ".join(self.contents.entries[n].where for n in positions)
            text = f"a reference can mean {places}: use their fullUrl"
            rewritten.refuse("multiple-matches", text)
            return value
        position = positions[0]
        entry = self.contents.entries[position]
        if entry.refusal is not None:
            if value[:4].lower() == "urn:":
                text = f"the reference names {entry.where}, which is refused"
                self._report_dangling(rewritten, text)
            elif _name_refused(entry) != entry.identity:
                text = f"not sent: a reference names {entry.where}, which is refused"
                rewritten.refuse("not-found", text)
            return value
        rewritten.links.add(position)
        if not entry.is_conditional:
            if version and entry.method == "POST":
                text = "the version of a reference is left out: the resource is created here"
                rewritten.note("informational", text, "information")
                version = ""
            name = f"{self.names[position]}{version}{fragment}"
            if version == target.version and ":" in value:
                self.known_links[value] = (position, name)
            return name
        if element != "reference" and position != rewritten.entry.position:
            self._wait_for_id(rewritten, element, position)
        return self.names[position]

    def _wait_for_id(self, rewritten: RewrittenEntry, element: str, position: int) -> None:
        """Have an entry sent after the conditional one whose id it needs outside of a Reference.

        https://hl7.org/fhir/R4/http.html#trules demands that links in elements of type uri follow.
        Inside a transaction Microsoft's service resolves references alone:
        https://github.com/microsoft/fhir-server (ResourceReferenceResolver.cs)
        """
        if element in _QUERIES and self.contents.kind == "transaction":
            where = self.contents.entries[position].where
            text = (
                f"a condition in a transaction cannot refer to {where}, which is conditional "
                "itself, since only the FHIR server knows its id: send a batch"
            )
            rewritten.refuse("not-supported", text, "" if element == "query" else element)
        rewritten.waits.add(position)

    def _report_dangling(self, rewritten: RewrittenEntry, text: str) -> None:
        if self.contents.kind == "ndjson":
            return  # a line has no fullUrl, so nothing in it can be a placeholder
        if self.contents.dangling == "refuse":
            rewritten.refuse("not-found", text)
        elif all(issue.code != "not-found" for issue in rewritten.notes):
            rewritten.note("not-found", f"{text}; it is sent unchanged")

    def _rewrite_conditional(
        self, rewritten: RewrittenEntry, reference: str, type_: str, query: str
    ) -> str:
        """Rewrite `Type?query`, which means the one match of its search:
        https://hl7.org/fhir/R4/http.html#trules"""
        search = parse_search(type_, query)
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
            rewritten.sole[canonicalize_condition(reference), target] = None
            return target
        if targets is None:
            rewritten.searches.add(type_)
        return f"{type_}?{self._rewrite_query(rewritten, 'query', query)}"


def _find_matches(
    search: Search,
    index: conditional_references.SearchIndex,
    names: Sequence[str],
) -> dict[str, int] | None:
    """Return the positions of the entries that a search finds, by their names."""
    positions = conditional_references.find_matches(search, index)
    return None if positions is None else {names[n]: n for n in reversed(positions)}


def _name_refused(entry: Entry) -> str:
    """Return which resource a refused entry is: one of a known id, or one that is never made."""
    known = entry.identity if entry.method != "POST" else None
    return known or f"refused {entry.position}"
