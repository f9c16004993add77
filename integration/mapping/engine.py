"""Maps a FHIR resource to its row and the rows of its children, by an entity map. Pure.

A value that does not fit its column is handled by a rule of the map, and a note says so; it never
costs the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from integration.core.model import Tables
from integration.mapping.compiled_map import get_compiled_map
from integration.mapping.fhirpath.fast_steps import UnsupportedValue
from integration.mapping.interpreter import interpret_map
from integration.mapping.model import EntityMap, MappedRows


def map_resource(
    entity: EntityMap,
    resource: Mapping[str, Any],
    tables: Tables,
    base: str | None = None,
    *,
    today: date,
) -> MappedRows:
    """Return the rows that show `resource`: every mapped column, None where FHIR has nothing.

    `today`: the day of the mapping, on which things are in use or not: see fhirpath.periods.

    `tables` has those of `entity.tables`. `base` is the address of the FHIR server: a reference may
    name the server's resources by their full address. Raises Unmappable when the id does not fit
    its column, since the row could not be found again.
    """
    compiled = get_compiled_map(entity, tables)
    if compiled is not None:
        try:
            return compiled(resource, base, today)
        except UnsupportedValue:
            pass  # the interpreter knows what to do with it
    return interpret_map(entity, resource, tables, base, today=today)
