"""Build the path of a FHIR search: https://hl7.org/fhir/R4/search.html. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

Parameters = tuple[tuple[str, str], ...]

# https://hl7.org/fhir/R4/search.html#escaping
_SPECIAL = re.compile(r"[\\$,|]")


def escape(value: str) -> str:
    """Escape a value, so that it is searched for literally."""
    return _SPECIAL.sub(lambda match: f"\\{match[0]}", value)


def join_or(values: Iterable[str]) -> str:
    """Return a value that matches any of these. Each is escaped."""
    return ",".join(map(escape, values))


def build_path(type_: str, parameters: Iterable[tuple[str, str]]) -> str:
    """Return the path of a search, relative to the FHIR server's base address."""
    text = "&".join(
        f"{quote(name, safe=':')}={quote(value, safe='')}" for name, value in parameters
    )
    return f"{type_}?{text}" if text else type_
