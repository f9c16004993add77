"""A tenant's tables, as its metadata would tell them: those of the stand-in."""

from __future__ import annotations

from functools import cache

from integration.core.model import Column
from integration.dataverse import metadata
from local.dataverse import metadata as documents
from local.dataverse import tables

PREFIX = "new"


@cache
def load_all_columns() -> dict[str, dict[str, Column]]:
    catalog = tables.load(tables.read_additions(prefix=PREFIX))
    return {name: _load_columns(table) for name, table in catalog.by_name.items()}


def _load_columns(table: tables.Table) -> dict[str, Column]:
    attributes = [
        documents.describe_attribute(table, column)
        | (documents.describe_choices(table, column) if column.type != "Boolean" else {})
        for column in table.columns.values()
    ]
    return metadata.parse_columns(
        [{"value": attributes}, {"value": documents.describe_relationships(table)}]
    )
