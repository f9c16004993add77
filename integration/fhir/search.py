"""The address of a search: https://hl7.org/fhir/R4/search.html. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

Parameters = tuple[tuple[str, str], ...]

# https://hl7.org/fhir/R4/search.html#escaping
_SPECIAL = re.compile(r"[\\$,|]")


def escape(value: str) -> str:
    """A value that stands for itself alone."""
    return _SPECIAL.sub(lambda match: f"\\{match[0]}", value)


def join_or(values: Iterable[str]) -> str:
    """One of these: each is escaped."""
    return ",".join(map(escape, values))


def build_path(type_: str, parameters: Iterable[tuple[str, str]]) -> str:
    """Relative to the server's."""
    text = "&".join(
        f"{quote(name, safe=':')}={quote(value, safe='')}" for name, value in parameters
    )
    return f"{type_}?{text}" if text else type_
