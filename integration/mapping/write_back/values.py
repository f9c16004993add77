"""A value of the feed as FHIR writes it. Pure.

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
from integration.mapping.values import text

_INTEGERS = {"integer": -(2**31), "unsignedInt": 0, "positiveInt": 1}
_NUMBERS = frozenset({"decimal", *_INTEGERS})
_TEXTS = frozenset("string markdown code uri url canonical oid uuid time".split())

# The types of elements that a kind can be written to; what is copied, by the type of its column.
_ENDS: Mapping[str, Collection[str]] = {
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


def takes(attribute: AttributeMap, type_: str) -> bool:
    """Whether an element of this type can be written from the column."""
    kind = attribute.virtual_column.type if attribute.kind is Kind.COPY else attribute.kind
    return type_ in _ENDS.get(kind, ())


def fhir_value(
    attribute: AttributeMap,
    value: Any,
    type_: str,
    column: Column,
    targets: Collection[str],
) -> Any:
    """`value` for an element of a type that the column `takes`; `targets` are those that FHIR
    allows of a Reference, none for all."""
    match attribute.kind, value:
        case Kind.DATE, datetime():
            return _utc(value).date().isoformat()
        case Kind.DATETIME, datetime():
            return _moment(_utc(value))
        case Kind.LOOKUP, Lookup(resource):
            return {"reference": _reference(attribute, resource, targets)}
        case Kind.CHOICE, bool() | int():
            return _literal(_code(attribute, value, column), type_)
        case Kind.COPY, str() if type_ in _TEXTS:
            return _text(value, column)
        case Kind.COPY, bool() if type_ == "boolean":
            return value
        case Kind.COPY, int() | Decimal() if type_ in _NUMBERS and not isinstance(value, bool):
            return _number(value, type_, column)
    raise Unmappable("not a value of the column's type")


def _utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise Unmappable("a time without a time zone")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise Unmappable("outside the calendar") from None


def _moment(value: datetime) -> str:
    """https://hl7.org/fhir/R4/datatypes.html#instant"""
    precision = "milliseconds" if value.microsecond else "seconds"
    return f"{value.replace(tzinfo=None).isoformat(timespec=precision)}Z"


def _reference(attribute: AttributeMap, resource: str, targets: Collection[str]) -> str:
    type_ = resource.partition("/")[0]
    if targets and type_ not in targets:
        raise Unmappable(f"FHIR allows no reference to {type_} here")
    if attribute.virtual_column.target not in (None, type_):
        raise Unmappable(f"not a row of {attribute.virtual_column.target}")
    return resource


def _code(attribute: AttributeMap, value: int, column: Column) -> str:
    """The first code of the map whose option it is."""
    for code in attribute.choices:
        if option_of(attribute, code, column) == value:
            return code
    raise Unmappable("not an option of the column")


def option_of(attribute: AttributeMap, code: str, column: Column) -> int | None:
    """What the column shows for a code: the first option that it has."""
    options = attribute.choices.get(code, ())
    return next((one for one in options if column.options is None or one in column.options), None)


def _literal(code: str, type_: str) -> str | int | bool:
    if type_ == "boolean" and code in ("true", "false"):
        return code == "true"
    if type_ in _INTEGERS and code.isascii() and code.isdecimal():
        return int(code)
    if type_ in _TEXTS:
        return code
    raise Unmappable(f"the map has a code for it that is no {type_}")


def _text(value: str, column: Column) -> str:
    """As it is. https://hl7.org/fhir/R4/datatypes.html#string"""
    problems: list[str] = []
    if text(value, column.max_length, False, lambda why: problems.append(why)) is None:
        raise Unmappable("longer than the column" if problems else "empty: null clears a column")
    if problems:
        raise Unmappable("characters that no text may hold")
    return value


def _number(value: int | Decimal, type_: str, column: Column) -> int | Decimal:
    number = Decimal(value)
    if not number.is_finite():
        raise Unmappable("not a number")
    if type_ != "decimal" and (value != int(value) or not _INTEGERS[type_] <= value < 2**31):
        raise Unmappable(f"not a number that {type_} allows")
    exponent = number.as_tuple().exponent
    if column.precision is not None and isinstance(exponent, int) and -exponent > column.precision:
        raise Unmappable(f"more than {column.precision} decimal places")
    return value if type_ == "decimal" else int(value)
