"""JSON in which a decimal keeps every digit it came with.

FHIR gives meaning to the precision of a decimal: 1.10 is not 1.1
(https://hl7.org/fhir/R4/datatypes.html#decimal). A float would lose it, so decimals are
`decimal.Decimal` from the endpoint to the FHIR server.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

Raw = msgspec.Raw

_decoder = msgspec.json.Decoder(float_hook=Decimal)
_encoder = msgspec.json.Encoder(decimal_format="number")

_CONTAINERS = frozenset({dict, list})

# https://datatracker.ietf.org/doc/html/rfc8259#section-2
_SPACE = b" \t\r\n"

# Far beyond any real resource, far below the recursion limit of Python and of FHIR servers.
MAX_DEPTH = 100


class Malformed(ValueError):
    """Not JSON, or nested too deeply. The text says why and where, without quoting the JSON.
    `line`: where it breaks off; None: that is not known."""

    def __init__(self, text: str, line: int | None = None) -> None:
        super().__init__(text)
        self.line = line


def decode(data: bytes) -> Any:
    """Parse UTF-8 JSON. Raises Malformed."""
    try:
        return _decoder.decode(data)
    except RecursionError:
        raise Malformed(f"nested more than {MAX_DEPTH} levels deep") from None
    except InvalidOperation:
        raise Malformed("JSON with a number beyond any decimal") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(*_explain(error, data)) from None


def decode_object(data: bytes) -> dict[str, Any] | None:
    """Parse a JSON object. None: the data is not JSON, or not an object."""
    try:
        found = decode(data)
    except Malformed:
        return None
    return found if isinstance(found, dict) else None


def encode(value: Any) -> bytes:
    """Serialise to JSON. A `Raw` inside is written as it is."""
    return _encoder.encode(value)


def is_too_deep(value: Any, limit: int = MAX_DEPTH) -> bool:
    """Whether containers are nested more than `limit` levels. Linear, without recursion."""
    return count_names(value, limit) is None


def count_names(value: Any, limit: int = MAX_DEPTH) -> int | None:
    """Return how many names the objects of a JSON value have; None if it is nested more than
    `limit` levels. Linear; recursive as far as `limit`, which costs less than a list of each level.
    """
    try:
        return _count_names(value, limit) if type(value) in _CONTAINERS else 0
    except RecursionError:
        return None


def _count_names(container: Any, limit: int) -> int:
    if not limit:
        raise RecursionError
    if type(container) is dict:
        names, values = len(container), container.values()
    else:
        names, values = 0, container
    for inner in values:
        if type(inner) in _CONTAINERS:
            names += _count_names(inner, limit - 1)
    return names


def _explain(error: Exception, data: bytes) -> tuple[str, int | None]:
    if isinstance(error, UnicodeDecodeError) or "utf-8" in str(error).lower():
        return "not UTF-8", None
    position = re.search(r"\(byte (\d+)\)", str(error))
    if position is not None:
        line, column = _find_place(data, _find_fault(str(error), data, int(position[1])))
        return f"not JSON: line {line}, column {column}", line
    if "truncated" in str(error):
        line, column = _find_place(data, len(data.rstrip()))
        return f"JSON that ends too early: line {line}, column {column}", line
    return "not JSON", None


def _find_fault(why: str, data: bytes, position: int) -> int:
    """Return where something is missing or too much. `position`: where the parser noticed it: at
    the next token. Where that stands on a later line, it is behind the token before."""
    end = len(data[:position].rstrip(_SPACE))
    if b"\n" not in data[end:position]:
        return position
    noticed = data[position : position + 1]
    is_missing = "expected ':'" in why or ("expected ','" in why and noticed not in (b"}", b"]"))
    is_value_missing = data[end - 1 : end] == b":" and noticed in (b",", b"}", b"]")
    if "trailing comma" in why:
        return end - 1
    return end if is_missing or is_value_missing else position


def _find_place(data: bytes, position: int) -> tuple[int, int]:
    """Return line and column of a byte. A column counts characters, as an editor does."""
    before = data[:position]
    start = before.rfind(b"\n") + 1
    return before.count(b"\n") + 1, len(before[start:].decode(errors="replace")) + 1
