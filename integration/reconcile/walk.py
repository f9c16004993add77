"""Go through FHIR in the order of the last update, or through the rows in the order of their ids,
page by page, and mend what differs.

walk_versions  ids and versions alone: quick, and takes the version that a row shows for truth
walk_content   all that rows show
walk_rows      rows whose resource is gone
walk_orphans   child rows of no row
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import UTC
from functools import partial
from typing import TypeVar
from uuid import UUID

from integration.core import decimal_json
from integration.core.errors import Misconfigured, Unmappable
from integration.core.model import FhirResource, Request, Response, Row
from integration.dataverse import requests
from integration.dataverse.requests import Change
from integration.fhir.operation_outcome import parse_outcome
from integration.fhir.searchset import list_matches
from integration.mapping import engine
from integration.mapping.model import ChildRemoval, EntityMap, LongId, MappedRows
from integration.mapping.schema_mismatches import find_schema_mismatches
from integration.mirror import row_diff, row_lookup
from integration.mirror.row_diff import ExistingRows
from integration.reconcile import bulk_rows, row_pages
from integration.reconcile.bulk_rows import Reader, build_in, split
from integration.reconcile.content import Organization, Subject, compare_content, find_row
from integration.reconcile.differences import (
    ID,
    Difference,
    DifferenceKind,
    build_difference,
    compare_versions,
    list_columns,
    to_row_id,
)
from integration.reconcile.repair import repair_all
from integration.reconcile.run import (
    START,
    Page,
    Position,
    ReconcileRun,
    read_pages,
    retry_while_unavailable,
    search,
)

T = TypeVar("T")


async def walk_versions(
    run: ReconcileRun, entity: EntityMap, begin: Position = START
) -> AsyncGenerator[Page, None]:
    """Compare and repair every resource updated since a FHIR date or time, by its version.

    Raises Unavailable or Misconfigured.
    """
    async for found, position in read_pages(run, entity, begin, "&_elements=id,meta"):
        repairs = await repair_all(run, await _compare_versions(run, entity, found))
        yield Page(len(found), repairs, position, is_last=position.path is None)


async def walk_content(
    run: ReconcileRun, entity: EntityMap, begin: Position = START
) -> AsyncGenerator[Page, None]:
    """Compare and repair every resource updated since a time with all that its rows show.

    Raises Unavailable or Misconfigured.
    """
    reader = await open_reader(run, entity)
    async for found, position in read_ahead(read_pages(run, entity, begin, "")):
        parts = split(found, bulk_rows.MAX_VALUES)
        compared = await asyncio.gather(*(compare_resources(run, entity, reader, p) for p in parts))
        repairs = await repair_all(run, [difference for part in compared for difference in part])
        yield Page(len(found), repairs, position, is_last=position.path is None)


async def walk_rows(
    run: ReconcileRun, entity: EntityMap, begin: Position = START
) -> AsyncGenerator[Page, None]:
    """Find active rows whose resource FHIR no longer has, and repair them. A position is an id that
    a row shows.

    Raises Unavailable or Misconfigured.
    """
    if entity.long_id is LongId.DIGEST:
        # A digest is no id of FHIR: its resource would look as if it had never existed.
        raise Misconfigured(
            f"{entity.file}: the rows keep digests of long ids (row.long_id), so --all and "
            "--deleted cannot find their resources"
        )
    pages = row_pages.read_by_id(
        lambda request: retry_while_unavailable(run, lambda: run.dataverse.send(request, run.id)),
        run.dataverse,
        entity,
        list_columns(entity),
        size=run.page_size,
        begin=begin,
    )
    async for page, position, is_last in pages:
        rows = [row for row in page if entity.has_kind_of(row)]
        left_over = await asyncio.gather(
            *(_find_left_over(run, entity, some) for some in split(rows, run.ids_per_search))
        )
        repairs = await repair_all(run, [difference for some in left_over for difference in some])
        yield Page(len(rows), repairs, position, is_last=is_last)


async def walk_orphans(
    run: ReconcileRun, entity: EntityMap, begin: Position = START
) -> AsyncGenerator[Page, None]:
    """Find child rows that the mirror has made and that belong to no row any more, and delete them.
    A position is the number of an expand map, and the key of a row.

    The mirror takes those that a resource still needs as its own again, so walk through the
    resources first. Raises Unavailable or Misconfigured.
    """
    reader = await open_reader(run, entity)
    for position, expand in enumerate(entity.expands):
        if expand.remove is ChildRemoval.NEVER:
            continue
        rows = await bulk_rows.read_orphans(reader, entity, position)
        # Dataverse makes no key of this kind, so staff's own rows have others:
        # https://www.rfc-editor.org/rfc/rfc9562#section-5.5
        ours = [row for row in rows if UUID(str(row[expand.key])).version == 5]
        ours.sort(key=lambda row: str(row[expand.key]))
        if begin.at is not None:
            ours = [row for row in ours if _name_orphan(position, row[expand.key]) > begin.at]
        for some in split(ours, run.page_size):
            orphans = [
                Difference(
                    resource=expand.table,
                    kind=DifferenceKind.ORPHANED,
                    row=str(row[expand.key]),
                    columns=(f"{expand.table}.{expand.parent}",),
                    steps=(
                        Change(
                            method="DELETE",
                            entity_set=expand.entity_set,
                            key=str(row[expand.key]),
                            etag=row["@odata.etag"],
                        ),
                    ),
                )
                for row in some
            ]
            last = _name_orphan(position, some[-1][expand.key])
            yield Page(len(orphans), await repair_all(run, orphans), Position(last))


def _name_orphan(position: int, key: object) -> str:
    """Return a text that rises from one row to the next."""
    return f"{position:04d}/{key}"


# -- comparing ------------------------------------------------------------------------------------


async def _compare_versions(
    run: ReconcileRun, entity: EntityMap, found: Sequence[FhirResource]
) -> list[Difference]:
    columns = await retry_while_unavailable(run, lambda: run.dataverse.get_columns(entity.table))
    row_ids = (to_row_id(entity, resource["id"], columns) for resource in found)
    ids = list(dict.fromkeys(row_id for row_id in row_ids if row_id is not None))
    names = list_columns(entity)
    queries = [
        requests.build_row_query(entity.entity_set, names, build_in(entity.id_column, some))
        for some in split(ids, bulk_rows.MAX_VALUES)
    ]
    rows: list[Row] = []
    if queries:
        responses = await retry_while_unavailable(run, lambda: run.dataverse.read(queries, run.id))
        pages = [row_pages.parse_page(run.dataverse, response) for response in responses]
        rows = [row for page in pages for row in page["value"]]
    return list(
        compare_versions(
            entity,
            found,
            rows,
            columns,
            server_keys=run.server_keys,
            fhir_is_right=run.fhir_is_right,
        )
    )


async def open_reader(run: ReconcileRun, entity: EntityMap) -> Reader:
    """Return what reads the rows of a map, with the columns of its tables. Raises Misconfigured
    where the map does not fit the tables, or does not make the rows."""
    run.get_web_api()
    tables = {
        name: await retry_while_unavailable(run, partial(run.dataverse.get_columns, name))
        for name in entity.tables
    }
    if mismatches := find_schema_mismatches(entity, tables):
        raise Misconfigured("; ".join(mismatches))

    async def send(queries: Sequence[Request]) -> Sequence[Response]:
        return await retry_while_unavailable(run, lambda: run.dataverse.read(queries, run.id))

    return Reader(run.dataverse, send, tables, run.get_web_api().server_keys)


async def compare_resources(
    run: ReconcileRun, entity: EntityMap, reader: Reader, resources: Sequence[FhirResource]
) -> list[Difference]:
    """Compare some resources with their rows: two requests to Dataverse for all of them."""
    maps = run.get_web_api().all_maps
    mapped, differences = _map_resources(run, entity, reader, resources)
    lookups = {target for rows in mapped.values() for target in row_diff.find_lookups(rows)}
    concepts = {concept for rows in mapped.values() for concept in row_diff.find_concepts(rows)}
    row_ids = {id_: str(rows.values[entity.id_column]) for id_, rows in mapped.items()}
    selected = row_lookup.list_row_columns(entity, reader.tables[entity.table])
    index, keys, concept_keys = await asyncio.gather(
        bulk_rows.read_rows(reader, entity, row_ids, selected),
        bulk_rows.read_keys(reader, maps, lookups),
        bulk_rows.read_concepts(reader, concepts),
    )
    to_compare: list[tuple[Subject, Row | None]] = []
    for resource in resources:
        id_ = str(resource["id"])
        if id_ not in mapped:
            continue
        candidates = index.find_candidates(id_, row_ids[id_])
        subject = Subject(resource, mapped[id_], candidates)
        found = find_row(entity, subject, reader.server_keys)
        if isinstance(found, Difference):
            differences.append(found)
        else:
            to_compare.append((subject, found))
    parents = [str(row[entity.key]) for _, row in to_compare if row is not None]
    children = await bulk_rows.read_children(reader, entity, parents)
    organization = Organization(
        tables=reader.tables,
        targets=run.get_web_api().list_targets(),
        server_keys=reader.server_keys,
        app_user=await retry_while_unavailable(run, run.dataverse.get_user_id),
        stamps_rows=run.get_web_api().stamps_rows(entity),
    )
    for subject, row in to_compare:
        existing = ExistingRows(
            row=row,
            keys=keys,
            concepts=concept_keys,
            children={} if row is None else children[str(row[entity.key])],
        )
        difference = compare_content(
            entity, subject, existing, organization, fhir_is_right=run.fhir_is_right
        )
        if difference is not None:
            differences.append(difference)
    return differences


def _map_resources(
    run: ReconcileRun, entity: EntityMap, reader: Reader, resources: Sequence[FhirResource]
) -> tuple[dict[str, MappedRows], list[Difference]]:
    """Return the rows that the resources should have, by id, and those that cannot have any: the
    mirror says why."""
    mapped, differences = {}, []
    today = run.mirror.now().astimezone(UTC).date()
    for resource in resources:
        try:
            mapped[str(resource["id"])] = engine.map_resource(
                entity, resource, reader.tables, run.fhir.upstream.base, today=today
            )
        except Unmappable:
            columns = (entity.id_column,)
            differences.append(
                build_difference(entity, resource, DifferenceKind.MISSING, columns=columns)
            )
    return mapped, differences


async def _find_left_over(
    run: ReconcileRun, entity: EntityMap, rows: Sequence[Row]
) -> list[Difference]:
    """Find the rows whose resource the FHIR server does not have."""
    ids = sorted({str(row[entity.id_column]) for row in rows})
    ids = [identifier for identifier in ids if ID.fullmatch(identifier)]
    query = f"{entity.resource}?_id={','.join(ids)}&_elements=id&_count={run.ids_per_search}"
    matched = list_matches(entity.resource, await search(run, query)) if ids else ()
    existing = {resource["id"] for resource in matched}
    found = []
    for row in rows:
        identifier = str(row[entity.id_column])
        if identifier in existing:
            continue
        resource = f"{entity.resource}/{identifier}"
        kind: DifferenceKind | None = DifferenceKind.UNKNOWN
        if is_id := bool(ID.fullmatch(identifier)):
            kind = await _classify_missing(run, resource)
        if kind is not None:
            found.append(
                Difference(
                    resource=resource,
                    kind=kind,
                    row=row[entity.key],
                    row_version=row[entity.version_column],
                    # An unknown one may be a resource of another FHIR server.
                    is_repairable=kind is DifferenceKind.LEFT_OVER or (run.fhir_is_right and is_id),
                )
            )
    return found


async def _classify_missing(run: ReconcileRun, resource: str) -> DifferenceKind | None:
    """Tell a deleted resource (410) from one that never was here (404); None: it exists after all.

    https://hl7.org/fhir/R4/http.html#delete. Raises Misconfigured for a 404 that is not the FHIR
    server's own: a gateway would have every row removed.
    """
    response = await retry_while_unavailable(
        run, lambda: run.fhir.send(Request("GET", resource), run.id)
    )
    name = run.fhir.upstream.name
    match response.status:
        case 200:
            return None
        case 410:
            return DifferenceKind.LEFT_OVER
        case 404 if parse_outcome(decimal_json.decode_object(response.body)) is not None:
            return DifferenceKind.UNKNOWN
        case 404:
            raise Misconfigured(
                f"{name} answered a read with 404 and no OperationOutcome, as a gateway does that "
                "has no such path: check FHIR_URL, and run reconcile again"
            )
    raise Misconfigured(f"{name} answered a read with {response.status}")


async def read_ahead(pages: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """Yield the items; the next one is read while the caller works on one."""

    async def read_next() -> T | None:
        return await anext(pages, None)

    task = asyncio.create_task(read_next())
    try:
        while (item := await task) is not None:
            task = asyncio.create_task(read_next())
            yield item
    finally:
        task.cancel()
