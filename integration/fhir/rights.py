"""What a sender may do: entries outside of its rights are refused. Pure.

Rights are checked on what an entry would do at the FHIR server, after a bundle of any type was
read, and again on what was fetched for it. The rights of the time of acceptance are kept with the
bytes, so that a delivery is judged alike whenever it is planned.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from integration.core.errors import Issue, Rejected
from integration.core.model import ALL_RIGHTS, FhirResource, Rights
from integration.fhir.conditions import list_criteria, list_parameters
from integration.fhir.entries import MAX_ISSUES, Contents, Entry

# The code of every such issue: https://hl7.org/fhir/R4/valueset-issue-type.html
FORBIDDEN = "forbidden"

# One resource, or resources that are written together or not at all.
_ATOMIC = ("resource", "transaction")

# Parameters by which a search shows, or goes by, resources of other types than its own:
# https://hl7.org/fhir/R4/search.html#include
_OTHER_TYPES = re.compile(r"_(?:include|revinclude|has)(?::.*)?|.*\..*|.*:[A-Z].*")

# Values of a token search; a comma is "or", unless it is escaped:
# https://hl7.org/fhir/R4/search.html#escaping
_OR = re.compile(r"(?<!\\),")


def refuse_forbidden(contents: Contents, rights: Rights, *, alone: bool = False) -> Contents:
    """Return the contents with the entries refused that the rights do not cover.

    Raises Rejected with 403 if none is covered, or one of a transaction is not. `alone`: never, for
    what was fetched after the delivery was accepted.
    """
    if rights == ALL_RIGHTS:
        return contents
    if not alone and contents.kind in _ATOMIC:
        issues = tuple(islice(_find_all_violations(contents.entries, rights), MAX_ISSUES))
        if issues:
            raise Rejected(*issues, status=403)
        return contents
    entries = tuple(_refuse_if_forbidden(entry, rights) for entry in contents.entries)
    pairs = zip(entries, contents.entries, strict=True)
    refused = [new.refusal for new, old in pairs if new is not old]
    if not alone and refused and len(refused) == len(entries):
        raise Rejected(*(issue for issue in refused[:MAX_ISSUES] if issue), status=403)
    return replace(contents, entries=entries)


def _find_all_violations(entries: Iterable[Entry], rights: Rights) -> Iterator[Issue]:
    for entry in entries:
        if entry.refusal is None:
            yield from islice(find_violations(entry, rights), 1)


def _refuse_if_forbidden(entry: Entry, rights: Rights) -> Entry:
    if entry.refusal is not None:
        return entry
    violation = next(find_violations(entry, rights), None)
    return entry if violation is None else replace(entry, refusal=violation)


def find_violations(entry: Entry, rights: Rights) -> Iterator[Issue]:
    """Yield what of an entry its sender has no right to."""

    def forbid(text: str, expression: str = entry.where) -> Issue:
        return Issue(FORBIDDEN, f"this sender may not {text}", expression)

    if rights.types and entry.type not in rights.types:
        yield forbid(f"send {entry.type}: its types are {', '.join(rights.types)}")
    if entry.read_path is not None:
        if not rights.reads:
            yield forbid("read: it has no right to GET and HEAD")
        elif rights.types and any(
            _OTHER_TYPES.fullmatch(name) for name, _ in list_parameters(entry.query or "")
        ):
            yield forbid("read resources of other types by _include, _revinclude, _has or a chain")
        return
    if entry.method not in rights.methods:
        yield forbid(f"{entry.method}: its methods are {', '.join(rights.methods)}")
    if entry.method == "DELETE" and entry.query and not rights.conditional_deletes:
        yield forbid("delete by a condition")
    yield from map(forbid, _find_foreign_ids(entry, rights))
    if rights.identifier_systems:
        yield from map(forbid, _find_foreign_conditions(entry, rights))
        yield from (forbid(text, where) for text, where in _find_foreign_identifiers(entry, rights))


def _find_foreign_ids(entry: Entry, rights: Rights) -> Iterator[str]:
    """Yield what may reach a resource whose id begins otherwise than the sender's do."""
    prefixes = rights.id_prefixes
    if not prefixes or entry.method == "POST":
        return
    wanted = f"ids that begin with {' or '.join(prefixes)}"
    stated = entry.content.id if entry.content is not None and entry.method == "PUT" else None
    for id_ in filter(None, (entry.id, stated)):
        if not id_.startswith(prefixes):
            yield f"{entry.method} this id: it has {wanted}"
    if entry.query is not None and not rights.identifier_systems:
        yield (
            f"{entry.method} by a condition, which may find any resource: it has {wanted}, and no "
            "identifier_systems"
        )


def _find_foreign_conditions(entry: Entry, rights: Rights) -> Iterator[str]:
    """Yield conditions that may find what another sender has written."""
    systems = ", ".join(rights.identifier_systems)
    for condition in filter(None, (entry.query, entry.if_none_exist)):
        criteria = list_criteria(condition)
        if not any(
            name == "identifier" and _names_systems(value, rights) for name, value in criteria
        ):
            yield f"use a condition without identifier=system|value of one of {systems}"


def _names_systems(value: str, rights: Rights) -> bool:
    """Whether every alternative of a token search is a value of an allowed system."""
    alternatives = [part.partition("|") for part in _OR.split(value)]
    return all(
        system in rights.identifier_systems and bar and text for system, bar, text in alternatives
    )


def _find_foreign_identifiers(entry: Entry, rights: Rights) -> Iterator[tuple[str, str]]:
    """Yield (what is forbidden, where) for identifiers by which the resource would be found as
    another sender's."""
    resource = entry.resource if entry.method in ("POST", "PUT") else None
    if resource is None:
        return
    for position, system in _list_systems(resource):
        if system not in rights.identifier_systems:
            yield (
                f"write this system: its systems are {', '.join(rights.identifier_systems)}",
                f"{entry.resource_path}.identifier{position}.system",
            )


def _list_systems(resource: FhirResource) -> Iterator[tuple[str, Any]]:
    """Yield the position and system of each identifier that has one. Some types of resources have
    one identifier, most have a list: https://hl7.org/fhir/R4/composition.html"""
    stated = resource.get("identifier")
    listed = stated if isinstance(stated, list) else [stated]
    for position, identifier in enumerate(listed):
        if isinstance(identifier, dict) and "system" in identifier:
            yield f"[{position}]" if isinstance(stated, list) else "", identifier["system"]


def collect_needed_rights(entries: Iterable[Entry], to_fetch: Collection[int] = ()) -> Rights:
    """Return what a sender needs at least to have these entries sent: methods, types, reads.

    `to_fetch`: positions of entries that are updates once they are fetched.
    """
    methods, types = set[str](), set[str]()
    reads = conditional_deletes = False
    for entry in entries:
        if entry.position in to_fetch:
            methods.add("PUT")
        elif entry.refusal is not None:
            continue
        elif entry.read_path is not None:
            reads = True
        else:
            methods.add(entry.method)
            conditional_deletes |= entry.method == "DELETE" and entry.query is not None
        types.add(entry.type)
    return Rights(
        methods=tuple(method for method in ALL_RIGHTS.methods if method in methods),
        types=tuple(sorted(types - {""})),
        reads=reads,
        conditional_deletes=conditional_deletes,
    )
