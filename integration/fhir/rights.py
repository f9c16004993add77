"""What a sender may do: entries outside of its rights are refused. Pure.

Rights are checked on what an entry would do at the FHIR server, after a bundle of any type was
read, and again on what was fetched for it. The rights of the time of acceptance are kept with the
bytes, so that a delivery is judged alike whenever it is planned. A replay of what was refused
replaces them by those of then.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from integration.core.errors import Issue, Rejected
from integration.core.model import ALL_RIGHTS, FhirResource, Rights
from integration.fhir.conditional_references import parse_reference
from integration.fhir.conditions import UNIDENTIFIED_TYPES, list_criteria, list_parameters
from integration.fhir.entries import MAX_ISSUES, Contents, Entry
from integration.fhir.references import rewrite_links

# The code of every such issue: https://hl7.org/fhir/R4/valueset-issue-type.html
FORBIDDEN = "forbidden"

# One resource, or resources that are written together or not at all.
_ATOMIC = ("resource", "transaction")

# Types that change what the FHIR server does: by a Subscription it sends what it holds to whoever
# is named there, by a SearchParameter it finds other resources. A sender's types must name them.
NAMED_TYPES = frozenset({"Subscription", "SearchParameter"})

# Parameters by which a search shows, or goes by, resources of other types than its own:
# https://hl7.org/fhir/R4/search.html#include. Servers differ in whether case counts.
_OTHER_TYPES = re.compile(
    r"(?i:_(?:include|revinclude|has|contained|containedType|filter|query|graph|type)(?::.*)?)"
    r"|.*\..*|.*:[A-Z].*",
    re.DOTALL,
)

# What a resource is identified by in a search for `identifier`:
# https://hl7.org/fhir/R4/searchparameter-registry.html (clinical-identifier)
_IDENTIFIERS = ("identifier", "masterIdentifier")


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
    if not rights.types and entry.type in NAMED_TYPES and entry.read_path is None:
        yield forbid(
            f"send {entry.type}, which changes what the FHIR server does: name it in types"
        )
    if entry.read_path is not None:
        yield from map(forbid, _find_foreign_reads(entry, rights))
        return
    if entry.method not in rights.methods:
        yield forbid(f"{entry.method}: its methods are {', '.join(rights.methods)}")
    if entry.method == "DELETE" and entry.query and not rights.conditional_deletes:
        yield forbid("delete by a condition")
    yield from map(forbid, _find_foreign_ids(entry, rights))
    if rights.types and any(map(_reaches_other_types, _list_conditions(entry))):
        yield forbid("use a condition that goes by resources of other types, as a chain does")
    if rights.identifier_systems:
        yield from map(forbid, _find_foreign_conditions(entry, rights))
        yield from (forbid(text, where) for text, where in _find_foreign_content(entry, rights))


def _find_foreign_reads(entry: Entry, rights: Rights) -> Iterator[str]:
    """Yield why a read may show what its sender has no right to."""
    if not rights.reads:
        yield "read: it has no right to GET and HEAD"
        return
    query, id_ = entry.query or "", (entry.read_path or "").partition("/")[2].partition("/")[0]
    is_restricted = bool(rights.types or rights.id_prefixes or rights.identifier_systems)
    if is_restricted and _reaches_other_types(query):
        yield "read other resources by _include, _revinclude, _has, a chain or the like"
    if not (rights.id_prefixes or rights.identifier_systems):
        return
    if id_ and not (rights.id_prefixes and id_.startswith(rights.id_prefixes)):
        yield "read this id: it has id_prefixes or identifier_systems, and no prefix of this id"
    if not id_ and not (rights.identifier_systems and _names_own(entry.type, query, rights)):
        yield "search without an identifier of its identifier_systems"


def _list_conditions(entry: Entry) -> list[str]:
    return [condition for condition in (entry.query, entry.if_none_exist) if condition]


def _reaches_other_types(query: str) -> bool:
    return any(_OTHER_TYPES.fullmatch(name) for name, _ in list_parameters(query))


def _find_foreign_ids(entry: Entry, rights: Rights) -> Iterator[str]:
    """Yield what may reach a resource whose id begins otherwise than the sender's do."""
    prefixes = rights.id_prefixes
    if not prefixes:
        return
    wanted = f"ids that begin with {' or '.join(prefixes)}"
    stated = entry.content.id if entry.content is not None and entry.method == "PUT" else None
    for id_ in filter(None, (entry.id, stated)):
        if not id_.startswith(prefixes):
            yield f"{entry.method} this id: it has {wanted}"
    # The answer to a create names what its condition has found.
    if _list_conditions(entry) and not rights.identifier_systems:
        yield (
            f"{entry.method} by a condition, which may find any resource: it has {wanted}, and no "
            "identifier_systems"
        )


