"""Compare the mapping engine with hand-written code for the same Patient columns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import date
from typing import Any

from bench import by_hand
from bench.throttled import make_patient
from integration.core.model import Columns
from integration.dataverse import metadata
from integration.mapping import load
from integration.mapping.engine import map_resource
from local.dataverse import metadata as documents
from local.dataverse import tables

PATIENTS = 400
TODAY = date(2026, 3, 2)
ROUNDS = 9


def compare_with_by_hand() -> tuple[float, float]:
    """Return patients mapped per second, and the engine's time over the hand-written code's."""
    entity = load.load_shipped_maps()["Patient"]
    columns = {table: _read_columns(table) for table in entity.tables}
    patients = [make_patient(f"{n:08x}-0000-4000-8000-000000000000") for n in range(PATIENTS)]

    def map_all() -> None:
        for resource in patients:
            map_resource(entity, resource, columns, today=TODAY)

    def map_all_by_hand() -> None:
        for resource in patients:
            by_hand.map_patient(resource)

    for resource in patients:
        found = map_resource(entity, resource, columns, today=TODAY)
        row, children = by_hand.map_patient(resource)
        assert (found.values, [child.values for child in found.children]) == (row, children)
    pairs = [(_measure_seconds(map_all), _measure_seconds(map_all_by_hand)) for _ in range(ROUNDS)]
    seconds = statistics.median(mine for mine, _ in pairs)
    return PATIENTS / seconds, statistics.median(mine / least for mine, least in pairs)


def _read_columns(name: str) -> Columns:
    """Return the table's columns as the metadata of a tenant describes them."""
    table: tables.Table = tables.load().by_name[name]
    attributes: list[dict[str, Any]] = [
        documents.describe_attribute(table, column)
        | (documents.describe_choices(table, column) if column.type != "Boolean" else {})
        for column in table.columns.values()
    ]
    return metadata.parse_columns(
        [{"value": attributes}, {"value": documents.describe_relationships(table)}]
    )


def _measure_seconds(act: Callable[[], None]) -> float:
    begun = time.process_time()
    act()
    return time.process_time() - begun
