"""The place of a write among all writes of its resource, if its source states it. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from integration.fhir.entries import Entry

# Servers write up to seven digits of a second; Python keeps six.
_FRACTION = re.compile(r"[.,](\d{1,9})\d*")
_DIGITS = 9

_VERSION_DIGITS = 20

# Enough for any version of a real server, and fast to parse.
_MAX_NUMBER_DIGITS = 18


def derive_source_version(entry: Entry, write_order: str) -> str | None:
    """Return a text that sorts as the writes do; None if the source states none.

    `write_order` is the setting WRITE_ORDER; "arrival" and "off" do not use the source.
    https://hl7.org/fhir/R4/resource-definitions.html#Meta.versionId: versions are whole numbers by
    convention only, and others cannot be compared.
    """
    if write_order not in ("lastUpdated", "version"):
        return None
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


def parse_version_number(stated: object) -> int | None:
    """Return a versionId that is a whole number; None for any other."""
    if isinstance(stated, str) and stated.isascii() and stated.isdigit():
        return int(stated[:_MAX_NUMBER_DIGITS])
    return None


def normalize_instant(instant: object) -> str | None:
    """Return a FHIR instant in UTC, with nine digits of a second, so that it sorts as text; None if
    it is no instant."""
    try:
        read = datetime.fromisoformat(instant) if isinstance(instant, str) else None
        if read is None or read.tzinfo is None:
            return None
        whole = read.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        return None
    found = _FRACTION.search(str(instant))
    return f"{whole:0>19}.{(found[1] if found else ''):0<{_DIGITS}}Z"
