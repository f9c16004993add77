"""Converts a column's value, as OData has it, to an element's. Pure.

What FHIR or the column cannot hold raises Unmappable; nothing is cut, rounded or trimmed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from integration.core.errors import Unmappable
from integration.core.model import Column
from integration.mapping.model import AttributeMap, Kind, Lookup
from integration.mapping.values import clean_text

# The smallest value of each; the largest is the same.
_INTEGERS = {"integer": -(2**31), "unsignedInt": 0, "positiveInt": 1}
_NUMBERS = frozenset({"decimal", *_INTEGERS})
_TEXTS = frozenset("string markdown code uri url canonical oid uuid time".split())

# The types of elements that a kind can be written to; for copies, by the type of their column.
_ELEMENT_TYPES: Mapping[str, Collection[str]] = {
    Kind.DATE: {"date", "dateTime"},
    Kind.DATETIME: {"dateTime", "instant"},
    Kind.CHOICE: {*_TEXTS, *_INTEGERS, "boolean"},
    Kind.LOOKUP: {"Reference"},
    "string": _TEXTS,
    "memo": _TEXTS,
    "integer": _INTEGERS,
    "decimal": _NUMBERS,
    "boolean": {"boolean"},
}


def get_value_kind(attribute: AttributeMap) -> str:
    """Return the kind of an attribute; of a copy, the type of its column."""
    return attribute.virtual_column.type if attribute.kind is Kind.COPY else attribute.kind


def can_write(attribute: AttributeMap, type_: str) -> bool:
    """Whether an element of this type can be written from the column."""
    return type_ in _ELEMENT_TYPES.get(get_value_kind(attribute), ())


def convert_to_fhir(
    attribute: AttributeMap, value: Any, type_: str, column: Column, targets: Collection[str]
) -> Any:
    """Return `value` for an element of a type that the column can be written to.

    `targets` are the resource types that FHIR allows of a Reference, none for all. Raises
    Unmappable.
    """
    match attribute.kind, value:
        case Kind.DATE, datetime():
            return _to_utc(value).date().isoformat()
        case Kind.DATETIME, datetime():
            return _format_instant(_to_utc(value))
        case Kind.LOOKUP, Lookup(resource):
            return {"reference": _check_reference(attribute, resource, targets)}
        case Kind.CHOICE, bool() | int():
            return _parse_code(_find_code(attribute, value, column), type_)
        case Kind.COPY, str() if type_ in _TEXTS:
            return _check_text(value, column)
        case Kind.COPY, bool() if type_ == "boolean":
            return value
        case Kind.COPY, int() | Decimal() if type_ in _NUMBERS and not isinstance(value, bool):
            return _check_number(value, type_, column)
    raise Unmappable("the value is not of the column's type")


def _to_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise Unmappable("the time has no time zone")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise Unmappable("the time is outside the calendar") from None


def _format_instant(value: datetime) -> str:
    """https://hl7.org/fhir/R4/datatypes.html#instant"""
    precision = "milliseconds" if value.microsecond else "seconds"
    return f"{value.replace(tzinfo=None).isoformat(timespec=precision)}Z"


def _check_reference(attribute: AttributeMap, resource: str, targets: Collection[str]) -> str:
    type_ = resource.partition("/")[0]
    target = attribute.virtual_column.target
    if targets and type_ not in targets:
        raise Unmappable(f"FHIR allows no reference to {type_} here")
    if target not in (None, type_):
        raise Unmappable(f"the column is for rows of {target}")
    return resource


def _find_code(attribute: AttributeMap, value: int, column: Column) -> str:
    """Return the first code of the map that has this option."""
    for code in attribute.choices:
        if find_option(attribute, code, column) == value:
            return code
    raise Unmappable("the value is not an option of the column")


def find_option(attribute: AttributeMap, code: str, column: Column) -> int | None:
    """Return what the column shows for a code: the code's first option that the column has."""
    options = attribute.choices.get(code, ())
    known = (option for option in options if column.options is None or option in column.options)
    return next(known, None)


def _parse_code(code: str, type_: str) -> str | int | bool:
    """Return a code of the map as a value of the element's type."""
    if type_ == "boolean" and code in ("true", "false"):
        return code == "true"
    if type_ in _INTEGERS and code.isascii() and code.isdecimal():
        return int(code)
    if type_ in _TEXTS:
        return code
    raise Unmappable(f"the map's code for this option is no {type_}")


def _check_text(value: str, column: Column) -> str:
    """https://hl7.org/fhir/R4/datatypes.html#string"""
    problems: list[str] = []
    if clean_text(value, column.max_length, cut=False, note=problems.append) is None:
        raise Unmappable(
            "the text is longer than the column"
            if problems
            else "the text is empty: use null to clear the column"
        )
    if problems:
        raise Unmappable("the text has forbidden characters")
    return value


def _check_number(value: int | Decimal, type_: str, column: Column) -> int | Decimal:
    number = Decimal(value)
    if not number.is_finite():
        raise Unmappable("the value is not a number")
    if type_ != "decimal" and (value != int(value) or not _INTEGERS[type_] <= value < 2**31):
        raise Unmappable(f"the number is not one that {type_} allows")
    exponent = number.as_tuple().exponent
    if column.precision is not None and isinstance(exponent, int) and -exponent > column.precision:
        raise Unmappable(f"the number has more than {column.precision} decimal places")
    return value if type_ == "decimal" else int(value)
