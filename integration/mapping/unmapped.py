"""What no row shows, and what a row lacks: told by element and number, never by value. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from fhirpathpy.models import models

from integration.core.errors import Unmappable
from integration.core.model import Column
from integration.mapping.fhirpath.evaluate import Evaluation
from integration.mapping.model import EntityMap


def unmapped(
    entity: EntityMap, resource: Mapping[str, Any], evaluation: Evaluation
) -> Iterator[str]:
    """Notes of what the map has no columns for, and of what cannot all be true."""
    for rest in entity.unmapped_elements:
        if evaluation.is_empty(rest.path):
            continue
        why = ""
        try:
            if found := len(evaluation.nodes(rest.path)):
                why = f"{found} more than the map has columns for"
        except Unmappable as problem:
            why = problem.why
        if why:
            where = f" ({rest.defined_at})" if rest.defined_at else ""
            yield f"{rest.element}: {why} @ {rest.path}{where}"
    for element, forms in _choices(entity.resource):
        given = [form for form in forms if resource.get(form) is not None]
        if len(given) > 1:
            yield f"{element}: {' and '.join(given)} contradict each other @ {element}[x]"


def missing_required(
    entity: EntityMap, row: Mapping[str, Any], columns: Mapping[str, Column]
) -> Iterator[str]:
    """Notes of columns without which Dataverse refuses the row."""
    for one in entity.attributes:
        if row[one.column] is None and columns[one.column].enforced:
            where = f" ({one.defined_at})" if one.defined_at else ""
            yield f"{one.column}: required, and without a value @ {one.path}{where}"


@cache
def _choices(resource: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The elements of a resource type that have one of several types, and so several names:
    https://hl7.org/fhir/R4/formats.html#choice"""
    types: Mapping[str, Any] = models["r4"]["choiceTypePaths"]
    paths = ((*path.split("."), forms) for path, forms in types.items() if path.count(".") == 1)
    return tuple(
        (element, tuple(f"{element}{form}" for form in forms))
        for type_, element, forms in paths
        if type_ == resource
    )
