"""What the mirror asks Dataverse about the rows of one resource, in one request.

A row shows a resource if it has its FHIR id. Its key alone does not tell: somebody may have given
the row to another resource.

Every function here raises Unmappable when a row cannot be told from another, or when Dataverse
refuses a query; and Unavailable when Dataverse does not answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from integration.core.errors import Unmappable
from integration.core.model import Columns, Request, Row
from integration.dataverse import requests
from integration.dataverse.client import Dataverse, parse_rows
from integration.dataverse.error_codes import read_error_code
from integration.mapping.concepts import CONCEPT_TABLE
from integration.mapping.model import EntityMap, ExpandMap, LongId, MappedRows
from integration.mapping.primary_keys import ServerKeys, derive_primary_key, fit_fhir_id
from integration.mirror import row_diff
from integration.mirror.row_diff import MERGED, ExistingRows
from integration.mirror.row_edits import AUTHORS
from integration.mirror.row_sink import MirrorJob

# By resource type.
EntityMaps = Mapping[str, EntityMap]

# https://learn.microsoft.com/power-apps/developer/data-platform/reference/entities/contact
INACTIVE = 1

# The lookup of a merged row that points at the one it was merged into.
MASTER = "masterid"

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
    queries += [
        _build_target_query(maps[_get_type(target)], job.server_keys, target) for target in targets
    ]
    queries += [_build_concept_query(*concept) for concept in concepts]
    answers = iter(await _read_rows(dataverse, job, queries))
    # In the order of the queries.
    row = pick_row(job.entity, job.server_keys, job.id, next(answers))
    children = {number: next(answers) for number in range(len(job.entity.expands))}
    keys = {
        target: pick_key(maps[_get_type(target)], job.server_keys, target, next(answers))
        for target in targets
    }
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
    return pick_row(job.entity, job.server_keys, job.id, rows)


async def find_rows(dataverse: Dataverse, job: MirrorJob) -> list[Row]:
    """Return every row that has the FHIR id or a key of the resource, with the row that each was
    merged into, where rows of its table can be merged."""
    columns = job.tables[job.entity.table]
    names = [name for name in (MASTER,) if name in columns]
    extra = row_diff.select_columns(names, columns)
    (rows,) = await _read_rows(dataverse, job, [_build_row_query(job, extra)])
    return rows


async def find_rivals(dataverse: Dataverse, job: MirrorJob) -> list[Row]:
    """Return the rows that have the FHIR id, in whatever letter case, and do not show the resource:
    where an alternate key allows one row per id, each of them is in the way."""
    (rows,) = await _read_rows(dataverse, job, [_build_row_query(job)])
    shown = _sort_candidates(job.entity, job.server_keys, job.id, rows).shown
    return [row for row in rows if row not in shown and _is_id(row[job.entity.id_column], job.id)]


async def find_children(dataverse: Dataverse, job: MirrorJob, parent: str) -> list[list[Row]]:
    """Return the child rows of the row with the key `parent`, one list for each expand map."""
    return await _read_rows(dataverse, job, list(_build_child_queries(job, parent)))


async def has_any_row(
    dataverse: Dataverse, maps: EntityMaps, job: MirrorJob, targets: Sequence[str]
) -> bool:
    """Whether one of these resources, as `Type/id`, has its row by now."""
    queries = [
        _build_target_query(maps[_get_type(target)], job.server_keys, target) for target in targets
    ]
    answers = await _read_rows(dataverse, job, queries)
    return any(
        pick_key(maps[_get_type(target)], job.server_keys, target, rows) is not None
        for target, rows in zip(targets, answers, strict=True)
    )


async def _read_rows(
    dataverse: Dataverse, job: MirrorJob, queries: Sequence[Request]
) -> list[list[Row]]:
    responses = await dataverse.read(queries, job.item.delivery)
    for response in responses:
        if response.status != 200:
            code = read_error_code(response)
            raise Unmappable(f"Dataverse answered a look-up with {response.status} {code}".strip())
    return [parse_rows(response) for response in responses]


# -- queries --------------------------------------------------------------------------------------


def list_row_columns(entity: EntityMap, columns: Columns) -> list[str]:
    """List what a query selects of a row so that changes to it can be planned."""
    others = [name for name in (MERGED, *AUTHORS) if name in columns]
    return row_diff.select_columns((*entity.columns, "statecode", *others), columns)


def list_child_columns(expand: ExpandMap, columns: Columns) -> list[str]:
    """List what a query selects of a child row."""
    return row_diff.select_columns(
        (expand.key, *(attribute.column for attribute in expand.attributes)), columns
    )


def list_target_columns(entity: EntityMap) -> list[str]:
    """List what a query selects of a row that a lookup points at."""
    kind = [entity.kind_column] if entity.kind_column else []
    return [entity.key, entity.id_column, "statecode", *kind]


def _build_row_query(job: MirrorJob, extra: Sequence[str] = ()) -> Request:
    entity, columns = job.entity, job.tables[job.entity.table]
    selected = [*list_row_columns(entity, columns), *extra]
    keys = job.server_keys.list_own(entity.resource, job.id)
    condition = _build_row_filter(entity, keys, fit_fhir_id(entity, job.id, columns))
    return requests.build_row_query(
        entity.entity_set, selected, condition, _MAX_CANDIDATES, is_named=job.writes_back
    )


def _build_child_queries(job: MirrorJob, parent: str) -> Iterator[Request]:
    for expand in job.entity.expands:
        selected = list_child_columns(expand, job.tables[expand.table])
        condition = f"_{expand.parent}_value eq {parent}"
        yield requests.build_row_query(expand.entity_set, selected, condition)


def _build_target_query(entity: EntityMap, server_keys: ServerKeys, target: str) -> Request:
    id_ = target.partition("/")[2]
    names = list_target_columns(entity)
    condition = _build_row_filter(entity, server_keys.list_own(entity.resource, id_), id_)
    return requests.build_row_query(entity.entity_set, names, condition, _MAX_CANDIDATES)


def _build_concept_query(type_: int, code: str) -> Request:
    literal = requests.quote_literal(code)
    condition = f"{CONCEPT_TABLE.type} eq {type_} and {CONCEPT_TABLE.code} eq {literal}"
    return requests.build_row_query(CONCEPT_TABLE.entity_set, [CONCEPT_TABLE.key], condition, 1)


def _build_row_filter(entity: EntityMap, keys: Iterable[str], id_: str) -> str:
    """Find a row by our primary keys, or by FHIR id: rows of other apps have keys of their own."""
    alternatives = [f"{entity.key} eq {key}" for key in keys]
    return " or ".join((*alternatives, f"{entity.id_column} eq {requests.quote_literal(id_)}"))


# -- answers --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Candidates:
    """The rows that a query for one resource has found. `shown`: those that show the resource.
    `foreign`: with its id, but a key by the address of an unknown FHIR server. `keyed`: with the
    key that the resource's row would get, but of another resource."""

    shown: Sequence[Row]
    foreign: Sequence[Row]
    keyed: Sequence[Row]


