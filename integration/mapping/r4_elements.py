"""What FHIR R4 says of an element: its type, its names in JSON, whether it repeats or is required.
Pure.

A type is FHIR's own name, or the path of an element that has elements of its own: Coding,
Observation.component. What is needed when a map is read comes from fhirpathpy's model, which is in
memory by then; the rest from fhir.resources, whose models are imported when they are first needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args, get_origin

from integration.mapping.fhirpath.library import R4_MODEL

_TYPES: Mapping[str, str] = R4_MODEL["path2Type"]
_CHOICE_TYPES: Mapping[str, list[str]] = R4_MODEL["choiceTypePaths"]
_DEFINED_ELSEWHERE: Mapping[str, str] = R4_MODEL["pathsDefinedElsewhere"]

# JSON names an element that has one of several types with its type, valueQuantity; FHIRPath says
# value: https://hl7.org/fhir/R4/fhirpath.html#polymorphism
_CHOICES_BY_JSON_PATH = {
    f"{path}{type_}": (path.rpartition(".")[2], _TYPES[f"{path}{type_}"])
    for path, types in _CHOICE_TYPES.items()
    for type_ in types
}
_WITH_ELEMENTS = frozenset(path.rpartition(".")[0] for path in (*_TYPES, *_CHOICE_TYPES))


def is_primitive(type_: str) -> bool:
    """https://hl7.org/fhir/R4/datatypes.html#primitive"""
    return type_[:1].islower()


def is_value(type_: str) -> bool:
    """Whether JSON has one value for it: a primitive, or one of FHIRPath's own types, which FHIR
    gives to `url` of an Extension."""
    return is_primitive(type_) or type_.startswith("System.")


def is_resource(type_: str) -> bool:
    """Whether R4 has a resource type of this name."""
    return f"{type_}.meta" in _TYPES and type_ not in ("Resource", "DomainResource")


def find_type(parent: str, name: str) -> str | None:
    """Return the type of an element by its name in FHIRPath. None where `parent` has no such
    element, or one that has several types."""
    if name == "extension" and not is_primitive(parent):
        return "Extension"
    path = _resolve_path(parent, name)
    if path in _CHOICES_BY_JSON_PATH:
        return None
    return _TYPES.get(path) or (path if path in _WITH_ELEMENTS else None)


def find_json_type(parent: str, name: str) -> str:
    """Return the type of an element by its name in JSON: of valueQuantity, Quantity. Its path where
    it has elements of its own, or is unknown."""
    if name == "extension":
        return "Extension"
    path = _resolve_path(parent, name)
    return _TYPES.get(path, path)


def find_choice_names(parent: str, name: str) -> dict[str, str]:
    """Return the names in JSON, by type, of an element that has one of several types; else nothing.
    https://hl7.org/fhir/R4/formats.html#choice"""
    path = _resolve_path(parent, name)
    return {_TYPES[path + type_]: f"{name}{type_}" for type_ in _CHOICE_TYPES.get(path, ())}


def find_choice(parent: str, json_name: str) -> tuple[str, str] | None:
    """Return element and type of a name in JSON, of valueQuantity (value, Quantity); None where the
    element has but one type."""
    return _CHOICES_BY_JSON_PATH.get(_resolve_path(parent, json_name))


def list_choices(parent: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each element of `parent` that has one of several types, with its names in JSON."""
    for path, types in _CHOICE_TYPES.items():
        owner, _, name = path.rpartition(".")
        if owner == parent:
            yield name, tuple(f"{name}{type_}" for type_ in types)


def _resolve_path(parent: str, name: str) -> str:
    """Return the path that defines the element: some are defined where another one is."""
    return _DEFINED_ELSEWHERE.get(f"{parent}.{name}", f"{parent}.{name}")


@dataclass(frozen=True, slots=True)
class ElementRule:
    """How often an element may occur, and what it may refer to."""

    repeats: bool
    required: bool
    targets: tuple[str, ...]  # resource types that a Reference may point at; empty: all


@cache
def find_rule(parent: str, name: str) -> ElementRule | None:
    """Return the rule of an element by its name in JSON. None where R4B, which is what
    fhir.resources knows, has no such element."""
    field = _find_fields(parent).get(name)
    if field is None:
        return None
    more = field.json_schema_extra or {}
    required = ("element_required", "one_of_many_required")
    targets = tuple(more.get("enum_reference_types", ()))
    return ElementRule(
        repeats=_is_list(field.annotation),
        required=field.is_required() or any(more.get(key) for key in required),
        targets=() if "Resource" in targets else targets,
    )


@cache
def _find_fields(type_: str) -> Mapping[str, Any]:
    """Return the fields of a type's model by their names in JSON."""
    from fhir.resources.R4B import get_fhir_model_class

    outer, *names = type_.split(".")
    try:
        model: Any = get_fhir_model_class(outer)
    except (KeyError, ValueError):
        return {}
    for name in names:
        field = _index_fields(model).get(name)
        if field is None:
            return {}
        model = _get_model(field.annotation)
    return _index_fields(model)


def _index_fields(model: Any) -> dict[str, Any]:
    return {field.alias or key: field for key, field in model.model_fields.items()}


def _get_model(annotation: Any) -> Any:
    """Return the model in `List[ObservationComponentType] | None`."""
    if get_model := getattr(annotation, "get_model_klass", None):
        return get_model()
    arguments = get_args(annotation)
    return next(_get_model(argument) for argument in arguments if argument is not type(None))


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(map(_is_list, get_args(annotation)))
