"""Expressions as functions, with the types of what they find; elements and their types. Pure.

An entity map says its resource type, and with that the types of its elements follow from their
names: https://hl7.org/fhir/R4/fhirpath.html#types
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fhirpathpy.engine.nodes import ResourceNode, TypeInfo
from fhirpathpy.models import models

from integration.mapping.fhirpath import fast_steps
from integration.mapping.fhirpath.fast_steps import Step, Test, Values, chained

# The types that values may have; None: an element of which fhirpathpy forgets the type.
Types = frozenset[str | None]

# The name and type of each form.
Forms = tuple[tuple[str, str], ...]

# Of a value that is no element: a literal, what a comparison or a function gives.
COMPUTED = "System"

_R4: Mapping[str, Any] = models["r4"]

# fhirpathpy knows of types only after the first `is`; then, for ever.
TypeInfo.model = _R4  # type: ignore[assignment]


class Long(Exception):
    """Only fhirpathpy can evaluate it."""


@dataclass(frozen=True, slots=True)
class Short:
    """An expression as functions, one after the other, and the types of what they find."""

    steps: tuple[Step, ...]
    types: Types
    name: str | None = None  # of the element of the focus that it is, and nothing else
    forms: Forms = ()  # of an element that has one of several types
    values: Values | None = None  # that it is, whatever the focus
    test: Test | None = None  # whether it is true of one item

    @property
    def step(self) -> Step:
        return self.steps[0] if len(self.steps) == 1 else chained(self.steps)

    def then(self, step: Step, *types: str | None, test: Test | None = None) -> Short:
        """One step more, that gives values of these types, or of the same."""
        return Short((*self.steps, step), frozenset(types) or self.types, test=test)


def member(name: str, of: Short) -> Short:
    if not name[:1].islower() or name == "length" or COMPUTED in of.types:
        raise Long
    kinds = {_child(type_, name) for type_ in of.types}
    types = frozenset(kind for kind in kinds if isinstance(kind, str))
    # What is in a Resource, it says itself.
    if "Resource" in types or (len(types) < len(kinds) and len(kinds) > 1):
        raise Long
    if len(types) < len(kinds):
        return _choice(of.steps, next(kind for kind in kinds if not isinstance(kind, str)))
    return Short((*of.steps, fast_steps.member(name)), types, name=None if of.steps else name)


def _child(path: str | None, name: str) -> str | Forms:
    """The type of a child element; of a choice, the name and type of each form it may take."""
    child = f"{path or '_'}.{name}"
    child = _R4["pathsDefinedElsewhere"].get(child, child)
    types: Mapping[str, str] = _R4["path2Type"]
    if forms := _R4["choiceTypePaths"].get(child):
        return tuple((f"{name}{form}", types.get(child + form, child + form)) for form in forms)
    return "Extension" if name == "extension" else types.get(child, child)


def _choice(before: tuple[Step, ...], forms: Forms, wanted: Types | None = None) -> Short:
    types = frozenset(type_ for _, type_ in forms) if wanted is None else wanted
    step = fast_steps.choice([(name, type_ in types) for name, type_ in forms])
    return Short((*before, step), types, forms=forms)


def of_type(of: Short, type_: TypeInfo) -> Short:
    if None in of.types or COMPUTED in of.types:
        raise Long
    known = {one: ResourceNode(None, one).get_type_info() for one in of.types}  # type: ignore[no-untyped-call]
    kept = frozenset(one for one, info in known.items() if info.is_(type_))
    if of.forms:
        return _choice(of.steps[:-1], of.forms, kept)
    if kept and kept != of.types:
        raise Long
    return of if kept else Short((fast_steps.constant([]),), kept)
