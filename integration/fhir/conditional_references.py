"""Conditional references: which entry of the delivery does `Type?query` match, if any? Pure.

https://hl7.org/fhir/R4/http.html#trules -- the reference means the one match of its search; none
or several are an error. The server cannot know yet what the delivery itself creates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from integration.fhir.conditions import Search, parse_search
from integration.fhir.entries import Entry
from integration.fhir.grammar import is_type


@dataclass(frozen=True, slots=True)
class SearchIndex:
    """The positions of entries by the search that finds them, and by type and identifier."""

    by_search: dict[Search, int]
    by_value: dict[tuple[str, str], list[int]]
    by_identifier: dict[tuple[str, str | None, str], list[int]]


def build_index(entries: Iterable[Entry]) -> SearchIndex:
    """Return look-up tables over the creates and updates of a delivery."""
    by_search: dict[Search, int] = {}
    by_value: dict[tuple[str, str], list[int]] = defaultdict(list)
    by_identifier: dict[tuple[str, str | None, str], list[int]] = defaultdict(list)
    for entry in entries:
        if entry.method not in ("POST", "PUT"):
            continue
        query = entry.if_none_exist if entry.query is None else entry.query
        if query is not None:
            by_search.setdefault(parse_search(entry.type, query), entry.position)
        for system, value in _list_identifiers(entry):
            by_value[entry.type, value].append(entry.position)
            by_identifier[entry.type, system, value].append(entry.position)
    return SearchIndex(by_search, by_value, by_identifier)


def parse_reference(reference: str) -> tuple[str, str] | None:
    """Return (type, query) of a conditional reference; None for any other reference."""
    type_, mark, query = reference.partition("?")
    return (type_, query) if mark and query and is_type(type_) else None


def find_same_search(search: Search, index: SearchIndex) -> int | None:
    """Return the position of the entry whose own condition is this search."""
    return index.by_search.get(search)


def find_matches(search: Search, index: SearchIndex) -> list[int] | None:
    """Return the positions of the entries with the identifier that is searched for; None for any
    other search.

    https://hl7.org/fhir/R4/search.html#token: system|value, |value for no system, or value alone.
    """
    type_, parameters = search
    name, token = parameters[0] if len(parameters) == 1 else ("", "")
    system, mark, value = token.rpartition("|")
    # A comma is an "or", a backslash an escape: rare enough for the server alone.
    if name != "identifier" or not value or "|" in system or "," in token or "\\" in token:
        return None
    if not mark:
        return index.by_value.get((type_, value), [])
    return index.by_identifier.get((type_, system or None, value), [])


def _list_identifiers(entry: Entry) -> set[tuple[str | None, str]]:
    stated = (entry.resource or {}).get("identifier")
    values = stated if isinstance(stated, list) else [stated]
    return {
        (value.get("system"), value["value"])
        for value in values
        if isinstance(value, dict)
        and isinstance(value.get("value"), str)
        and isinstance(value.get("system"), str | None)
    }