def _sort_candidates(
    entity: EntityMap, server_keys: ServerKeys, id_: str, rows: Iterable[Row]
) -> _Candidates:
    key, own_keys = (
        server_keys.derive(entity.resource, id_),
        server_keys.list_own(entity.resource, id_),
    )
    ids = {id_}
    if entity.long_id is LongId.DIGEST:
        ids.add(derive_primary_key(entity.resource, id_))
    shown, foreign, keyed = [], [], []
    for row in rows:
        row_key, row_id = str(row[entity.key]), row[entity.id_column]
        # Where the id was removed, the key still tells whose row it was.
        is_own = row_id in ids or (row_id is None and row_key in own_keys)
        if is_own and entity.has_kind_of(row):
            if not server_keys.is_of_other_server(row_key, entity.resource, id_):
                shown.append(row)
            elif not server_keys.is_of_known_server(row_key, entity.resource, id_):
                foreign.append(row)
        elif row_key == key:
            keyed.append(row)
    return _Candidates(drop_duplicates(shown, entity.key, own_keys), foreign, keyed)


def drop_duplicates(
    rows: Sequence[Row], key_column: str, own_keys: Collection[str]
) -> Sequence[Row]:
    """Leave out inactive rows beside active ones: a merge leaves its subordinate inactive, with its
    FHIR id. Of inactive rows alone, the one with a key of ours counts."""
    active = [row for row in rows if row.get("statecode") != INACTIVE]
    unmerged = [row for row in rows if not row.get(MERGED)]
    ours = [row for row in unmerged if row[key_column] in own_keys]
    return active or ours or unmerged or rows


def find_shown(
    entity: EntityMap, server_keys: ServerKeys, id_: str, rows: Iterable[Row]
) -> Sequence[Row]:
    """Return the rows that show the resource: one, unless somebody has made another."""
    return _sort_candidates(entity, server_keys, id_, rows).shown


def pick_row(
    entity: EntityMap, server_keys: ServerKeys, id_: str, rows: Iterable[Row]
) -> Row | None:
    """Return the one row that shows the resource. Raises Unmappable when there are several, or when
    another resource's row is where its row would be."""
    found = _sort_candidates(entity, server_keys, id_, rows)
    if len(found.shown) > 1:
        raise Unmappable(f"more than one row of {entity.table} has this FHIR id: merge them")
    if found.shown:
        return found.shown[0]
    if found.foreign:
        raise Unmappable(
            f"the row of {entity.table} with this FHIR id is of another FHIR server: name that "
            "server's address in FHIR_FORMER_URLS if it has become this one, else in "
            "FHIR_OTHER_URLS"
        )
    for row in found.keyed:
        raise Unmappable(_describe_keyed_row(entity, id_, row))
    return None


def _describe_keyed_row(entity: EntityMap, id_: str, row: Row) -> str:
    """Say why a row with the key of the resource is not its row."""
    row_id = row[entity.id_column]
    which = f"the row of {entity.table} with the key of this resource"
    if row_id != id_ and _is_id(row_id, id_):
        return f"{which} has its FHIR id in another letter case"
    if not entity.has_kind_of(row) and row_id in (None, id_):
        return (
            f"{which} is of another type: set its {entity.kind_column} back to {entity.kind_value}"
        )
    return f"{which} shows another FHIR id: set its {entity.id_column} back, or delete it"


def pick_key(
    entity: EntityMap, server_keys: ServerKeys, target: str, rows: Iterable[Row]
) -> str | None:
    """Return the key of the one row that shows `target`; None when there is none, or several."""
    shown = _sort_candidates(entity, server_keys, target.partition("/")[2], rows).shown
    return str(shown[0][entity.key]) if len(shown) == 1 else None


def _is_id(found: str | None, id_: str) -> bool:
    """Dataverse ignores case when it compares text; FHIR ids that differ in case are two."""
    return found is not None and found.casefold() == id_.casefold()


def _get_type(reference: str) -> str:
    return reference.partition("/")[0]
