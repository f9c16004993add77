"""Which alternate key of a table is taken, and by which row: for whoever has to decide between two.

Dataverse says that a key is taken. Its text names the key by its label, not by its name, and may
quote values, so the rows are asked instead. A query holds values of a patient: it travels in the
body of a batch, never in an address.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from integration.core.errors import Misconfigured
from integration.core.model import Columns, Request, Response, Row
from integration.dataverse import alternate_keys, requests
from integration.dataverse.alternate_keys import AlternateKey
from integration.dataverse.client import Dataverse, parse_rows
from integration.dataverse.requests import Change
from integration.mapping.concepts import CONCEPT_TABLE
from integration.mirror.refused_changes import Refusal
from integration.mirror.row_diff import ChangePlan
from integration.mirror.row_sink import MirrorJob

# The most rows that are named for a key.
_MAX_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """The table of a change: its name, its primary key, and its columns, where they are known.
    `id_column`: the one with the FHIR id; None: it has none."""

    name: str
    key: str
    columns: Columns
    id_column: str | None = None


async def explain_refusal(
    dataverse: Dataverse, job: MirrorJob, plan: ChangePlan, refusal: Refusal
) -> Refusal:
    """Return the refusal of a child or a concept with the key that is taken, if it is for that, and
    Dataverse said which change it refused, or there is only one. Raises as `describe_taken_key`
    does."""
    others = [n for n in range(len(plan.changes)) if not plan.is_of_row(n)]
    position = others[0] if len(others) == 1 else refusal.position
    if position is None or not refusal.is_taken:
        return refusal
    detail = await describe_taken_key(dataverse, job, plan.changes[position])
    return replace(refusal, detail=detail)


async def describe_taken_key(dataverse: Dataverse, job: MirrorJob, change: Change) -> str:
    """Say which alternate keys keep a change from being made: the name of each, its columns, and
    the rows that have the same values. Where that cannot be seen, say where to look.

    Raises Unavailable when Dataverse does not answer.
    """
    table, correlation = _find_table(job, change), job.item.delivery
    keys = await _read_keys(dataverse, table.name, correlation)
    if not keys:
        return (
            f"an alternate key of {table.name} is taken by another row. This app cannot read its "
            f"keys: Power Apps lists them (Tables, {table.name}, Keys). Search Dataverse for a row "
            "with the same values in the columns of one of them, and merge them if they are one"
        )
    row = await _read_row(dataverse, table, change, keys, correlation)
    values = alternate_keys.merge_values(table.columns, row, change)
    asked = [
        (key, condition)
        for key in keys
        if (condition := alternate_keys.build_condition(key, table.columns, values)) is not None
    ]
    queries = [
        requests.build_row_query(change.entity_set, [table.key], condition, _MAX_NAMED + 1)
        for _, condition in asked
    ]
    taken = []
    answers = await _try_to_read(dataverse, queries, correlation)
    for (key, _), rows in zip(asked, answers, strict=False):
        ids = [str(found[table.key]) for found in rows if str(found[table.key]) != change.key]
        if ids:
            taken.append(_describe(table, key, ids[:_MAX_NAMED]))
    if taken:
        return "; ".join(taken)
    named = ", ".join(_name(key) for key in keys)
    return (
        f"an alternate key of {table.name} is taken by a row that this app cannot find. Its keys "
        f"are {named}. Search Dataverse, as somebody who may see all rows, for one with the same "
        "values in the columns of one of them, and merge them if they are one"
    )


def _find_table(job: MirrorJob, change: Change) -> _Table:
    """Return the table of a change: that of the row, of its children or of the concepts."""
    entity = job.entity
    name, key, id_column = CONCEPT_TABLE.table, CONCEPT_TABLE.key, None
    if change.entity_set == entity.entity_set:
        name, key, id_column = entity.table, entity.key, entity.id_column
    for expand in entity.expands:
        if change.entity_set == expand.entity_set:
            name, key = expand.table, expand.key
    return _Table(name=name, key=key, columns=job.tables.get(name, {}), id_column=id_column)


def _describe(table: _Table, key: AlternateKey, ids: Sequence[str]) -> str:
    rows = ", ".join(f"{table.name}({id_})" for id_ in ids)
    text = f"alternate key {_name(key)} of {table.name} is taken by {rows}"
    if table.id_column in key.columns:
        return (
            f"{text}, maybe with the FHIR id in another letter case: clear its {table.id_column}, "
            "or delete that row"
        )
    return f"{text}: merge them if they are one, or else change one"


def _name(key: AlternateKey) -> str:
    return f"{key.name} ({', '.join(key.columns)})"


async def _read_keys(dataverse: Dataverse, table: str, correlation: str) -> list[AlternateKey]:
    """Return the keys of a table; none where this app may not read them."""
    (response,) = await _read(dataverse, [alternate_keys.build_keys_query(table)], correlation)
    return [] if response is None else alternate_keys.parse_keys(response)


async def _read_row(
    dataverse: Dataverse,
    table: _Table,
    change: Change,
    keys: Sequence[AlternateKey],
    correlation: str,
) -> Row | None:
    """Return what a row that is there has in the columns of the keys: a change names what changes,
    and a key may have more columns. None: the row is new."""
    if change.only_new:
        return None
    names = {
        alternate_keys.name_property(name, table.columns) for key in keys for name in key.columns
    }
    condition = f"{table.key} eq {change.key}"
    query = requests.build_row_query(change.entity_set, sorted(names), condition, 1)
    (rows,) = await _try_to_read(dataverse, [query], correlation)
    return rows[0] if rows else None


async def _try_to_read(
    dataverse: Dataverse, queries: Sequence[Request], correlation: str
) -> list[list[Row]]:
    """Return the rows of each query; none where it is refused."""
    responses = await _read(dataverse, queries, correlation)
    return [[] if response is None else parse_rows(response) for response in responses]


async def _read(
    dataverse: Dataverse, queries: Sequence[Request], correlation: str
) -> list[Response | None]:
    if not queries:
        return []
    try:
        responses = await dataverse.read(queries, correlation, in_body=True)
    except Misconfigured:  # a role that lacks this right is no reason to stop mirroring
        return [None] * len(queries)
    return [response if response.status == 200 else None for response in responses]
