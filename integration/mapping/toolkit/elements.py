"""What FHIR says of an element: its type, whether it repeats, how FHIRPath calls it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, get_args, get_origin

from fhir.resources.R4B import get_fhir_model_class

# https://hl7.org/fhirpath/#keywords, as far as elements are called so
_KEYWORDS = frozenset("and as contains div implies in is mod or xor true false".split())

_PLAIN = {bool: "boolean", str: "string", int: "integer"}


@dataclass(frozen=True, slots=True)
class Element:
    """One step down: `type` None is any resource or any type."""

    step: str  # FHIRPath
    type: str | None
    repeats: bool
    targets: tuple[str, ...] = ()  # of a reference


@cache
def is_resource(name: str) -> bool:
    """Whether R4 has a resource type of this name."""
    model = _model(name)
    return (
        model is not None
        and "meta" in model.model_fields
        and name not in ("Resource", "DomainResource")
    )


def is_primitive(type_name: str) -> bool:
    """https://hl7.org/fhir/R4/datatypes.html#primitive"""
    return type_name[:1].islower()


@cache
def child(parent: str, name: str) -> Element | None:
    """The element that JSON calls `name`, or None when the type has no such element."""
    model = _model(parent)
    fields: dict[str, Any] = model.model_fields if model is not None else {}
    for key, field in fields.items():
        more = field.json_schema_extra or {}
        if (field.alias or key) == name and more.get("element_property"):
            type_name, repeats = _typed(field.annotation)
            choice = more.get("one_of_many")
            if choice:
                # JSON says valueCode, FHIRPath value: https://hl7.org/fhir/R4/fhirpath.html#polymorphism
                type_name = _choice(name.removeprefix(choice))
                step = f"{choice}.ofType({type_name})"
            else:
                step = f"`{name}`" if name in _KEYWORDS else name
            return Element(step, type_name, repeats, tuple(more.get("enum_reference_types", ())))
    return None


def _choice(suffix: str) -> str:
    return suffix if _model(suffix) is not None else suffix[0].lower() + suffix[1:]


def _model(name: str) -> Any:
    try:
        return get_fhir_model_class(name)
    except (KeyError, ValueError, AttributeError):
        return None


def _typed(annotation: Any) -> tuple[str | None, bool]:
    """The FHIR type in `List[HumanNameType] | None`, `Annotated[str, Code()] | None` and so on."""
    if hasattr(annotation, "__metadata__"):
        name = type(annotation.__metadata__[0]).__name__
        return name[0].lower() + name[1:], False
    inner = [one for one in get_args(annotation) if one is not type(None)]
    if inner:
        return _typed(inner[0])[0], get_origin(annotation) is list or _typed(inner[0])[1]
    if annotation in _PLAIN:
        return _PLAIN[annotation], False
    name = getattr(annotation, "__name__", "").removesuffix("Type")
    return (None if name in ("Resource", "Element", "") else name), False
