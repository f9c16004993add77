"""What is asked of Dataverse about the rows of a resource, all of it in one request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from integration.core.errors import Unmappable
from integration.core.model import Request, RowResult, WorkItem
from integration.dataverse import requests
from integration.dataverse.client import Dataverse, get_error_code
from integration.dataverse.client import parse_rows as rows_of
from integration.mapping.concepts import CONCEPT_TABLE
from integration.mapping.keys import derive_primary_key, fit_fhir_id
from integration.mapping.model import EntityMap, MappedRows
from integration.mirror import row_diff
from integration.mirror.row_diff import ExistingRows, Tables

EntityMaps = Mapping[str, EntityMap]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Subject:
    """The resource that a claim names, and the tables of its rows."""

    entity: EntityMap
    item: WorkItem
    tables: Tables

    @property
    def resource(self) -> str:
        return self.item.resource or ""

    @property
    def id(self) -> str:
        return self.resource.partition("/")[2]

    @property
    def key(self) -> str:
        return derive_primary_key(self.entity.resource, self.id)

    def build_result(
        self, action: str, key: str | None = None, version: str | None = None, *notes: str
    ) -> RowResult:
        table, delivery = self.entity.table, self.item.delivery
        return RowResult(delivery, self.resource, table, key, action, version=version, notes=notes)


async def find_existing_rows(
    dataverse: Dataverse, maps: EntityMaps, subject: Subject, mapped: MappedRows
) -> ExistingRows:
    """Everything that is needed to plan the changes. Raises Unmappable, as all of these do, where
    the row cannot be told from others."""
    entity = subject.entity
    targets = sorted(
        target for target in row_diff.find_lookups(mapped) if _get_type(target) in maps
    )
    concepts = sorted(row_diff.find_concepts(mapped))
    queries = [_build_row_query(subject), *_build_child_queries(subject, subject.key)]
    queries += [_build_target_query(maps[_get_type(target)], target) for target in targets]
    queries += [_build_concept_query(*concept) for concept in concepts]
    answers = iter(await _read_rows(dataverse, subject, queries))
    row = _pick_row(entity, subject.id, next(answers))
    children = {number: next(answers) for number in range(len(entity.expands))}
    keys = {target: _pick_key(maps[_get_type(target)], target, next(answers)) for target in targets}
    concept_rows = {concept: next(answers) for concept in concepts}
    if row is not None and row[entity.key] != subject.key:  # somebody else has made it
        children = dict(enumerate(await find_children(dataverse, subject, row[entity.key])))
    return ExistingRows(
        row,
        {target: key for target, key in keys.items() if key is not None},
        {concept: rows[0][CONCEPT_TABLE.key] for concept, rows in concept_rows.items() if rows},
        children,
    )


async def find_row(dataverse: Dataverse, subject: Subject) -> Row | None:
    """The row that shows the resource."""
    (answer,) = await _read_rows(dataverse, subject, [_build_row_query(subject)])
    return _pick_row(subject.entity, subject.id, answer)


async def find_children(dataverse: Dataverse, subject: Subject, parent: str) -> list[list[Row]]:
    """The child rows of this row, for each map of children."""
    return await _read_rows(dataverse, subject, list(_build_child_queries(subject, parent)))


async def has_any_row(
    dataverse: Dataverse, maps: EntityMaps, subject: Subject, targets: Sequence[str]
) -> bool:
    """Whether one of these resources has its row."""
    answers = await _read_rows(
        dataverse,
        subject,
        [_build_target_query(maps[_get_type(target)], target) for target in targets],
    )
    return any(
        _pick_key(maps[_get_type(target)], target, answer) is not None
        for target, answer in zip(targets, answers, strict=True)
    )


async def _read_rows(
    dataverse: Dataverse, subject: Subject, queries: Sequence[Request]
) -> list[list[Row]]:
    responses = await dataverse.read(queries, subject.item.delivery)
    for response in responses:
        if response.status != 200:
            raise Unmappable(f"a look-up was answered {response.status} {get_error_code(response)}")
    return [rows_of(response) for response in responses]


def _build_row_query(subject: Subject) -> Request:
    entity = subject.entity
    names = row_diff.select_columns((*entity.columns, "statecode"), subject.tables[entity.table])
    identifier = fit_fhir_id(entity, subject.id, subject.tables[entity.table])
    return requests.build_row_query(
        entity.entity_set, names, _build_row_filter(entity, subject.key, identifier), 3
    )


def _build_child_queries(subject: Subject, parent: str) -> Iterator[Request]:
    for expand in subject.entity.expands:
        names = (expand.key, *(attribute.column for attribute in expand.attributes))
        selected = row_diff.select_columns(names, subject.tables[expand.table])
        yield requests.build_row_query(
            expand.entity_set, selected, f"_{expand.parent}_value eq {parent}"
        )


def _build_target_query(entity: EntityMap, target: str) -> Request:
    identifier = target.partition("/")[2]
    key = derive_primary_key(entity.resource, identifier)
    names = [entity.key, entity.id_column, *([entity.kind_column] if entity.kind_column else [])]
    return requests.build_row_query(
        entity.entity_set, names, _build_row_filter(entity, key, identifier), 3
    )


def _build_row_filter(entity: EntityMap, key: str, identifier: str) -> str:
    """By FHIR id, since rows that others made have keys of their own, or by our primary key."""
    return f"{entity.key} eq {key} or {entity.id_column} eq {requests.quote_literal(identifier)}"


def _build_concept_query(type_: int, code: str) -> Request:
    condition = (
        f"{CONCEPT_TABLE.type} eq {type_} "
        f"and {CONCEPT_TABLE.code} eq {requests.quote_literal(code)}"
    )
    return requests.build_row_query(CONCEPT_TABLE.entity_set, [CONCEPT_TABLE.key], condition, 1)


def _pick_row(entity: EntityMap, identifier: str, found: Iterable[Row]) -> Row | None:
    found = [row for row in found if entity.has_kind_of(row)]
    if len(found) > 1:
        raise Unmappable(f"more than one {entity.table} has this FHIR id: merge them")
    if found and _is_case_variant(found[0][entity.id_column], identifier):
        raise Unmappable(f"a {entity.table} has this FHIR id in other letter case")
    return found[0] if found else None


def _is_case_variant(shown: str | None, identifier: str) -> bool:
    """Dataverse compares text without regard to case; FHIR does not."""
    return shown is not None and shown != identifier and shown.casefold() == identifier.casefold()


def _pick_key(entity: EntityMap, target: str, found: Iterable[Row]) -> str | None:
    identifier = target.partition("/")[2]
    matching = [
        row
        for row in found
        if entity.has_kind_of(row) and not _is_case_variant(row[entity.id_column], identifier)
    ]
    return str(matching[0][entity.key]) if len(matching) == 1 else None


def _get_type(reference: str) -> str:
    return reference.partition("/")[0]
