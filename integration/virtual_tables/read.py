"""Read entities, collections and counts of the feed from FHIR as it is now.

A collection is streamed where FHIR sorts it as requested, or no order is requested: the server's
pages are read until the page of rows is full. Otherwise everything that the search finds is
gathered, up to a limit, and sorted here. What would go beyond the limit is refused: a client would
take a part of the result, or a result in a wrong order, for the whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from integration.core.errors import IntegrationError, SearchRefused, Unavailable
from integration.fhir.search import build_path
from integration.odata.query import Query
from integration.virtual_tables import fhir_pages, refused_search, skip_token
from integration.virtual_tables.entity_type import MappedEntityType
from integration.virtual_tables.feed_reader import FeedReader, RowPage, list_parameters
from integration.virtual_tables.gathered_list import gather_matches, gather_page
from integration.virtual_tables.pushdown import TargetIds
from integration.virtual_tables.query_plan import FilterPart, QueryPlan, plan_query, split_filter
from integration.virtual_tables.resource_rows import Resource
from integration.virtual_tables.skip_token import PageCursor
from integration.virtual_tables.streamed_list import stream_page


async def read_entity(
    reader: FeedReader, entity_type: MappedEntityType, key: UUID, run_id: str
) -> Resource | None:
    """Return the resource whose row has this key. None: there is no such resource."""
    ids = await reader.keys.resolve_ids(entity_type.resource, [key])
    return await reader.fhir.read(f"{entity_type.resource}/{ids[key]}", run_id)


async def read_page(
    reader: FeedReader, entity_type: MappedEntityType, query: Query, size: int, run_id: str
) -> RowPage:
    """Read a page of up to `size` rows. Raises Rejected, Unavailable, Misconfigured."""
    reader = replace(reader, patients={})
    resource, cursor = entity_type.resource, None
    if query.skip_token is not None:
        cursor = skip_token.parse_token(query.skip_token, resource, await reader.get_token_key())
    plan = await _plan(reader, entity_type, query)
    if plan.is_empty:
        return RowPage((), count=0 if query.count else None)
    try:
        page = await _read_planned(reader, plan, cursor, size, run_id)
    except SearchRefused:
        raise await _explain_refusal(reader, plan, run_id) from None
    if page.next_cursor is None:
        return page
    key = await reader.get_token_key()
    return replace(page, token=skip_token.format_token(page.next_cursor, resource, key))


async def count_rows(
    reader: FeedReader, entity_type: MappedEntityType, query: Query, run_id: str
) -> int:
    """Count the rows that satisfy the filter of `query`."""
    reader = replace(reader, patients={})
    plan = await _plan(reader, entity_type, replace(query, count=True))
    if plan.is_empty:
        return 0
    try:
        if plan.is_exact:
            return await _count_found(reader, plan, run_id)
        unsorted = replace(plan, sort=None)
        return sum([1 async for _ in gather_matches(reader, unsorted, run_id)])
    except SearchRefused:
        raise await _explain_refusal(reader, plan, run_id) from None


async def _read_planned(
    reader: FeedReader, plan: QueryPlan, cursor: PageCursor | None, size: int, run_id: str
) -> RowPage:
    if plan.is_gathered or (cursor is not None and cursor.path is None):
        return await gather_page(reader, plan, cursor, size, run_id)
    if not plan.query.count:
        return await stream_page(reader, plan, cursor, size, run_id)
    page, count = await asyncio.gather(
        stream_page(reader, plan, cursor, size, run_id), _count_found(reader, plan, run_id)
    )
    return replace(page, count=count)


async def _plan(reader: FeedReader, entity_type: MappedEntityType, query: Query) -> QueryPlan:
    parts = split_filter(query.filter)
    target_ids = await _resolve_targets(reader, entity_type, parts)
    return plan_query(query, parts, entity_type, target_ids)


async def _resolve_targets(
    reader: FeedReader, entity_type: MappedEntityType, parts: Sequence[FilterPart]
) -> TargetIds:
    """Find the ids of the resources whose rows have the keys that a filter names."""
    pairs_by_type: dict[str, set[tuple[str, UUID]]] = {}
    for name, key in {pair for part in parts for pair in part.keys}:
        attribute = entity_type.attributes.get(name)
        type_ = entity_type.resource if attribute is None else attribute.virtual_column.target
        if type_ is not None:
            pairs_by_type.setdefault(type_, set()).add((name, key))
    target_ids: dict[tuple[str, UUID], str] = {}
    for type_, pairs in pairs_by_type.items():
        ids = await reader.keys.resolve_ids(type_, {key for _, key in pairs})
        target_ids |= {(name, key): ids[key] for name, key in pairs}
    return target_ids


async def _count_found(reader: FeedReader, plan: QueryPlan, run_id: str) -> int:
    """Let the server count: https://hl7.org/fhir/R4/search.html#summary"""
    path = build_path(plan.scanned_type.resource, (*plan.parameters, ("_summary", "count")))
    searchset = await reader.fhir.search(path, run_id, fhir_pages.STRICT)
    total = searchset.get("total")
    if not isinstance(total, int):
        raise Unavailable(reader.fhir.upstream.name, "a count was answered without a number")
    return total


async def _explain_refusal(reader: FeedReader, plan: QueryPlan, run_id: str) -> IntegrationError:
    properties = {name for part in split_filter(plan.query.filter) for name in part.properties}
    return await refused_search.explain_refusal(
        reader.fhir, plan.scanned_type.resource, list_parameters(plan), properties, run_id
    )
