"""Look up elements of FHIR R4: type, whether it repeats, its name in FHIRPath. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, get_args, get_origin

from fhir.resources.R4B import get_fhir_model_class

# Keywords that are also names of elements: https://hl7.org/fhirpath/#keywords
_KEYWORDS = frozenset("and as contains div implies in is mod or xor true false".split())

_PLAIN = {bool: "boolean", str: "string", int: "integer"}


@dataclass(frozen=True, slots=True)
class Element:
    """An element. `type` None: it may be of any type."""

    step: str  # in FHIRPath
    type: str | None
    repeats: bool
    targets: tuple[str, ...] = ()  # of a reference


@cache
def is_resource(name: str) -> bool:
    """Tell whether R4 has a resource type of this name."""
    model = _find_model(name)
    return (
        model is not None
        and "meta" in model.model_fields
        and name not in ("Resource", "DomainResource")
    )


def is_primitive(type_name: str) -> bool:
    """https://hl7.org/fhir/R4/datatypes.html#primitive"""
    return type_name[:1].islower()


@cache
def find_element(parent: str, name: str) -> Element | None:
    """Return the element with this name in JSON; None if the type `parent` has none."""
    model = _find_model(parent)
    fields: dict[str, Any] = model.model_fields if model is not None else {}
    for key, field in fields.items():
        more = field.json_schema_extra or {}
        if (field.alias or key) == name and more.get("element_property"):
            type_name, repeats = _read_annotation(field.annotation)
            choice = more.get("one_of_many")
            if choice:
                # valueCode in JSON is value in FHIRPath: https://hl7.org/fhir/R4/fhirpath.html#polymorphism
                type_name = _resolve_choice_type(name.removeprefix(choice))
                step = f"{choice}.ofType({type_name})"
            else:
                step = f"`{name}`" if name in _KEYWORDS else name
            return Element(step, type_name, repeats, tuple(more.get("enum_reference_types", ())))
    return None


def _resolve_choice_type(suffix: str) -> str:
    return suffix if _find_model(suffix) is not None else suffix[0].lower() + suffix[1:]


def _find_model(name: str) -> Any:
    try:
        return get_fhir_model_class(name)
    except (KeyError, ValueError, AttributeError):
        return None


def _read_annotation(annotation: Any) -> tuple[str | None, bool]:
    """Return the FHIR type, and whether it repeats, of a field's annotation.

    It is `List[HumanNameType] | None`, `Annotated[str, Code()] | None` and so on.
    """
    if hasattr(annotation, "__metadata__"):
        name = type(annotation.__metadata__[0]).__name__
        return name[0].lower() + name[1:], False
    inner = [argument for argument in get_args(annotation) if argument is not type(None)]
    if inner:
        return _read_annotation(inner[0])[0], get_origin(annotation) is list or _read_annotation(
            inner[0]
        )[1]
    if annotation in _PLAIN:
        return _PLAIN[annotation], False
    name = getattr(annotation, "__name__", "").removesuffix("Type")
    return (None if name in ("Resource", "Element", "") else name), False
