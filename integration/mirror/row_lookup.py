"""What is asked of Dataverse about the rows of a resource, all of it in one request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from integration.core.errors import Unmappable
from integration.core.model import Request, RowResult, WorkItem
from integration.dataverse import requests
from integration.dataverse.client import Dataverse, error_code
from integration.dataverse.client import rows as rows_of
from integration.mapping.concepts import CONCEPT_TABLE
from integration.mapping.keys import derive_primary_key, fit_fhir_id
from integration.mapping.model import EntityMap, MappedRows
from integration.mirror import row_diff
from integration.mirror.row_diff import Found, Tables

Known = Mapping[str, EntityMap]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Subject:
    """The resource that a claim names, and the tables of its rows."""

    entity: EntityMap
    claim: WorkItem
    tables: Tables

    @property
    def resource(self) -> str:
        return self.claim.resource or ""

    @property
    def id(self) -> str:
        return self.resource.partition("/")[2]

    @property
    def key(self) -> str:
        return derive_primary_key(self.entity.resource, self.id)

    def outcome(
        self, action: str, key: str | None = None, version: str | None = None, *notes: str
    ) -> RowResult:
        table, delivery = self.entity.table, self.claim.delivery
        return RowResult(delivery, self.resource, table, key, action, version, notes)


async def found(it: Dataverse, known: Known, subject: Subject, mapped: MappedRows) -> Found:
    """Everything that is needed to plan the changes. Raises Unmappable, as all of these do, where
    the row cannot be told from others."""
    entity = subject.entity
    links = sorted(link for link in row_diff.links(mapped) if _kind(link) in known)
    concepts = sorted(row_diff.concepts(mapped))
    asked = [_row_question(subject), *_children_questions(subject, subject.key)]
    asked += [_link_question(known[_kind(link)], link) for link in links]
    asked += [_concept_question(*concept) for concept in concepts]
    answers = iter(await _asked(it, subject, asked))
    row = _the_row(entity, subject.id, next(answers))
    children = {number: next(answers) for number in range(len(entity.expands))}
    keys = {link: _key_of(known[_kind(link)], link, next(answers)) for link in links}
    same = {concept: next(answers) for concept in concepts}
    if row is not None and row[entity.key] != subject.key:  # somebody else has made it
        children = dict(enumerate(await children_of(it, subject, row[entity.key])))
    return Found(
        row,
        {link: key for link, key in keys.items() if key is not None},
        {concept: each[0][CONCEPT_TABLE.key] for concept, each in same.items() if each},
        children,
    )


async def row_of(it: Dataverse, subject: Subject) -> Row | None:
    """The row that shows the resource."""
    (answer,) = await _asked(it, subject, [_row_question(subject)])
    return _the_row(subject.entity, subject.id, answer)


async def children_of(it: Dataverse, subject: Subject, parent: str) -> list[list[Row]]:
    """The child rows of this row, for each map of children."""
    return await _asked(it, subject, list(_children_questions(subject, parent)))


async def any_there(it: Dataverse, known: Known, subject: Subject, links: Sequence[str]) -> bool:
    """Whether one of these resources has its row."""
    answers = await _asked(it, subject, [_link_question(known[_kind(one)], one) for one in links])
    return any(
        _key_of(known[_kind(link)], link, answer) is not None
        for link, answer in zip(links, answers, strict=True)
    )


async def _asked(it: Dataverse, subject: Subject, questions: Sequence[Request]) -> list[list[Row]]:
    answers = await it.ask(questions, subject.claim.delivery)
    for answer in answers:
        if answer.status != 200:
            raise Unmappable(f"a look-up was answered {answer.status} {error_code(answer)}")
    return [rows_of(answer) for answer in answers]


def _row_question(subject: Subject) -> Request:
    entity = subject.entity
    names = row_diff.selected((*entity.columns, "statecode"), subject.tables[entity.table])
    identifier = fit_fhir_id(entity, subject.id, subject.tables[entity.table])
    return requests.rows(entity.entity_set, names, _is_row(entity, subject.key, identifier), 3)


def _children_questions(subject: Subject, parent: str) -> Iterator[Request]:
    for expand in subject.entity.expands:
        names = (expand.key, *(attribute.column for attribute in expand.attributes))
        selected = row_diff.selected(names, subject.tables[expand.table])
        yield requests.rows(expand.entity_set, selected, f"_{expand.parent}_value eq {parent}")


def _link_question(entity: EntityMap, link: str) -> Request:
    identifier = link.partition("/")[2]
    key = derive_primary_key(entity.resource, identifier)
    names = [entity.key, entity.id_column, *([entity.kind_column] if entity.kind_column else [])]
    return requests.rows(entity.entity_set, names, _is_row(entity, key, identifier), 3)


def _is_row(entity: EntityMap, key: str, identifier: str) -> str:
    """By FHIR id, since rows that others made have keys of their own, or by our primary key."""
    return f"{entity.key} eq {key} or {entity.id_column} eq {requests.literal(identifier)}"


def _concept_question(kind: int, code: str) -> Request:
    condition = (
        f"{CONCEPT_TABLE.type} eq {kind} and {CONCEPT_TABLE.code} eq {requests.literal(code)}"
    )
    return requests.rows(CONCEPT_TABLE.entity_set, [CONCEPT_TABLE.key], condition, 1)


def _the_row(entity: EntityMap, identifier: str, found: Iterable[Row]) -> Row | None:
    found = [row for row in found if entity.has_kind_of(row)]
    if len(found) > 1:
        raise Unmappable(f"more than one {entity.table} has this FHIR id: merge them")
    if found and _is_other(found[0][entity.id_column], identifier):
        raise Unmappable(f"a {entity.table} has this FHIR id in other letter case")
    return found[0] if found else None


def _is_other(shown: str | None, identifier: str) -> bool:
    """Dataverse compares text without regard to case; FHIR does not."""
    return shown is not None and shown != identifier and shown.casefold() == identifier.casefold()


def _key_of(entity: EntityMap, link: str, found: Iterable[Row]) -> str | None:
    identifier = link.partition("/")[2]
    matching = [
        row
        for row in found
        if entity.has_kind_of(row) and not _is_other(row[entity.id_column], identifier)
    ]
    return str(matching[0][entity.key]) if len(matching) == 1 else None


def _kind(link: str) -> str:
    return link.partition("/")[0]
