"""What no row shows, and what a row lacks: by element and number, never by value. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from integration.core.errors import Unmappable
from integration.core.model import Columns
from integration.mapping import r4_elements
from integration.mapping.fhirpath.evaluate import Evaluation
from integration.mapping.model import EntityMap, NotedElement


def find_unmapped(
    entity: EntityMap, resource: Mapping[str, Any], evaluation: Evaluation
) -> Iterator[str]:
    """Yield notes of elements that the map has no columns for, and of elements that contradict each
    other."""
    for unmapped in entity.unmapped_elements:
        if evaluation.is_empty(unmapped.path):
            continue
        why = ""
        try:
            if count := len(evaluation.find_nodes(unmapped.path)):
                why = f"{count} more than the map has columns for"
        except Unmappable as problem:
            why = problem.why
        if why:
            yield format_noted_element(unmapped, why)
    yield from find_contradictions(entity.resource, resource)


def find_missing_expected(entity: EntityMap, evaluation: Evaluation) -> Iterator[str]:
    """Yield notes of elements without which the row is of little use, such as a name."""
    for expected in entity.expected_elements:
        why = "none that the row could show"
        try:
            if not evaluation.is_empty(expected.path) and evaluation.find_nodes(expected.path):
                continue
        except Unmappable as problem:
            why = problem.why
        yield format_noted_element(expected, why)


def find_missing_required(
    entity: EntityMap, row: Mapping[str, Any], columns: Columns
) -> Iterator[str]:
    """Yield notes of empty columns without which Dataverse refuses the row."""
    for attribute in entity.attributes:
        if row.get(attribute.column) is None and columns[attribute.column].enforced:
            line = f" ({attribute.defined_at})" if attribute.defined_at else ""
            why = "the column is required and has no value"
            yield f"{attribute.column}: {why} @ {attribute.path}{line}"


def find_contradictions(type_: str, resource: Mapping[str, Any]) -> Iterator[str]:
    """Yield notes of elements that have values of several types, though only one is allowed."""
    names, choices = _list_choices(type_)
    if len(names & resource.keys()) < 2:
        return
    for element, by_type in choices:
        present = [name for name in by_type if resource.get(name) is not None]
        if len(present) > 1:
            yield f"{element}: {' and '.join(present)} contradict each other @ {element}[x]"


def format_noted_element(noted: NotedElement, why: str) -> str:
    """Return the note of an element."""
    line = f" ({noted.defined_at})" if noted.defined_at else ""
    return f"{noted.element}: {why} @ {noted.path}{line}"


@cache
def _list_choices(
    type_: str,
) -> tuple[frozenset[str], tuple[tuple[str, tuple[str, ...]], ...]]:
    """Return the names in JSON of the elements that have one of several types, and of each."""
    choices = tuple(r4_elements.list_choices(type_))
    return frozenset(name for _, names in choices for name in names), choices
