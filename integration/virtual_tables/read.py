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
from integration.fhir.searchset import list_matches, find_next_path
from integration.odata.evaluate import matches as fulfils
from integration.odata.evaluate import ordering
from integration.odata.expressions import Expression, Order
from integration.odata.model import Row
from integration.odata.query import Query
from integration.odata.refusals import not_offered
from integration.virtual_tables import fhir_pages, pushdown, skip_token
from integration.virtual_tables.entity_type import MappedEntityType, links, mapped, row
from integration.virtual_tables.pushdown import Pushed, Targets
from integration.virtual_tables.row_keys import Keys
from integration.virtual_tables.skip_token import PageCursor

Resource = Mapping[str, Any]

# Resources that one search of a gathering brings; the service gives 1,000 at most.
_TOGETHER = 250


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading needs. `breadth`: resources that one request may look at; `most_bytes` of a
    page of the FHIR server: a worker holds those of many requests at once."""

    fhir: FhirServer
    keys: Keys
    breadth: int
    most_bytes: int = 16_000_000


@dataclass(frozen=True, slots=True)
class Page:
    """Rows, each with its version; `token` leads to what comes next."""

    rows: Sequence[tuple[Row, str | None]]
    count: int | None = None
    token: str | None = None


async def entity(it: Reading, shape: MappedEntityType, key: UUID, run: str) -> Resource | None:
    """The resource that the row with this key shows, if there is one."""
    ids = await it.keys.ids(shape.resource, [key])
    return await it.fhir.read(f"{shape.resource}/{ids[key]}", run)


async def rows(it: Reading, shape: MappedEntityType, resources: Sequence[Resource]) -> list[Row]:
    """Their rows. Resources without a row of their own (no id) are refused: Unmappable."""
    base = it.fhir.upstream.base
    found = {f"{shape.resource}/{each['id']}": mapped(shape, each, base) for each in resources}
    named = {*found, *(name for each in found.values() for name in links(shape, each))}
    keys = await it.keys.of(named)
    return [row(shape, name, each, keys) for name, each in found.items()]


async def collection(
    it: Reading, shape: MappedEntityType, query: Query, size: int, run: str
) -> Page:
    """A page of up to `size` rows. Raises Rejected, Unavailable, Misconfigured."""
    targets = await _targets(it, shape, query.filter)
    pushed = pushdown.pushed(query.filter, shape, targets)
    if pushed.nothing:
        return Page((), 0 if query.count else None)
    mark = skip_token.read(query.token, shape.resource)
    sorted_by = pushdown.sort(query.order, shape)
    if (query.count and not pushed.exact) or (query.order and not sorted_by):
        return await _gathered(it, shape, query, pushed, targets, mark, size, run)
    page, count = await asyncio.gather(
        _streamed(it, shape, query, pushed, sorted_by, mark, size, run),
        _count(it, shape, pushed, run) if query.count else _none(),
    )
    return Page(page.rows, count, page.token)


async def count(
    it: Reading, shape: MappedEntityType, condition: Expression | None, run: str
) -> int:
    """How many rows fulfil the condition."""
    targets = await _targets(it, shape, condition)
    pushed = pushdown.pushed(condition, shape, targets)
    if pushed.nothing:
        return 0
    if pushed.exact:
        return await _count(it, shape, pushed, run)
    narrow = shape.of(_needed(condition, ()))
    why = _why(condition, (), shape, targets)
    found = _searched(it, narrow, pushed.parameters, why, run)
    return sum([fulfils(condition, each) async for _, each in found])


async def _streamed(
    it: Reading,
    shape: MappedEntityType,
    query: Query,
    pushed: Pushed,
    sorted_by: str | None,
    mark: PageCursor | None,
    size: int,
    run: str,
) -> Page:
    wanted = size if query.top is None else min(size, query.top)
    if wanted == 0:
        return Page(())
    needed = _needed(query.filter, ())
    # Where most of what is found is shown, it is mapped once; else what is not shown only in part.
    narrow = _selected(shape, query, needed) if pushed.exact else shape.of(needed)
    skip = 0 if mark else query.skip
    batch = wanted if pushed.exact and not skip else max(wanted, _TOGETHER)
    order = (("_sort", sorted_by),) if sorted_by else ()
    first = build_path(shape.resource, (*pushed.parameters, *order, ("_count", str(batch))))
    path: str | None = mark.path if mark and mark.path else first
    told, looked = (mark.told if mark else 0), 0
    chosen: list[tuple[Resource, Row | None]] = []
    while path is not None:
        path, searchset, fewer = await fhir_pages.searchset(
            it.fhir, path, batch, it.most_bytes, run
        )
        found = list(list_matches(shape.resource, searchset))
        after = find_next_path(searchset, it.fhir.upstream.name, it.fhir.upstream.base)
        shown = await rows(it, narrow, found)
        for number, each in enumerate(shown[told:], told + 1):
            looked += 1
            if not fulfils(query.filter, each):
                continue
            if skip:
                skip -= 1
                continue
            chosen.append((found[number - 1], each if pushed.exact else None))
            if len(chosen) == wanted:
                here = PageCursor(path, number) if number < len(found) else PageCursor(after, 0)
                more = here.path is not None and wanted != query.top
                return await _page(it, shape, query, chosen, here if more else None)
        if (looked > it.breadth or fewer) and after is not None:
            if chosen:  # what was found goes out, and the next page goes on behind it
                return await _page(it, shape, query, chosen, PageCursor(after, 0))
            if looked > it.breadth:
                raise _too_broad(it, pushdown.unsearched(query.filter, shape, {}) or ["$skip"])
        path, told = after, max(0, told - len(found))
    return await _page(it, shape, query, chosen, None)


async def _gathered(
    it: Reading,
    shape: MappedEntityType,
    query: Query,
    pushed: Pushed,
    targets: Targets,
    mark: PageCursor | None,
    size: int,
    run: str,
) -> Page:
    narrow = shape.of(_needed(query.filter, query.order))
    why = _why(query.filter, query.order, shape, targets)
    found = [
        (each, resource)
        async for resource, each in _searched(it, narrow, pushed.parameters, why, run)
        if fulfils(query.filter, each)
    ]
    place = ordering(query.order, shape.entity.key)
    found.sort(key=lambda pair: place(pair[0]))
    start = mark.told if mark else query.skip
    wanted = size if query.top is None else min(size, query.top)
    chosen = [(resource, None) for _, resource in found[start : start + wanted]]
    more = start + wanted < len(found) and wanted != query.top
    page = await _page(
        it, shape, query, chosen, PageCursor(None, start + wanted) if more and wanted else None
    )
    return Page(page.rows, len(found) if query.count else None, page.token)


async def _searched(
    it: Reading, narrow: MappedEntityType, parameters: Parameters, why: list[str], run: str
) -> AsyncIterator[tuple[Resource, Row]]:
    """Everything that a search finds, with the columns that matter. Raises Rejected, 501."""
    path: str | None = build_path(narrow.resource, (*parameters, ("_count", str(_TOGETHER))))
    looked, large = 0, 0
    while path is not None:
        path, searchset, fewer = await fhir_pages.searchset(
            it.fhir, path, _TOGETHER, it.most_bytes, run
        )
        found = list(list_matches(narrow.resource, searchset))
        path = find_next_path(searchset, it.fhir.upstream.name, it.fhir.upstream.base)
        looked, large = looked + len(found), large + fewer
        if looked > it.breadth or (looked == it.breadth and path is not None):
            raise _too_broad(it, why)
        if large >= fhir_pages.MOST and path is not None:
            raise fhir_pages.too_large()
        for pair in zip(found, await rows(it, narrow, found), strict=True):
            yield pair


async def _count(it: Reading, shape: MappedEntityType, pushed: Pushed, run: str) -> int:
    """https://hl7.org/fhir/R4/search.html#summary"""
    path = build_path(shape.resource, (*pushed.parameters, ("_summary", "count")))
    total = (await it.fhir.search(path, run, fhir_pages.STRICT)).get("total")
    if not isinstance(total, int):
        raise Unavailable(it.fhir.upstream.name, "a count was answered without a number")
    return total