def may_use_conditions(type_: str, rights: Rights) -> bool:
    """Whether a sender may name a resource of the type by a condition at all."""
    if rights.identifier_systems:
        return type_ not in UNIDENTIFIED_TYPES
    return not rights.id_prefixes


def _find_foreign_conditions(entry: Entry, rights: Rights) -> Iterator[str]:
    """Yield conditions that may find what another sender has written."""
    if not all(_names_own(entry.type, condition, rights) for condition in _list_conditions(entry)):
        yield f"use a condition {_describe_wanted(rights)}"


def _describe_wanted(rights: Rights) -> str:
    systems = ", ".join(rights.identifier_systems)
    return f"without identifier=system|value of one of {systems}"


def _names_own(type_: str, condition: str, rights: Rights) -> bool:
    """Whether a condition finds nothing but what has an identifier of the sender's systems."""
    # A server passes over what is no parameter of the type, and goes by the rest alone.
    return type_ not in UNIDENTIFIED_TYPES and any(
        name == "identifier" and _names_systems(value, rights)
        for name, value in list_criteria(condition)
    )


def _names_systems(value: str, rights: Rights) -> bool:
    """Whether every alternative of a token search is a value of an allowed system.

    Servers differ in what a backslash escapes (https://hl7.org/fhir/R4/search.html#escaping), so
    that nothing is taken that holds one, and every comma is "or".
    """
    alternatives = [part.partition("|") for part in value.split(",")]
    return "\\" not in value and all(
        system in rights.identifier_systems and bar and text for system, bar, text in alternatives
    )


def _find_foreign_content(entry: Entry, rights: Rights) -> Iterator[tuple[str, str]]:
    """Yield (what is forbidden, where) for identifiers by which the resource would be found as
    another sender's, and for references that search among what others have written."""
    resource = entry.resource if entry.method in ("POST", "PUT") else None
    if resource is None:
        return
    for path, system in _list_systems(resource):
        if system not in rights.identifier_systems:
            yield (
                f"write this system: its systems are {', '.join(rights.identifier_systems)}",
                f"{entry.resource_path}.{path}.system",
            )
    for type_, query in _list_searches(resource):
        if not _names_own(type_, query, rights):
            yield f"refer by a condition {_describe_wanted(rights)}", entry.resource_path


def _list_systems(resource: FhirResource) -> Iterator[tuple[str, Any]]:
    """Yield the path and system of each identifier that has one. Some types of resources have
    one identifier, most have a list: https://hl7.org/fhir/R4/composition.html"""
    for name in _IDENTIFIERS:
        stated = resource.get(name)
        listed = stated if isinstance(stated, list) else [stated]
        for position, identifier in enumerate(listed):
            if isinstance(identifier, dict) and "system" in identifier:
                path = f"{name}[{position}]" if isinstance(stated, list) else name
                yield path, identifier["system"]


def _list_searches(resource: FhirResource) -> list[tuple[str, str]]:
    """Return type and query of each conditional reference."""
    found: list[tuple[str, str]] = []

    def add(element: str, value: str) -> str:
        search = parse_reference(value.lstrip("/")) if element == "reference" else None
        if search is not None:
            found.append(search)
        return value

    rewrite_links(resource, add)
    return found


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
