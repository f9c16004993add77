"""Entities, collections and counts of the feed, from FHIR as it is now.

A collection is streamed where the search puts resources into the order that is asked for, or none
is: the server's pages are walked until the page is full. Otherwise everything that the search finds
is gathered, up to a bound, and sorted here. What would go beyond the bound is refused: a part of
the result, or one in a wrong order, would be taken for the whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from integration.core.errors import Rejected, Unavailable
from integration.fhir.client import FhirServer
from integration.fhir.search import Parameters, build_path
from integration.fhir.searchset import find_next_path, list_matches
from integration.odata.evaluate import build_sort_key
from integration.odata.evaluate import matches as fulfils
from integration.odata.expressions import Expression, Order
from integration.odata.model import EntityValues
from integration.odata.query import Query
from integration.odata.refusals import NotSupported
from integration.virtual_tables import fhir_pages, pushdown, skip_token
from integration.virtual_tables.entity_type import (
    MappedEntityType,
    build_values,
    list_lookups,
    map_resource,
)
from integration.virtual_tables.pushdown import SearchPart, Targets
from integration.virtual_tables.row_keys import RowKeyResolver
from integration.virtual_tables.skip_token import PageCursor

Resource = Mapping[str, Any]

# Resources that one search of a gathering brings; the service gives 1,000 at most.
_TOGETHER = 250


@dataclass(frozen=True, slots=True)
class FeedReader:
    """What reading needs. `breadth`: resources that one request may look at; `most_bytes` of a
    page of the FHIR server: a worker holds those of many requests at once."""

    fhir: FhirServer
    keys: RowKeyResolver
    max_scanned: int
    max_page_bytes: int = 16_000_000


@dataclass(frozen=True, slots=True)
class RowPage:
    """Rows, each with its version; `token` leads to what comes next."""

    rows: Sequence[tuple[EntityValues, str | None]]
    count: int | None = None
    token: str | None = None


async def read_entity(
    it: FeedReader, shape: MappedEntityType, key: UUID, run: str
) -> Resource | None:
    """The resource that the row with this key shows, if there is one."""
    ids = await it.keys.resolve_ids(shape.resource, [key])
    return await it.fhir.read(f"{shape.resource}/{ids[key]}", run)


async def build_rows(
    it: FeedReader, shape: MappedEntityType, resources: Sequence[Resource]
) -> list[EntityValues]:
    """Their rows. Resources without a row of their own (no id) are refused: Unmappable."""
    base = it.fhir.upstream.base
    found = {
        f"{shape.resource}/{each['id']}": map_resource(shape, each, base) for each in resources
    }
    named = {*found, *(name for each in found.values() for name in list_lookups(shape, each))}
    keys = await it.keys.resolve_keys(named)
    return [build_values(shape, name, each, keys) for name, each in found.items()]


async def read_collection(
    it: FeedReader, shape: MappedEntityType, query: Query, size: int, run: str
) -> RowPage:
    """A page of up to `size` rows. Raises Rejected, Unavailable, Misconfigured."""
    targets = await _targets(it, shape, query.filter)
    pushed = pushdown.build_search(query.filter, shape, targets)
    if pushed.is_empty:
        return RowPage((), 0 if query.count else None)
    mark = skip_token.parse_token(query.skip_token, shape.resource)
    sorted_by = pushdown.build_sort(query.order_by, shape)
    if (query.count and not pushed.is_exact) or (query.order_by and not sorted_by):
        return await _gathered(it, shape, query, pushed, targets, mark, size, run)
    page, count = await asyncio.gather(
        _streamed(it, shape, query, pushed, sorted_by, mark, size, run),
        _count(it, shape, pushed, run) if query.count else _none(),
    )
    return RowPage(page.rows, count, page.token)


async def count_rows(
    it: FeedReader, shape: MappedEntityType, condition: Expression | None, run: str
) -> int:
    """How many rows fulfil the condition."""
    targets = await _targets(it, shape, condition)
    pushed = pushdown.build_search(condition, shape, targets)
    if pushed.is_empty:
        return 0
    if pushed.is_exact:
        return await _count(it, shape, pushed, run)
    narrow = shape.select(_needed(condition, ()))
    why = _why(condition, (), shape, targets)
    found = _searched(it, narrow, pushed.parameters, why, run)
    return sum([fulfils(condition, each) async for _, each in found])


async def _streamed(
    it: FeedReader,
    shape: MappedEntityType,
    query: Query,
    pushed: SearchPart,
    sorted_by: str | None,
    mark: PageCursor | None,
    size: int,
    run: str,
) -> RowPage:
    wanted = size if query.top is None else min(size, query.top)
    if wanted == 0:
        return RowPage(())
    needed = _needed(query.filter, ())
    # Where most of what is found is shown, it is mapped once; else what is not shown only in part.
    narrow = _selected(shape, query, needed) if pushed.is_exact else shape.select(needed)
    skip = 0 if mark else query.skip
    batch = wanted if pushed.is_exact and not skip else max(wanted, _TOGETHER)
    order = (("_sort", sorted_by),) if sorted_by else ()
    first = build_path(shape.resource, (*pushed.parameters, *order, ("_count", str(batch))))
    path: str | None = mark.path if mark and mark.path else first
    told, looked = (mark.position if mark else 0), 0
    chosen: list[tuple[Resource, EntityValues | None]] = []
    while path is not None:
        path, searchset, fewer = await fhir_pages.fetch_page(
            it.fhir, path, batch, it.max_page_bytes, run
        )
        found = list(list_matches(shape.resource, searchset))
        after = find_next_path(searchset, it.fhir.upstream.name, it.fhir.upstream.base)
        shown = await build_rows(it, narrow, found)
        for number, each in enumerate(shown[told:], told + 1):
            looked += 1
            if not fulfils(query.filter, each):
                continue
            if skip:
                skip -= 1
                continue
            chosen.append((found[number - 1], each if pushed.is_exact else None))
            if len(chosen) == wanted:
                here = PageCursor(path, number) if number < len(found) else PageCursor(after, 0)
                more = here.path is not None and wanted != query.top
                return await _page(it, shape, query, chosen, here if more else None)
        if (looked > it.max_scanned or fewer) and after is not None:
            if chosen:  # what was found goes out, and the next page goes on behind it
                return await _page(it, shape, query, chosen, PageCursor(after, 0))
            if looked > it.max_scanned:
                raise _too_broad(it, pushdown.list_unsearched(query.filter, shape, {}) or ["$skip"])
        path, told = after, max(0, told - len(found))
    return await _page(it, shape, query, chosen, None)


async def _gathered(
    it: FeedReader,
    shape: MappedEntityType,
    query: Query,
    pushed: SearchPart,
    targets: Targets,
    mark: PageCursor | None,
    size: int,
    run: str,
) -> RowPage:
    narrow = shape.select(_needed(query.filter, query.order_by))
    why = _why(query.filter, query.order_by, shape, targets)
    found = [
        (each, resource)
        async for resource, each in _searched(it, narrow, pushed.parameters, why, run)
        if fulfils(query.filter, each)
    ]
    place = build_sort_key(query.order_by, shape.entity.key)
    found.sort(key=lambda pair: place(pair[0]))
    start = mark.position if mark else query.skip
    wanted = size if query.top is None else min(size, query.top)
    chosen = [(resource, None) for _, resource in found[start : start + wanted]]
    more = start + wanted < len(found) and wanted != query.top
    page = await _page(
        it, shape, query, chosen, PageCursor(None, start + wanted) if more and wanted else None
    )
    return RowPage(page.rows, len(found) if query.count else None, page.token)


async def _searched(
    it: FeedReader, narrow: MappedEntityType, parameters: Parameters, why: list[str], run: str
) -> AsyncIterator[tuple[Resource, EntityValues]]:
    """Everything that a search finds, with the columns that matter. Raises Rejected, 501."""
    path: str | None = build_path(narrow.resource, (*parameters, ("_count", str(_TOGETHER))))
    looked, large = 0, 0
    while path is not None:
        path, searchset, fewer = await fhir_pages.fetch_page(
            it.fhir, path, _TOGETHER, it.max_page_bytes, run
        )
        found = list(list_matches(narrow.resource, searchset))
        path = find_next_path(searchset, it.fhir.upstream.name, it.fhir.upstream.base)
        looked, large = looked + len(found), large + fewer
        if looked > it.max_scanned or (looked == it.max_scanned and path is not None):
            raise _too_broad(it, why)
        if large >= fhir_pages.MAX_SHRUNK_PAGES and path is not None:
            raise fhir_pages.build_too_large_error()
        for pair in zip(found, await build_rows(it, narrow, found), strict=True):
            yield pair


async def _count(it: FeedReader, shape: MappedEntityType, pushed: SearchPart, run: str) -> int:
    """https://hl7.org/fhir/R4/search.html#summary"""
    path = build_path(shape.resource, (*pushed.parameters, ("_summary", "count")))
    total = (await it.fhir.search(path, run, fhir_pages.STRICT)).get("total")
    if not isinstance(total, int):
        raise Unavailable(it.fhir.upstream.name, "a count was answered without a number")
    return total


