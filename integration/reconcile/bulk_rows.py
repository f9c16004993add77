"""Read the rows of many resources at once: some requests for hundreds of resources, where the
mirror has one request for each.

What is selected, and which of the rows found is whose, is decided as in `mirror.row_lookup`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from typing import TypeVar

from integration.core import decimal_json
from integration.core.model import Request, Response, Row, Tables
from integration.dataverse import requests
from integration.dataverse.client import Dataverse
from integration.mapping.concepts import CONCEPT_TABLE
from integration.mapping.model import EntityMap
from integration.mapping.primary_keys import ServerKeys
from integration.mirror import row_lookup
from integration.mirror.row_lookup import EntityMaps
from integration.reconcile import row_pages

T = TypeVar("T")

# Values in one condition. With key and id of each, and all columns selected, an address gets about
# 27,000 characters long at most; in a batch it may have 65,536:
# https://learn.microsoft.com/power-apps/developer/data-platform/webapi/execute-batch-operations-using-web-api
MAX_VALUES = 200

# Sends requests that change nothing, and returns their responses.
Send = Callable[[Sequence[Request]], Awaitable[Sequence[Response]]]


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads rows of one organisation. `tables`: the columns of all tables that are read;
    `server_keys`: how the keys of the FHIR server's rows are derived."""

    dataverse: Dataverse
    send: Send
    tables: Tables
    server_keys: ServerKeys


@dataclass(slots=True)
class RowIndex:
    """Rows of one table by their primary keys and by the ids that they show."""

    entity: EntityMap
    server_keys: ServerKeys
    by_key: dict[str, Row] = field(default_factory=dict)
    by_id: defaultdict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))

    def add(self, row: Row) -> None:
        """Add a row. One that was added before changes nothing."""
        key, id_ = str(row[self.entity.key]), row[self.entity.id_column]
        if key in self.by_key:
            return
        self.by_key[key] = row
        if id_ is not None:
            # Dataverse finds an id whatever the case of its letters.
            self.by_id[str(id_).casefold()].append(row)

    def find_candidates(self, id_: str, row_id: str) -> list[Row]:
        """Return the rows that may show a resource. `row_id`: its id as a row keeps it."""
        shown = self.by_id.get(row_id.casefold(), [])
        keys = self.server_keys.list_own(self.entity.resource, id_)
        keyed = [self.by_key[key] for key in keys if key in self.by_key]
        return [*(row for row in keyed if row not in shown), *shown]


async def read_rows(
    reader: Reader, entity: EntityMap, row_ids: Mapping[str, str], selected: Sequence[str]
) -> RowIndex:
    """Read the rows with the keys of these resources, or that show them. `row_ids`: their ids as
    rows keep them, by the id in FHIR."""
    queries = []
    for ids in split(list(row_ids), MAX_VALUES):
        keys = (key for id_ in ids for key in reader.server_keys.list_own(entity.resource, id_))
        shown = (row_ids[id_] for id_ in ids)
        condition = f"{build_in(entity.key, keys)} or {build_in(entity.id_column, shown)}"
        queries.append(requests.build_row_query(entity.entity_set, selected, condition))
    index = RowIndex(entity, reader.server_keys)
    async for _, row in _read_all(reader, queries):
        index.add(row)
    return index


async def read_children(
    reader: Reader, entity: EntityMap, parents: Sequence[str]
) -> dict[str, dict[int, list[Row]]]:
    """Read the child rows of the rows with these keys. Return them by the key of the parent, and by
    the position of their map among the expand maps."""
    queries, positions = [], []
    for position, expand in enumerate(entity.expands):
        names = row_lookup.list_child_columns(expand, reader.tables[expand.table])
        selected = [*names, f"_{expand.parent}_value"]
        for keys in split(parents, MAX_VALUES):
            condition = build_in(expand.parent, keys)
            queries.append(requests.build_row_query(expand.entity_set, selected, condition))
            positions.append(position)
    found: dict[str, dict[int, list[Row]]] = {
        parent: {position: [] for position in range(len(entity.expands))} for parent in parents
    }
    async for number, row in _read_all(reader, queries):
        position = positions[number]
        parent = row[f"_{entity.expands[position].parent}_value"]
        found[parent][position].append(row)
    return found


async def read_keys(reader: Reader, maps: EntityMaps, targets: Iterable[str]) -> dict[str, str]:
    """Return the keys of the rows that show these resources, by `Type/id`: of those that have
    exactly one. `maps`: of the types that lookups may point at."""
    by_type: defaultdict[str, list[str]] = defaultdict(list)
    for target in sorted(set(targets)):
        type_, _, id_ = target.partition("/")
        if type_ in maps:
            by_type[type_].append(id_)
    keys = {}
    for type_, ids in by_type.items():
        entity = maps[type_]
        selected = row_lookup.list_target_columns(entity)
        index = await read_rows(reader, entity, {id_: id_ for id_ in ids}, selected)
        for id_ in ids:
            target = f"{type_}/{id_}"
            key = row_lookup.pick_key(
                entity, reader.server_keys, target, index.find_candidates(id_, id_)
            )
            if key is not None:
                keys[target] = key
    return keys


async def read_concepts(
    reader: Reader, concepts: Iterable[tuple[int, str]]
) -> dict[tuple[int, str], str]:
    """Return the keys of the rows of these concepts, by type and code: of those that have one."""
    wanted = set(concepts)
    codes_by_type: defaultdict[int, list[str]] = defaultdict(list)
    for type_, code in sorted(wanted):
        codes_by_type[type_].append(code)
    table = CONCEPT_TABLE
    names = [table.key, table.type, table.code]
    queries = [
        requests.build_row_query(
            table.entity_set, names, f"{table.type} eq {type_} and {build_in(table.code, some)}"
        )
        for type_, codes in codes_by_type.items()
        for some in split(codes, MAX_VALUES)
    ]
    found: dict[tuple[int, str], str] = {}
    async for _, row in _read_all(reader, queries):
        found.setdefault((row[table.type], str(row[table.code]).casefold()), row[table.key])
    folded = {concept: (concept[0], concept[1].casefold()) for concept in wanted}
    return {concept: found[key] for concept, key in folded.items() if key in found}


async def read_orphans(reader: Reader, entity: EntityMap, position: int) -> list[Row]:
    """Return key and etag of each child row that belongs to no row. `position`: of the expand map.

    All of them are read before the first is mended, since a page would move if rows left it.
    """
    expand = entity.expands[position]
    condition = f"_{expand.parent}_value eq null"
    query = requests.build_row_query(expand.entity_set, [expand.key], condition)
    return [row async for _, row in _read_all(reader, [query])]


async def _read_all(reader: Reader, queries: Sequence[Request]) -> AsyncIterator[tuple[int, Row]]:
    """Send the queries, and those for their further pages. Yield each row with the number of its
    query."""
    numbered = list(enumerate(queries))
    while numbered:
        responses = await reader.send([query for _, query in numbered])
        further = []
        for (number, query), response in zip(numbered, responses, strict=True):
            page = row_pages.parse_page(reader.dataverse, response)
            for row in page["value"]:
                yield number, row
            following = row_pages.build_next_request(reader.dataverse, query, page)
            if following is not None:
                further.append((number, following))
        numbered = further


def build_in(column: str, values: Iterable[str]) -> str:
    """Return a condition that a column has one of these values. A lookup is named as its column.

    https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/in
    """
    listed = decimal_json.encode(list(values)).decode()
    return f"Microsoft.Dynamics.CRM.In(PropertyName='{column}',PropertyValues={listed})"


def split(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield parts of up to `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
