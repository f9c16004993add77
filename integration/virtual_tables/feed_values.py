"""Converts one FHIR value for a property of the feed. Pure.

Dataverse's provider has neither dates nor times alone: a date becomes its midnight in UTC.
https://learn.microsoft.com/power-apps/maker/data-platform/virtual-entity-odata-provider-requirements

A lookup is the `Type/id` of the resource that it leads to, until the key of its row is known.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from integration.core.errors import Unmappable
from integration.core.model import Column
from integration.mapping import usual_values
from integration.mapping.model import AttributeMap, Concept, Kind, Lookup, PartialDate
from integration.mapping.usual_values import UNUSUAL, Unusual
from integration.mapping.values import MAX_CONCEPT_NAME, MAX_CONCEPT_TEXT, parse_reference
from integration.odata.model import Value

Convert = Callable[[Any, str | None], Any]

# References that are kept: those of a few hundred pages.
_MAX_REFERENCES = 20_000


def convert_mapped(attribute: AttributeMap, value: Any) -> Value:
    """Return the value of a column, as the mapping engine makes it, as the feed has it."""
    match attribute.kind:
        case Kind.LOOKUP:
            return _find_target(attribute, value) if isinstance(value, Lookup) else None
        case Kind.DATE | Kind.DATETIME:
            return None if value is None else parse_datetime(value)
        case Kind.CONCEPT:
            return value.name if isinstance(value, Concept) else None
    converted: Value = value
    return converted


def parse_datetime(text: str) -> datetime:
    """Return the instant that a column of the mapping engine has."""
    parsed = datetime.fromisoformat(text)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def build_converter(attribute: AttributeMap, column: Column) -> Convert:
    """Return what converts the usual values of an attribute, given the address of the FHIR server
    for its references; it returns UNUSUAL for others."""
    match attribute.kind:
        case Kind.LOOKUP:
            return _build_lookup_converter(attribute)
        case Kind.DATE:
            return lambda value, base: _convert_day(value)
        case Kind.DATETIME if attribute.partial is PartialDate.FIRST:
            return lambda value, base: _convert_instant_or_day(value)
        case Kind.DATETIME:
            return lambda value, base: usual_values.parse_instant(value)
        case Kind.CONCEPT:
            return lambda value, base: _convert_concept(value)
        case Kind.COPY if column.type == "Decimal":
            return lambda value, base: _convert_decimal(value)
    convert = usual_values.build_converter(attribute, column)
    return lambda value, base: convert(value)


def _build_lookup_converter(attribute: AttributeMap) -> Convert:
    def convert(value: Any, base: str | None) -> Any:
        literal = value.get("reference") if type(value) is dict else value
        if type(literal) is not str:
            return UNUSUAL
        lookup = _parse_reference(literal, base)
        return None if lookup is None else _find_target(attribute, lookup)

    return convert


@lru_cache(maxsize=_MAX_REFERENCES)
def _parse_reference(literal: str, base: str | None) -> Lookup | None:
    """Return the lookup of a reference: most resources of a page refer to the same ones. None: it
    is not to a resource of this server."""
    try:
        return parse_reference(literal, base)
    except Unmappable:
        return None


def _find_target(attribute: AttributeMap, lookup: Lookup) -> str | None:
    """Return `Type/id` that a lookup refers to, if the lookup is for resources of that type."""
    type_ = attribute.virtual_column.target
    return lookup.resource if type_ in (None, lookup.resource.partition("/")[0]) else None


def _convert_day(value: Any) -> datetime | Unusual:
    day = usual_values.parse_day(value)
    return UNUSUAL if isinstance(day, Unusual) else datetime(*day.timetuple()[:3], tzinfo=UTC)


def _convert_instant_or_day(value: Any) -> datetime | Unusual:
    """A day begins with its first second."""
    found = _convert_day(value)
    return usual_values.parse_instant(value) if isinstance(found, Unusual) else found


def _convert_concept(value: Any) -> Any:
    """Return the name of a CodeableConcept whose first coding has a code."""
    if type(value) is not dict:
        return UNUSUAL
    codings, text = value.get("coding"), value.get("text")
    if type(codings) is not list or not codings or type(codings[0]) is not dict:
        return UNUSUAL
    code, display = codings[0].get("code"), codings[0].get("display")
    name = display if display is not None else text if text is not None else code
    if not _is_plain(code, MAX_CONCEPT_NAME) or not _is_plain(name, MAX_CONCEPT_NAME):
        return UNUSUAL
    if text is not None and not _is_plain(text, MAX_CONCEPT_TEXT):
        return UNUSUAL
    return name


def _is_plain(text: Any, max_length: int) -> bool:
    return (
        type(text) is str
        and 0 < len(text) <= max_length
        and text.isascii()
        and text.isprintable()
        and text[0] != " " != text[-1]
    )


def _convert_decimal(value: Any) -> Any:
    if type(value) is int and -(10**9) < value < 10**9:
        return Decimal(value)
    if type(value) is Decimal and value.is_finite() and -9 < value.adjusted() < 9:
        return value
    return UNUSUAL
