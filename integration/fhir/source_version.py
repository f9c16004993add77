"""Where a write stands among all writes of its resource, if its source says. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from integration.fhir.entries import Entry

# Servers write up to seven digits of a second, and Python keeps six.
_FRACTION = re.compile(r"[.,](\d{1,9})\d*")
_DIGITS = 9

_VERSION_DIGITS = 20


def derive_source_version(entry: Entry, write_order: str) -> str | None:
    """Text whose order is that of the writes: "arrival" and "off" ask nothing of the source.

    https://hl7.org/fhir/R4/resource-definitions.html#Meta.versionId: whole numbers by convention
    alone, so that other versions stand nowhere.
    """
    meta = (entry.resource or {}).get("meta") if entry.method != "PATCH" else None
    known_meta = meta if isinstance(meta, dict) else {}
    if write_order == "lastUpdated":
        at = normalize_instant(known_meta.get("lastUpdated") or entry.updated)
        return at and f"u:{at}"
    if write_order == "version":
        number = str(known_meta.get("versionId") or entry.version)
        whole = number.isascii() and number.isdigit() and len(number) <= _VERSION_DIGITS
        return f"v:{number:0>{_VERSION_DIGITS}}" if whole else None
    return None


def normalize_instant(instant: object) -> str | None:
    """An instant in UTC, every digit in its place."""
    try:
        read = datetime.fromisoformat(instant) if isinstance(instant, str) else None
        if read is None or read.tzinfo is None:
            return None
        whole = read.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (ValueError, OverflowError):
        return None
    found = _FRACTION.search(str(instant))
    return f"{whole:0>19}.{(found[1] if found else ''):0<{_DIGITS}}Z"
