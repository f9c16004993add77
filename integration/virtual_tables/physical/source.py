"""Dataverse's own tables, as the feed reaches them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from integration.core.errors import Misconfigured
from integration.core.model import Columns
from integration.dataverse.client import Dataverse
from integration.mapping.model import EntityMap, Route
from integration.virtual_tables.entity_type import MappedEntityType
from integration.virtual_tables.physical.read import RowAccess
from integration.virtual_tables.physical.table import (
    PhysicalTable,
    build_physical_table,
    list_related_tables,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicalTables:
    """What the feed needs to answer from Dataverse.

    `maps`: all by resource type, with the attributes of both routes; `max_scanned`: rows that one
    request may look at; `get_token_key`: see FeedReader.
    """

    dataverse: Dataverse
    maps: Mapping[str, EntityMap]
    max_scanned: int
    get_token_key: Callable[[], Awaitable[bytes]]
    _built: dict[str, _Built] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class _Built:
    """A table, and what Dataverse's metadata said when it was built."""

    columns: Columns
    related: Mapping[str, Columns]
    table: PhysicalTable


async def open_rows(
    tables: PhysicalTables | None, entity_type: MappedEntityType, run_id: str
) -> RowAccess:
    """Return the way to the rows of a table. Raises Misconfigured where Dataverse has no such
    table, and Unavailable where it does not say."""
    if tables is None:
        raise Misconfigured(
            f"the data route of {entity_type.resource} is dataverse, and DATAVERSE_URL is not set"
        )
    return RowAccess(
        dataverse=tables.dataverse,
        table=await find_table(tables, entity_type),
        max_scanned=tables.max_scanned,
        run_id=run_id,
        get_token_key=tables.get_token_key,
    )


async def find_table(tables: PhysicalTables, entity_type: MappedEntityType) -> PhysicalTable:
    """Return the table behind an entity type, as Dataverse's metadata describes it at present.
    Raises Misconfigured and Unavailable, as `open_rows` does."""
    entity = tables.maps[entity_type.resource]
    columns, related = await read_columns(tables.dataverse, entity)
    known = tables._built.get(entity_type.resource)
    if known is None or known.columns is not columns or not _are_same(known.related, related):
        table = build_physical_table(entity_type, entity, columns, related, tables.maps)
        known = tables._built[entity_type.resource] = _Built(columns, related, table)
    return known.table


async def read_columns(
    dataverse: Dataverse, entity: EntityMap
) -> tuple[Columns, Mapping[str, Columns]]:
    """Return the columns of the table behind a map, and those of its related tables. Raises
    Misconfigured and Unavailable, as `open_rows` does."""
    columns = await dataverse.get_columns(entity.select_route(Route.DATAVERSE).table)
    names = list_related_tables(columns)
    found = await asyncio.gather(*(dataverse.get_columns(name) for name in names))
    return columns, dict(zip(names, found, strict=True))


def _are_same(known: Mapping[str, Columns], read: Mapping[str, Columns]) -> bool:
    """Whether the metadata was not read again since."""
    return known.keys() == read.keys() and all(known[name] is read[name] for name in read)
