"""Parse primitive values as OData writes them, in URLs and in JSON. Pure.

https://docs.oasis-open.org/odata/odata/v4.01/os/abnf/odata-abnf-construction-rules.txt
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from uuid import UUID

GUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
DATETIME = (
    DATE + r"[Tt][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,12})?)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
NUMBER = r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
STRING = r"'(?:[^']|'')*'"

_GUID = re.compile(GUID)
_DATETIME = re.compile(DATETIME)
_NUMBER = re.compile(NUMBER)
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


def parse_guid(text: str) -> UUID:
    """Parse an Edm.Guid. Raises ValueError."""
    if not _GUID.fullmatch(text):
        raise ValueError("not an Edm.Guid")
    return UUID(text)


def parse_datetime(text: str) -> datetime:
    """Parse an Edm.DateTimeOffset, to UTC and microseconds. Raises ValueError.

    A seventh digit, which .NET writes even in its largest date, is cut off.
    """
    if not _DATETIME.fullmatch(text):
        raise ValueError("not an Edm.DateTimeOffset")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError:
        raise ValueError("beyond the years 1 to 9999") from None


def parse_date(text: str) -> datetime:
    """Parse an Edm.Date, to its midnight in UTC as the feed shows dates. Raises ValueError."""
    return parse_datetime(f"{text}T00:00:00Z")


def parse_number(text: str) -> int | Decimal:
    """Parse a number exactly, whatever its size. Raises ValueError."""
    if _INTEGER.fullmatch(text):
        return int(text)
    if not _NUMBER.fullmatch(text):
        raise ValueError("not a number")
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError("a number beyond any decimal") from None


def parse_string(text: str) -> str:
    """Remove the quotes. A quote in the text is doubled."""
    return text[1:-1].replace("''", "'")
