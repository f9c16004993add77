"""A resource with every element that R4 has for its type, made from the definitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cache
from typing import Any, get_args, get_origin

from fhir.resources.R4B import get_fhir_model_class

Json = dict[str, Any]

# Elements nested deeper are left out, and only the resource's own lists have two items: to write is
# to validate, which takes its time.
_DEEPEST = 4

_PRIMITIVES: Mapping[str, Any] = {
    "Base64Binary": "SGVsbG8=",
    "Boolean": True,
    "Canonical": "http://sample.example/canonical",
    "Code": "some-code",
    "Date": "2019-08",
    "DateTime": "2019-08-07T06:05:04.300+02:00",
    "Decimal": Decimal("3.140"),
    "Id": "some-id",
    "Instant": "2019-08-07T06:05:04.300+02:00",
    "Integer": 3,
    "Markdown": "some *text*",
    "Oid": "urn:oid:1.2.3",
    "PositiveInt": 3,
    "String": "some text",
    "Time": "06:05:04",
    "UnsignedInt": 3,
    "Uri": "urn:sample:uri",
    "Url": "http://sample.example/url",
    "Uuid": "urn:uuid:c757873d-ec9a-4326-a141-556f43239520",
}
_LEFT_OUT = {"fhir_comments", "id", "meta", "contained", "implicitRules", "resourceType"}
# What FHIR's invariants let stand only where something else does not, or has a certain value:
# app-4, cpl-3, con-4, obs-6, tim-10.
_LEFT_OUT_OF = {
    "Appointment": {"cancelationReason", "text"},
    "CarePlanActivity": {"reference"},
    "Condition": {"abatement", "text"},
    "Observation": {"dataAbsentReason", "text"},
    "TimingRepeat": {"offset", "when"},
}
_CODES = {"comparator": "<", "currency": "EUR"}


def resource(type_: str, id_: str, forms: Mapping[str, str] | None = None) -> Json:
    """`forms`: of elements with several types the one to take, valueString for value; else the
    first that there is."""
    made = _object(get_fhir_model_class(type_), 1, forms or {})
    narrative = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">n</div>'}
    contained = [{"resourceType": "Basic", "id": "inside", "code": {"text": "inside"}}]
    head = {"resourceType": type_, "id": id_, "text": narrative}
    return {**head, "contained": contained, **made}


def _object(model: Any, depth: int, forms: Mapping[str, str]) -> Json:
    made: Json = {}
    names = dict(_fields(model))
    chosen = {entry: name for entry, name in forms.items() if name in names}
    for name, field in names.items():
        more = field.json_schema_extra or {}
        left_out = _LEFT_OUT_OF.get(model.__name__, {"text"} if depth == 1 else set())
        if {name, more.get("one_of_many")} & left_out:
            continue
        if (entry := more.get("one_of_many")) and chosen.setdefault(entry, name) != name:
            continue
        value = _CODES.get(name) or _value(field, depth, more, forms)
        if value is None:
            continue
        many = _is_list(field.annotation)
        made[name] = [value, *([_second(value)] if depth == 1 else [])] if many else value
        if not isinstance(value, dict) and depth < 3:
            beside = {"extension": [_extension(name)]}
            made[f"_{name}"] = [None, beside] if many else beside
    return made


def _second(value: Any) -> Any:
    """Another item, that can be told from the first."""
    return {**value, "id": "second"} if isinstance(value, dict) else value


def _extension(name: str) -> Json:
    return {"url": f"http://sample.example/of-{name}", "valueDecimal": Decimal("1.00")}


@cache
def _fields(model: Any) -> tuple[tuple[str, Any], ...]:
    named = ((field.alias or key, field) for key, field in model.model_fields.items())
    return tuple(item for item in named if item[0] not in _LEFT_OUT and item[0][0] != "_")


def _value(field: Any, depth: int, more: Mapping[str, Any], forms: Mapping[str, str]) -> Any:
    codes = [code for code in more.get("enum_values", ()) if code != "+"]
    for part in _parts(field.annotation):
        if get_model := getattr(part, "get_model_klass", None):
            required = field.is_required() or more.get("one_of_many_required")
            deep = depth >= _DEEPEST and not required
            return None if deep else _complex(get_model(), depth, more, forms)
        if (kind := type(part).__name__) in _PRIMITIVES:
            return codes[0] if codes else _PRIMITIVES[kind]
        if part is bool:
            return True
        if part is Decimal:
            return _PRIMITIVES["Decimal"]
    raise AssertionError(f"what is {field.annotation}?")


def _complex(
    model: Any, depth: int, more: Mapping[str, Any], forms: Mapping[str, str]
) -> Json | None:
    name = model.__name__
    if name == "Extension":
        return _extension(str(depth))
    if name == "Reference":
        type_ = next(iter(more.get("enum_reference_types", ())), "Patient")
        type_ = "Basic" if type_ == "Resource" else type_
        return {"reference": f"{type_}/some-{type_.lower()}", "display": "some display"}
    if name in ("Resource", "Meta"):
        return None
    return _object(model, depth + 1, forms)


def _parts(annotation: Any) -> Iterator[Any]:
    """What an annotation is made of: List[Annotated[str, Code()]] | None has a Code."""
    if hasattr(annotation, "__metadata__"):
        yield from annotation.__metadata__
    if args := get_args(annotation):
        for item in args:
            yield from _parts(item)
    yield annotation


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(map(_is_list, get_args(annotation)))
