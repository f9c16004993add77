"""What FHIR R4 says of an element: its type, its forms, whether it repeats or must be there. Pure.

A type is FHIR's own name, or the path of an element that has elements of its own: Coding,
Observation.component. What is needed when a map is read comes from fhirpathpy's model, which is in
memory by then; the rest from fhir.resources, whose models are imported when something is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args, get_origin

from fhirpathpy.models import models

_R4: Mapping[str, Any] = models["r4"]
_TYPES: Mapping[str, str] = _R4["path2Type"]
_FORMS: Mapping[str, list[str]] = _R4["choiceTypePaths"]
_ELSEWHERE: Mapping[str, str] = _R4["pathsDefinedElsewhere"]

# JSON names the type with the element, valueQuantity: no element of FHIRPath is called so.
_FORM_NAMES = frozenset(f"{path}{form}" for path, forms in _FORMS.items() for form in forms)
_WITH_ELEMENTS = frozenset(path.rpartition(".")[0] for path in (*_TYPES, *_FORMS))


def is_primitive(type_: str) -> bool:
    """https://hl7.org/fhir/R4/datatypes.html#primitive"""
    return type_[:1].islower()


def type_of(parent: str, name: str) -> str | None:
    """None where `parent` has no such element, or one that has several types."""
    if name == "extension" and not is_primitive(parent):
        return "Extension"
    path = _path(parent, name)
    if path in _FORM_NAMES:
        return None
    return _TYPES.get(path) or (path if path in _WITH_ELEMENTS else None)


def forms(parent: str, name: str) -> dict[str, str]:
    """Of an element that has several types, what JSON calls it by each type:
    https://hl7.org/fhir/R4/formats.html#choice"""
    path = _path(parent, name)
    return {_TYPES.get(path + form, form): f"{name}{form}" for form in _FORMS.get(path, ())}


def _path(parent: str, name: str) -> str:
    return _ELSEWHERE.get(f"{parent}.{name}", f"{parent}.{name}")


@dataclass(frozen=True, slots=True)
class Rule:
    """What else is to be known of an element before it is written."""

    repeats: bool
    required: bool
    targets: tuple[str, ...]  # of a Reference; none: any


@cache
def rule(parent: str, name: str) -> Rule | None:
    """Of an element by its name in JSON. None where fhir.resources, which knows R4B, has none."""
    field = _fields(parent).get(name)
    if field is None:
        return None
    more = field.json_schema_extra or {}
    required = ("element_required", "one_of_many_required")
    targets = tuple(more.get("enum_reference_types", ()))
    return Rule(
        repeats=_is_list(field.annotation),
        required=field.is_required() or any(more.get(key) for key in required),
        targets=() if "Resource" in targets else targets,
    )


@cache
def _fields(type_: str) -> Mapping[str, Any]:
    """The fields of a type's model, by the names that JSON has for them."""
    from fhir.resources.R4B import get_fhir_model_class

    outer, *names = type_.split(".")
    try:
        model: Any = get_fhir_model_class(outer)
    except (KeyError, ValueError):
        return {}
    for name in names:
        field = _named(model).get(name)
        if field is None:
            return {}
        model = _model(field.annotation)
    return _named(model)


def _named(model: Any) -> dict[str, Any]:
    return {field.alias or key: field for key, field in model.model_fields.items()}


def _model(annotation: Any) -> Any:
    """The model in `List[ObservationComponentType] | None`."""
    if get_model := getattr(annotation, "get_model_klass", None):
        return get_model()
    return next(_model(one) for one in get_args(annotation) if one is not type(None))


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(map(_is_list, get_args(annotation)))