async def _none() -> None:
    return None


async def _page(
    it: FeedReader,
    shape: MappedEntityType,
    query: Query,
    chosen: Sequence[tuple[Resource, EntityValues | None]],
    mark: PageCursor | None,
) -> RowPage:
    """`chosen` with their rows, where they are whole already."""
    resources = [resource for resource, _ in chosen]
    whole = [row for _, row in chosen if row is not None]
    shown = whole or await build_rows(it, _selected(shape, query, ()), resources)
    versions = (each.get("meta", {}).get("versionId") for each in resources)
    token = None if mark is None else skip_token.format_token(mark)
    return RowPage(tuple(zip(shown, versions, strict=True)), token=token)


def _selected(shape: MappedEntityType, query: Query, more: Collection[str]) -> MappedEntityType:
    if query.select is None:
        return shape
    return shape.select({*more, *(each.name for each in query.select)})


async def _targets(
    it: FeedReader, shape: MappedEntityType, condition: Expression | None
) -> Targets:
    """The resources whose rows have the keys that a condition names."""
    found: dict[tuple[str, UUID], str] = {}
    by_type: dict[str, set[tuple[str, UUID]]] = {}
    for name, key in pushdown.list_keys(condition):
        attribute = shape.attributes.get(name)
        type_ = shape.resource if attribute is None else attribute.virtual_column.target
        if type_ is not None:
            by_type.setdefault(type_, set()).add((name, key))
    for type_, pairs in by_type.items():
        ids = await it.keys.resolve_ids(type_, {key for _, key in pairs})
        found |= {(name, key): ids[key] for name, key in pairs}
    return found


def _needed(condition: Expression | None, order: Sequence[Order]) -> Collection[str]:
    return {*pushdown.list_properties(condition), *(each.property.name for each in order)}


def _why(
    condition: Expression | None, order: Sequence[Order], shape: MappedEntityType, targets: Targets
) -> list[str]:
    names = pushdown.list_unsearched(condition, shape, targets)
    return names or [f"$orderby by {each.property.name}" for each in order] or ["$count"]


def _too_broad(it: FeedReader, why: Sequence[str]) -> Rejected:
    return NotSupported(
        f"FHIR has no search that answers this ({', '.join(why)}), and there are more than "
        f"{it.max_scanned:,} resources to look at: narrow it down, by the patient for example",
        "$filter",
    )
