"""What repeats of a delivery share, where it stands in the body. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from integration.core import decimal_json

# Longer values are no keys, and would only be hashed in vain.
_MAX_VALUES = 100


def read_content_key(body: bytes, pointers: Sequence[str]) -> str | None:
    """Return what stands at all pointers of a JSON body, as one text; None unless each has a value.

    A pointer is of RFC 6901 (https://www.rfc-editor.org/rfc/rfc6901), and `*` stands for every item
    of a list: `/entry/0/resource/notificationEvent/*/id`.
    """
    if not pointers:
        return None
    try:
        value = decimal_json.decode(body)
    except decimal_json.Malformed:
        return None  # what reads the body says what is wrong
    found = [list(_find(value, _split(pointer))) for pointer in pointers]
    if not all(found) or sum(map(len, found)) > _MAX_VALUES:
        return None
    return decimal_json.encode(found).decode()


def _split(pointer: str) -> list[str]:
    parts = pointer.removeprefix("/").split("/")
    return [part.replace("~1", "/").replace("~0", "~") for part in parts]


def _find(value: Any, parts: Sequence[str]) -> Iterator[Any]:
    """Yield the texts and numbers at a pointer."""
    if not parts:
        if isinstance(value, str | int) and not isinstance(value, bool):
            yield str(value)
        return
    first, *rest = parts
    if isinstance(value, dict) and first in value:
        yield from _find(value[first], rest)
    elif isinstance(value, list) and first == "*":
        for item in value:
            yield from _find(item, rest)
    elif isinstance(value, list) and first.isascii() and first.isdigit() and len(first) < 7:
        for item in value[int(first) : int(first) + 1]:
            yield from _find(item, rest)