async def _none() -> None:
    return None


async def _page(
    it: Reading,
    shape: MappedEntityType,
    query: Query,
    chosen: Sequence[tuple[Resource, Row | None]],
    mark: PageCursor | None,
) -> Page:
    """`chosen` with their rows, where they are whole already."""
    resources = [resource for resource, _ in chosen]
    whole = [row for _, row in chosen if row is not None]
    shown = whole or await rows(it, _selected(shape, query, ()), resources)
    versions = (each.get("meta", {}).get("versionId") for each in resources)
    token = None if mark is None else skip_token.token(mark)
    return Page(tuple(zip(shown, versions, strict=True)), token=token)


def _selected(shape: MappedEntityType, query: Query, more: Collection[str]) -> MappedEntityType:
    if query.select is None:
        return shape
    return shape.of({*more, *(each.name for each in query.select)})


async def _targets(it: Reading, shape: MappedEntityType, condition: Expression | None) -> Targets:
    """The resources whose rows have the keys that a condition names."""
    found: dict[tuple[str, UUID], str] = {}
    by_type: dict[str, set[tuple[str, UUID]]] = {}
    for name, key in pushdown.keys_in(condition):
        attribute = shape.attributes.get(name)
        type_ = shape.resource if attribute is None else attribute.virtual_column.target
        if type_ is not None:
            by_type.setdefault(type_, set()).add((name, key))
    for type_, pairs in by_type.items():
        ids = await it.keys.ids(type_, {key for _, key in pairs})
        found |= {(name, key): ids[key] for name, key in pairs}
    return found


def _needed(condition: Expression | None, order: Sequence[Order]) -> Collection[str]:
    return {*pushdown.properties_in(condition), *(each.property.name for each in order)}


def _why(
    condition: Expression | None, order: Sequence[Order], shape: MappedEntityType, targets: Targets
) -> list[str]:
    names = pushdown.unsearched(condition, shape, targets)
    return names or [f"$orderby by {each.property.name}" for each in order] or ["$count"]


def _too_broad(it: Reading, why: Sequence[str]) -> Rejected:
    return not_offered(
        f"FHIR has no search that answers this ({', '.join(why)}), and there are more than "
        f"{it.breadth:,} resources to look at: narrow it down, by the patient for example",
        "$filter",
    )
