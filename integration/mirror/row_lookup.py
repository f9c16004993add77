"""What the mirror asks Dataverse about the rows of one resource, in one request.

Every function here raises Unmappable when a row cannot be told from another, or when Dataverse
refuses a query; and Unavailable when Dataverse does not answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from integration.core.errors import Unmappable
from integration.core.model import Columns, Request, Row
from integration.dataverse import requests
from integration.dataverse.client import Dataverse, get_error_code, parse_rows
from integration.mapping.concepts import CONCEPT_TABLE
from integration.mapping.model import EntityMap, ExpandMap, MappedRows
from integration.mapping.primary_keys import derive_primary_key, fit_fhir_id
from integration.mirror import row_diff
from integration.mirror.row_diff import ExistingRows
from integration.mirror.row_sink import MirrorJob

# By resource type.
EntityMaps = Mapping[str, EntityMap]

# https://learn.microsoft.com/power-apps/developer/data-platform/reference/entities/contact
INACTIVE = 1

# Two rows with one FHIR id are an error; others may have it in another letter case.
_MAX_CANDIDATES = 20


async def find_existing_rows(
    dataverse: Dataverse, maps: EntityMaps, job: MirrorJob, mapped: MappedRows
) -> ExistingRows:
    """Return all that planning the changes needs: the row, its children, and the keys of the rows
    and concepts that its lookups point at. `maps`: of the types that lookups may point at."""
    targets = sorted(
        target for target in row_diff.find_lookups(mapped) if _get_type(target) in maps
    )
    concepts = sorted(row_diff.find_concepts(mapped))
    queries = [_build_row_query(job), *_build_child_queries(job, job.key)]
    queries += [_build_target_query(maps[_get_type(target)], target) for target in targets]
    queries += [_build_concept_query(*concept) for concept in concepts]
    answers = iter(await _read_rows(dataverse, job, queries))
    # In the order of the queries.
    row = pick_row(job.entity, job.id, next(answers))
    children = {number: next(answers) for number in range(len(job.entity.expands))}
    keys = {target: pick_key(maps[_get_type(target)], target, next(answers)) for target in targets}
    concept_rows = {concept: next(answers) for concept in concepts}
    if row is not None and row[job.entity.key] != job.key:  # another app has created the row
        children = dict(enumerate(await find_children(dataverse, job, row[job.entity.key])))
    return ExistingRows(
        row=row,
        keys={target: key for target, key in keys.items() if key is not None},
        concepts={
            concept: rows[0][CONCEPT_TABLE.key] for concept, rows in concept_rows.items() if rows
        },
        children=children,
    )


async def find_row(dataverse: Dataverse, job: MirrorJob) -> Row | None:
    """Return the row that shows the resource."""
    (rows,) = await _read_rows(dataverse, job, [_build_row_query(job)])
    return pick_row(job.entity, job.id, rows)


async def find_children(dataverse: Dataverse, job: MirrorJob, parent: str) -> list[list[Row]]:
    """Return the child rows of the row with the key `parent`, one list for each expand map."""
    return await _read_rows(dataverse, job, list(_build_child_queries(job, parent)))


async def has_any_row(
    dataverse: Dataverse, maps: EntityMaps, job: MirrorJob, targets: Sequence[str]
) -> bool:
    """Whether one of these resources, as `Type/id`, has its row by now."""
    queries = [_build_target_query(maps[_get_type(target)], target) for target in targets]
    answers = await _read_rows(dataverse, job, queries)
    return any(
        pick_key(maps[_get_type(target)], target, rows) is not None
        for target, rows in zip(targets, answers, strict=True)
    )


async def _read_rows(
    dataverse: Dataverse, job: MirrorJob, queries: Sequence[Request]
) -> list[list[Row]]:
    responses = await dataverse.read(queries, job.item.delivery)
    for response in responses:
        if response.status != 200:
            code = get_error_code(response)
            raise Unmappable(f"Dataverse answered a look-up with {response.status} {code}".strip())
    return [parse_rows(response) for response in responses]


# -- queries --------------------------------------------------------------------------------------


def list_row_columns(entity: EntityMap, columns: Columns) -> list[str]:
    """List what a query selects of a row so that changes to it can be planned."""
    return row_diff.select_columns((*entity.columns, "statecode"), columns)


def list_child_columns(expand: ExpandMap, columns: Columns) -> list[str]:
    """List what a query selects of a child row."""
    return row_diff.select_columns(
        (expand.key, *(attribute.column for attribute in expand.attributes)), columns
    )


def list_target_columns(entity: EntityMap) -> list[str]:
    """List what a query selects of a row that a lookup points at."""
    kind = [entity.kind_column] if entity.kind_column else []
    return [entity.key, entity.id_column, "statecode", *kind]


def _build_row_query(job: MirrorJob) -> Request:
    entity, columns = job.entity, job.tables[job.entity.table]
    selected = list_row_columns(entity, columns)
    condition = _build_row_filter(entity, job.key, fit_fhir_id(entity, job.id, columns))
    return requests.build_row_query(entity.entity_set, selected, condition, _MAX_CANDIDATES)


def _build_child_queries(job: MirrorJob, parent: str) -> Iterator[Request]:
    for expand in job.entity.expands:
        selected = list_child_columns(expand, job.tables[expand.table])
        condition = f"_{expand.parent}_value eq {parent}"
        yield requests.build_row_query(expand.entity_set, selected, condition)


def _build_target_query(entity: EntityMap, target: str) -> Request:
    id_ = target.partition("/")[2]
    names = list_target_columns(entity)
    condition = _build_row_filter(entity, derive_primary_key(entity.resource, id_), id_)
    return requests.build_row_query(entity.entity_set, names, condition, _MAX_CANDIDATES)


def _build_concept_query(type_: int, code: str) -> Request:
    literal = requests.quote_literal(code)
    condition = f"{CONCEPT_TABLE.type} eq {type_} and {CONCEPT_TABLE.code} eq {literal}"
    return requests.build_row_query(CONCEPT_TABLE.entity_set, [CONCEPT_TABLE.key], condition, 1)


def _build_row_filter(entity: EntityMap, key: str, id_: str) -> str:
    """Find a row by our primary key, or by FHIR id: rows of other apps have keys of their own."""
    return f"{entity.key} eq {key} or {entity.id_column} eq {requests.quote_literal(id_)}"


# -- answers --------------------------------------------------------------------------------------


def pick_row(entity: EntityMap, id_: str, candidates: Iterable[Row]) -> Row | None:
    """Return the one row that shows the resource.

    Rows of resources whose ids differ only in letter case are others: they have keys of their own.
    """
    key = derive_primary_key(entity.resource, id_)
    found = [row for row in candidates if entity.has_kind_of(row)]
    rows = [row for row in found if not _is_case_variant(row[entity.id_column], id_)]
    counted = drop_duplicates(rows, entity.key, key)
    if len(counted) > 1:
        raise Unmappable(f"more than one row of {entity.table} has this FHIR id: merge them")
    if len(found) > len(rows) and any(row[entity.key] == key for row in found if row not in rows):
        raise Unmappable(
            f"the row of {entity.table} with the key of this resource has its FHIR id in another "
            "letter case"
        )
    return counted[0] if counted else None


def drop_duplicates(rows: Sequence[Row], key_column: str, key: str) -> Sequence[Row]:
    """Leave out inactive rows beside active ones: they are what a merge leaves behind. Of inactive
    ones alone, the one with our key counts."""
    active = [row for row in rows if row.get("statecode") != INACTIVE]
    return active or [row for row in rows if row[key_column] == key] or rows


def pick_key(entity: EntityMap, target: str, candidates: Iterable[Row]) -> str | None:
    """Return the key of the one row that shows `target`; None when there is none, or several."""
    id_ = target.partition("/")[2]
    rows = [
        row
        for row in candidates
        if entity.has_kind_of(row) and not _is_case_variant(row[entity.id_column], id_)
    ]
    counted = drop_duplicates(rows, entity.key, derive_primary_key(entity.resource, id_))
    return str(counted[0][entity.key]) if len(counted) == 1 else None


def _is_case_variant(found: str | None, id_: str) -> bool:
    """Dataverse ignores case when it compares text; FHIR ids that differ in case are two."""
    return found is not None and found != id_ and found.casefold() == id_.casefold()


def _get_type(reference: str) -> str:
    return reference.partition("/")[0]
