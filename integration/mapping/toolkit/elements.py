"""Elements as JSON names them, and as FHIRPath does. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from integration.mapping import r4_elements
from integration.mapping.r4_elements import is_primitive, is_resource

__all__ = ["Element", "find_element", "is_primitive", "is_resource"]

# https://hl7.org/fhirpath/#keywords, as far as elements have these names
_KEYWORDS = frozenset("and as contains div implies in is mod or xor true false".split())

# A resource of any type; and what R4 types with FHIRPath's own String, `id` and `url`.
_SPECIAL_TYPES: Mapping[str, str | None] = {"Resource": None, "System.String": "string"}


@dataclass(frozen=True, slots=True)
class Element:
    """One step down: `type` None is any resource or any type."""

    step: str  # FHIRPath
    type: str | None
    repeats: bool
    targets: tuple[str, ...] = ()  # resource types that a Reference may point at


@cache
def find_element(parent: str, name: str) -> Element | None:
    """Return the element that JSON calls `name`; None where the type has no such element."""
    rule = r4_elements.find_rule(parent, name)
    if rule is None:
        return None
    choice = r4_elements.find_choice(parent, name)
    if choice:
        element, type_ = choice
        return Element(f"{element}.ofType({type_})", type_, rule.repeats, rule.targets)
    found = r4_elements.find_type(parent, name)
    if found is None:
        return None
    step = f"`{name}`" if name in _KEYWORDS else name
    return Element(step, _SPECIAL_TYPES.get(found, found), rule.repeats, rule.targets)
