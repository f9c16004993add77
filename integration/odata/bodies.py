"""What a client writes, checked against the entity type. Pure.

A value for a column that cannot be written is refused, not dropped as OData would have it for
computed properties: whoever entered it would believe it kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, TypeVar

from integration.core import decimal_json
from integration.core.decimal_json import Malformed
from integration.core.errors import Rejected
from integration.odata import literals
from integration.odata.model import EntityType, Property, Type, Value
from integration.odata.refusals import BadRequest, NotSupported, UnknownProperty

_T = TypeVar("_T")

_MAX_DEPTH = 10
_RANGES = {Type.INT32: 2**31, Type.INT64: 2**63}

# Control information that says what to do, and so cannot be ignored.
_ORDERS = frozenset({"odata.bind", "bind", "odata.removed", "removed", "odata.delta", "delta"})


def parse_new_entity(
    body: bytes, entity: EntityType, *, numbers_as_text: bool = False
) -> dict[str, Value]:
    """The values of a new entity; the client may have chosen its key. Raises Rejected."""
    return _values(body, entity, numbers_as_text)


def parse_changes(
    body: bytes, entity: EntityType, *, numbers_as_text: bool = False
) -> dict[str, Value]:
    """The values that are to change. A key in it is ignored, as OData says: the address has it.
    https://docs.oasis-open.org/odata/odata/v4.0/errata03/os/complete/part1-protocol/odata-v4.0-errata03-os-part1-protocol-complete.html#_Toc453752300
    Raises Rejected."""
    values = _values(body, entity, numbers_as_text)
    values.pop(entity.key, None)
    return values


def _values(body: bytes, entity: EntityType, numbers_as_text: bool) -> dict[str, Value]:
    return {
        name: _value(value, _writable(name, entity), numbers_as_text)
        for name, value in _stated(body).items()
        if not _is_control(name)
    }


def _stated(body: bytes) -> Mapping[str, Any]:
    try:
        stated = decimal_json.decode(body)
    except Malformed as error:
        raise BadRequest(f"the body is {error}") from None
    if not isinstance(stated, dict):
        raise BadRequest("the body is no JSON object")
    if decimal_json.is_too_deep(stated, _MAX_DEPTH):
        raise BadRequest(f"the body is nested more than {_MAX_DEPTH} levels deep")
    return stated


def _is_control(name: str) -> bool:
    """Control information and annotations are ignored, but for what orders something.
    https://docs.oasis-open.org/odata/odata-json-format/v4.0/errata03/os/odata-json-format-v4.0-errata03-os-complete.html#_Toc453766619"""
    _, sign, term = name.partition("@")
    if sign and term.lower() in _ORDERS:
        raise NotSupported(
            f"@{term.lower()} is not offered; a lookup is written by its own property"
        )
    return bool(sign)


def _writable(name: str, entity: EntityType) -> Property:
    found = entity.by_name.get(name)
    if found is None:
        raise UnknownProperty(name, entity.set)
    if not found.writable and name != entity.key:
        raise BadRequest(f"{name} cannot be written", name)
    return found


def _value(value: Any, of: Property, numbers_as_text: bool) -> Value:
    if value is None:
        if not of.nullable:
            raise BadRequest(f"{of.name} cannot be null", of.name)
        return None
    return _READ[of.type](value, of, numbers_as_text)


def _string(value: Any, of: Property, _: bool) -> str:
    if not isinstance(value, str):
        raise _unlike(of)
    if of.max_length is not None and len(value) > of.max_length:
        raise BadRequest(f"{of.name} takes up to {of.max_length} characters", of.name)
    return value


def _boolean(value: Any, of: Property, _: bool) -> bool:
    if not isinstance(value, bool):
        raise _unlike(of)
    return value


def _integer(value: Any, of: Property, as_text: bool) -> int:
    number = _number(value, of, as_text and of.type == Type.INT64)
    if not isinstance(number, int):
        raise _unlike(of)
    if not -_RANGES[of.type] <= number < _RANGES[of.type]:
        raise BadRequest(f"{of.name} is beyond {of.type}", of.name)
    return number


def _decimal(value: Any, of: Property, as_text: bool) -> Decimal:
    number = Decimal(_number(value, of, as_text))
    _, digits, exponent = number.as_tuple()
    places = max(0, -exponent) if isinstance(exponent, int) else 0
    # A number with an exponent beyond reason has as many digits.
    whole = number.adjusted() + 1
    if of.scale is not None and places > of.scale:
        raise BadRequest(f"{of.name} takes up to {of.scale} decimal places", of.name)
    if of.precision is not None and max(len(digits), whole, whole + places) > of.precision:
        raise BadRequest(f"{of.name} takes up to {of.precision} digits", of.name)
    return number


def _number(value: Any, of: Property, as_text: bool) -> int | Decimal:
    if isinstance(value, str) and as_text:
        return _read(literals.parse_number, value, of)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise _unlike(of)
    return value


def _text_of(reader: Callable[[str], Value]) -> Callable[[Any, Property, bool], Value]:
    def read(value: Any, of: Property, _: bool) -> Value:
        return _read(reader, value, of)

    return read


def _read(reader: Callable[[str], _T], value: Any, of: Property) -> _T:
    try:
        return reader(value)
    except (ValueError, TypeError):
        raise _unlike(of) from None


def _unlike(of: Property) -> Rejected:
    return BadRequest(f"{of.name} is {of.type}", of.name)


_READ: dict[Type, Callable[[Any, Property, bool], Value]] = {
    Type.STRING: _string,
    Type.BOOLEAN: _boolean,
    Type.INT32: _integer,
    Type.INT64: _integer,
    Type.DECIMAL: _decimal,
    Type.DATE_TIME_OFFSET: _text_of(literals.parse_datetime),
    Type.GUID: _text_of(literals.parse_guid),
}
