"""Parse the bodies of creates and changes, and check them against the entity type. Pure.

A new value for a column that cannot be written is refused, not dropped as OData has it for computed
properties: the user who entered it would believe that it was saved. Clients that send back all that
they have read send such columns as they are: whoever changes the row compares them with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

from integration.core import decimal_json
from integration.core.decimal_json import Malformed
from integration.core.errors import Rejected
from integration.odata import literals
from integration.odata.model import EntityType, Property, Type, Value
from integration.odata.refusals import BadRequest, NotSupported, UnknownProperty

_T = TypeVar("_T")

_NO_KEY = UUID(int=0)

_MAX_DEPTH = 10
_RANGES = {Type.INT32: 2**31, Type.INT64: 2**63}

# Control information that instructs the server, and so cannot be ignored.
_INSTRUCTIONS = frozenset(
    {"odata.bind", "bind", "odata.removed", "removed", "odata.delta", "delta"}
)


@dataclass(frozen=True, slots=True)
class EntityChanges:
    """The values to change. `read_only`: values of properties that cannot be written."""

    values: Mapping[str, Value]
    read_only: Mapping[str, Value] = field(default_factory=dict)


def parse_new_entity(
    body: bytes, entity: EntityType, *, numbers_as_text: bool = False
) -> dict[str, Value]:
    """Parse the values of a new entity, of which the key may be one. Raises Rejected.

    An all-zero key, which .NET sends for none, is left out.
    """
    values = _parse_values(body, entity, numbers_as_text)
    if values.get(entity.key) == _NO_KEY:
        del values[entity.key]
    for name, value in values.items():
        if value is not None and name != entity.key and not entity.by_name[name].writable:
            raise build_read_only_error(name)
    return {
        name: value
        for name, value in values.items()
        if name == entity.key or entity.by_name[name].writable
    }


def parse_changes(
    body: bytes, entity: EntityType, *, numbers_as_text: bool = False
) -> EntityChanges:
    """Parse the values to change. A key in the body is ignored, since the address has it:
    https://docs.oasis-open.org/odata/odata/v4.0/errata03/os/complete/part1-protocol/odata-v4.0-errata03-os-part1-protocol-complete.html#_Toc453752300
    Raises Rejected."""
    values = _parse_values(body, entity, numbers_as_text)
    values.pop(entity.key, None)
    writable = {name: value for name, value in values.items() if entity.by_name[name].writable}
    read_only = {name: value for name, value in values.items() if name not in writable}
    return EntityChanges(writable, read_only)


def build_read_only_error(name: str) -> Rejected:
    """Build the refusal of a new value for a column that cannot be written."""
    return BadRequest(f"{name} cannot be written", name)


def _parse_values(body: bytes, entity: EntityType, numbers_as_text: bool) -> dict[str, Value]:
    return {
        name: _parse_value(value, _find_property(name, entity), numbers_as_text)
        for name, value in _decode_body(body).items()
        if not _is_annotation(name)
    }


def _decode_body(body: bytes) -> Mapping[str, Any]:
    try:
        stated = decimal_json.decode(body)
    except Malformed as error:
        raise BadRequest(f"the body is {error}") from None
    if not isinstance(stated, dict):
        raise BadRequest("the body is not a JSON object")
    if decimal_json.is_too_deep(stated, _MAX_DEPTH):
        raise BadRequest(f"the body is nested more than {_MAX_DEPTH} levels deep")
    return stated


def _is_annotation(name: str) -> bool:
    """Whether it is control information or an annotation, which are ignored but for instructions.
    https://docs.oasis-open.org/odata/odata-json-format/v4.0/errata03/os/odata-json-format-v4.0-errata03-os-complete.html#_Toc453766619"""
    _, sign, term = name.partition("@")
    if sign and term.lower() in _INSTRUCTIONS:
        raise NotSupported(f"@{term.lower()} is not offered; write a lookup by its own property")
    return bool(sign)


def _find_property(name: str, entity: EntityType) -> Property:
    found = entity.by_name.get(name)
    if found is None:
        raise UnknownProperty(name, entity.set)
    return found


def _parse_value(value: Any, property_: Property, numbers_as_text: bool) -> Value:
    if value is None:
        if not property_.nullable:
            raise BadRequest(f"{property_.name} cannot be null", property_.name)
        return None
    return _PARSERS[property_.type](value, property_, numbers_as_text)


def _parse_string(value: Any, property_: Property, _: bool) -> str:
    if not isinstance(value, str):
        raise _build_type_error(property_)
    if property_.max_length is not None and len(value) > property_.max_length:
        raise BadRequest(
            f"{property_.name} takes up to {property_.max_length} characters", property_.name
        )
    return value


def _parse_boolean(value: Any, property_: Property, _: bool) -> bool:
    if not isinstance(value, bool):
        raise _build_type_error(property_)
    return value


def _parse_integer(value: Any, property_: Property, as_text: bool) -> int:
    number = _parse_number(value, property_, as_text and property_.type == Type.INT64)
    if not isinstance(number, int):
        raise _build_type_error(property_)
    if not -_RANGES[property_.type] <= number < _RANGES[property_.type]:
        raise BadRequest(f"{property_.name} is beyond {property_.type}", property_.name)
    return number


def _parse_decimal(value: Any, property_: Property, as_text: bool) -> Decimal:
    number = Decimal(_parse_number(value, property_, as_text))
    _, digits, exponent = number.as_tuple()
    places = max(0, -exponent) if isinstance(exponent, int) else 0
    # A number with a huge exponent has that many digits.
    whole = number.adjusted() + 1
    if property_.scale is not None and places > property_.scale:
        raise BadRequest(
            f"{property_.name} takes up to {property_.scale} decimal places", property_.name
        )
    if (
        property_.precision is not None
        and max(len(digits), whole, whole + places) > property_.precision
    ):
        raise BadRequest(
            f"{property_.name} takes up to {property_.precision} digits", property_.name
        )
    return number


def _parse_number(value: Any, property_: Property, as_text: bool) -> int | Decimal:
    if isinstance(value, str) and as_text:
        return _parse_text(literals.parse_number, value, property_)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise _build_type_error(property_)
    return value


def _build_text_parser(parse: Callable[[str], Value]) -> Callable[[Any, Property, bool], Value]:
    def parse_value(value: Any, property_: Property, _: bool) -> Value:
        return _parse_text(parse, value, property_)

    return parse_value


def _parse_text(parse: Callable[[str], _T], value: Any, property_: Property) -> _T:
    try:
        return parse(value)
    except (ValueError, TypeError):
        raise _build_type_error(property_) from None


def _build_type_error(property_: Property) -> Rejected:
    return BadRequest(f"{property_.name} is {property_.type}", property_.name)


_PARSERS: dict[Type, Callable[[Any, Property, bool], Value]] = {
    Type.STRING: _parse_string,
    Type.BOOLEAN: _parse_boolean,
    Type.INT32: _parse_integer,
    Type.INT64: _parse_integer,
    Type.DECIMAL: _parse_decimal,
    Type.DATE_TIME_OFFSET: _build_text_parser(literals.parse_datetime),
    Type.GUID: _build_text_parser(literals.parse_guid),
}
