"""VERBS find_row_states, find_resource_of_key: what Dataverse shows of one resource.

For people who look: nothing is written, and no column is read but those that tell which row shows
which version of which resource.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from integration.core.errors import Misconfigured, Unavailable, Unmappable
from integration.core.model import WorkItem
from integration.core.state_version import StateVersion
from integration.dataverse import requests
from integration.dataverse.client import parse_rows
from integration.dataverse.error_codes import describe_failure
from integration.mapping.model import EntityMap
from integration.mapping.row_version import read_row_version
from integration.mirror import row_lookup
from integration.mirror.healthcare_api_sink import HealthcareApiSink
from integration.mirror.mirror import Mirror
from integration.mirror.row_diff import MERGED
from integration.mirror.web_api_sink import WebApiSink


@dataclass(frozen=True, slots=True, kw_only=True)
class RowState:
    """A row. `shown`: the state of the resource that it shows; None: none. `address`: of its form.
    `master`: the key of the row that it was merged into."""

    key: str
    is_active: bool
    shown: StateVersion | None
    address: str
    is_merged: bool = False
    master: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowStates:
    """The rows of a resource. `row`: the one that shows it; None: there is none, or `problem` says
    why it cannot be told from others. `others`: those beside it with its FHIR id or key."""

    table: str
    version_column: str
    row: RowState | None
    others: tuple[RowState, ...]
    problem: str | None


async def find_row_states(mirror: Mirror, resource: str, correlation: str) -> RowStates:
    """Return the rows that show Type/id.

    Raises Unavailable, and Misconfigured where no map of its type is in use.
    """
    type_, _, id_ = resource.partition("/")
    web_api, entity = _get_web_api(mirror), _get_map(mirror, type_)
    rows = await web_api.find_rows(entity, WorkItem(correlation, resource=resource))
    problem = None
    try:
        found = row_lookup.pick_row(entity, web_api.server_keys, id_, rows)
    except Unmappable as error:
        found, problem = None, error.why
    base = web_api.dataverse.upstream.base
    return RowStates(
        table=entity.table,
        version_column=entity.version_column,
        row=None if found is None else _describe(entity, found, base),
        others=tuple(_describe(entity, row, base) for row in rows if row is not found),
        problem=problem,
    )


async def find_resource_of_key(
    mirror: Mirror, type_: str, key: str, correlation: str
) -> str | None:
    """Return the FHIR id that the row of a key shows; None: there is no such row, or it shows none.
    Raises as `find_row_states` does."""
    web_api, entity = _get_web_api(mirror), _get_map(mirror, type_)
    names = row_lookup.list_target_columns(entity)
    query = requests.build_row_query(entity.entity_set, names, f"{entity.key} eq {key}", 1)
    (response,) = await web_api.dataverse.read([query], correlation)
    if response.status != 200:
        raise Unavailable(web_api.dataverse.upstream.name, describe_failure(response))
    ids = [row[entity.id_column] for row in parse_rows(response) if entity.has_kind_of(row)]
    return next((id_ for id_ in ids if isinstance(id_, str)), None)


def _describe(entity: EntityMap, row: Mapping[str, Any], base: str) -> RowState:
    key, master = str(row[entity.key]), row.get(f"_{row_lookup.MASTER}_value")
    return RowState(
        key=key,
        is_active=row.get("statecode") != row_lookup.INACTIVE,
        shown=read_row_version(entity, row),
        # https://learn.microsoft.com/power-apps/developer/model-driven-apps/open-forms-views-dialogs-reports-url
        address=f"{base}/main.aspx?etn={entity.table}&id={key}&pagetype=entityrecord",
        is_merged=bool(row.get(MERGED)),
        master=master if isinstance(master, str) else None,
    )


def _get_web_api(mirror: Mirror) -> WebApiSink:
    sink = mirror.sink
    web_api = sink.web_api if isinstance(sink, HealthcareApiSink) else sink
    if not isinstance(web_api, WebApiSink):
        raise Misconfigured("rows are written by a sink that cannot be asked for them")
    return web_api


def _get_map(mirror: Mirror, type_: str) -> EntityMap:
    if type_ not in mirror.maps:
        raise Misconfigured(mirror.broken_maps.get(type_, f"no map of {type_} is in use"))
    return mirror.maps[type_]
