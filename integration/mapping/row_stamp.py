"""What a row says of how it was made: by which map, on which day, and a seal over all of it. Pure.

    0f3a9c21b7de 2026-12-01 5c1d0e9a77b3

A map makes other values of the same version on another day (what is in use), with other columns (an
option, a length) and in another release. And somebody may give a row to another resource by its
columns of id and version. So the seal covers the resource, its version, the day, the map, the
columns and the engine: where it fits, what the map makes now of that version, on that day, is what
the mirror has written, and whatever differs was changed by somebody else. Where it does not fit,
nobody can tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from hashlib import sha256
from typing import Any

from integration.core.errors import Unmappable
from integration.core.model import Columns, Row, Tables
from integration.mapping.model import EntityMap
from integration.mapping.same_object import SameObject
from integration.mapping.values import format_utc, parse_instant

# The length of a stamp. A column that is shorter has the digest of the map alone.
LENGTH = 12 + 1 + 10 + 1 + 12

# To be raised when the engine makes other values of the same map.
_ENGINE = 1

_STAMP = re.compile(r"([0-9a-z]{1,12}) (\d{4}-\d\d-\d\d) ([0-9a-f]{12})", re.ASCII)


@dataclass(frozen=True, slots=True)
class RowStamp:
    """A stamp that was read from a row. `map_digest`: of the map that made it."""

    text: str
    map_digest: str
    day: date


def build_stamp(entity: EntityMap, resource: Mapping[str, Any], columns: Columns, day: date) -> str:
    """Return the stamp of a row that `entity` makes of this resource on a day."""
    shape = _describe_columns(SameObject(entity), SameObject(columns))
    name = f"{entity.resource}/{resource.get('id')}"
    text = f"{name} {_describe_version(resource)} {day} {entity.digest} {_ENGINE} {shape}"
    return f"{entity.digest} {day.isoformat()} {sha256(text.encode()).hexdigest()[:12]}"


def parse_stamp(text: object) -> RowStamp | None:
    """Return the stamp in a column; None: it has none."""
    match = _STAMP.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    try:
        return RowStamp(match[0], match[1], date.fromisoformat(match[2]))
    except ValueError:
        return None


def can_hold_stamp(entity: EntityMap, columns: Columns) -> bool:
    """Whether the column of stamps is there, and long enough."""
    column = columns.get(entity.map_column or "")
    return column is not None and (column.max_length is None or column.max_length >= LENGTH)


def is_made_of(
    stamp: RowStamp, entity: EntityMap, resource: Mapping[str, Any], columns: Columns
) -> bool:
    """Whether this map, with these columns, has made the row of this very version."""
    return build_stamp(entity, resource, columns, stamp.day) == stamp.text


def is_stamp_good(
    entity: EntityMap, resource: Mapping[str, Any], row: Row | None, tables: Tables
) -> bool:
    """Whether the stamp of a row proves that the map in use has made it of this resource. A row
    that is to be written anyway, since it shows another version, gets a new one."""
    meta = resource.get("meta")
    version = meta.get("versionId") if isinstance(meta, Mapping) else None
    if row is None or row.get(entity.version_column) != version:
        return True
    stamp = parse_stamp(row.get(entity.map_column or ""))
    return stamp is not None and is_made_of(stamp, entity, resource, tables[entity.table])


def read_map_digest(text: object) -> str | None:
    """Return which map has made a row, whether its stamp is whole or not; None: it does not say."""
    return text.partition(" ")[0] if isinstance(text, str) and text else None


def _describe_version(resource: Mapping[str, Any]) -> str:
    """A server that was restored comes to the same numbers again, at other times."""
    meta = resource.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    updated = meta.get("lastUpdated")
    try:
        updated = format_utc(parse_instant(updated))
    except Unmappable:
        pass
    return f"{meta.get('versionId')} {updated}"


@lru_cache(maxsize=64)
def _describe_columns(entity: SameObject, columns: SameObject) -> str:
    """Return a digest of what the columns of a map take."""
    known: Columns = columns.value
    described = [
        (name, column.type, column.max_length, sorted(column.options or ()), column.behavior,
         str(column.minimum), str(column.maximum), column.precision)
        for name in sorted({*entity.value.columns})
        if (column := known.get(name)) is not None
    ]  # fmt: skip
    return sha256(repr(described).encode()).hexdigest()[:12]
