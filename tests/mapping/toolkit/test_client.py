"""Rows and names come from the organisation itself: from the stand-in, with the toolkit's tables."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from integration.core.errors import Misconfigured
from integration.core.http import Upstream
from integration.core.model import Request, Response
from integration.core.rate_limiter import Limiter, build_full_limit
from integration.dataverse.client import Dataverse
from integration.dataverse.requests import API
from integration.mapping.toolkit import client
from integration.mapping.toolkit.client import Organisation
from integration.mapping.toolkit.convert import convert
from integration.mapping.toolkit.rows import TABLES, NewerColumns, read_toolkit
from local.dataverse import app, tables
from tests.mapping.toolkit.organisation import (
    ATTRIBUTE_MAP,
    ENTITY_MAP,
    LATER,
    RESOURCE,
    VALUE_MAP,
    whole,
)

BASE = "http://dataverse"

_TEXT = (
    "msind_name msind_entityname msind_code msind_cdsattributename msind_cdsattributetype "
    "msind_fhirelementmap msind_codeableconcepttype msind_codeableconcepttypevalue "
    "msind_azurefhirvalue msind_cdsvalue msind_staticvalue msind_optionsetlabel "
    "msind_supportedmessages msind_parentlink"
).split()
_FLAGS = "msind_disabled msind_writeback msind_expand msind_matching".split()
_LOOKUPS = {
    "msind_azurefhirresource": RESOURCE,
    "msind_updateserviceentitymap": ENTITY_MAP,
    "msind_expansion": ENTITY_MAP,
    "msind_fhirresourcereference": RESOURCE,
    "msind_updateserviceattributemap": ATTRIBUTE_MAP,
}
_LABELS = {
    "msind_expand": "Expand",
    "msind_parentlink": "Parent Link Attribute",
    "msind_expansion": "Expansion Entity Map",
    "msind_matching": "Used in Record Matching",
}
_ACTIONS = ["Copy Data", "Set Default Value", "Mapped Value", "FK Reference",
            "Lookup Codeable Concept", "Expand"]  # fmt: skip


def definition(table: str, names: set[str]) -> dict[str, Any]:
    """A table of the toolkit as the stand-in's own files have theirs."""
    key = f"{table}id"
    columns: dict[str, Any] = {
        key: {"type": "Uniqueidentifier", "schemaName": key, "label": key},
        "statecode": {
            "type": "State", "schemaName": "statecode", "label": "Status",
            "options": [{"value": 0, "label": "Active"}, {"value": 1, "label": "Inactive"}],
        },
        "statuscode": {
            "type": "Status", "schemaName": "statuscode", "label": "Status Reason",
            "options": [{"value": 1, "label": "Active", "state": 0}],
        },
    }  # fmt: skip
    for name in names:
        label = {"schemaName": name, "label": _LABELS.get(name, name)}
        if name in _TEXT:
            columns[name] = {"type": "String", "maxLength": 5000, **label}
        elif name in _FLAGS:
            columns[name] = {"type": "Boolean", **label}
        elif name in _LOOKUPS:
            target = _LOOKUPS[name]
            columns[name] = {
                "type": "Lookup", "targets": [target], "navigation": {target: name}, **label,
            }  # fmt: skip
        elif name == "msind_actiontype":
            options = [{"value": 440670000 + n, "label": each} for n, each in enumerate(_ACTIONS)]
            columns[name] = {"type": "Picklist", "options": options, **label}
    return {
        "logicalName": table,
        "entitySet": f"{table}set",
        "label": table,
        "primaryId": key,
        "primaryName": next((name for name in names if name in _TEXT), key),
        "ownership": "UserOwned",
        "changeTracking": False,
        "keys": [],
        "columns": columns,
    }


def bare(name: str) -> str:
    return name.removeprefix("_").removesuffix("_value") if name.startswith("_") else name


@pytest.fixture
async def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Upstream]:
    """The stand-in, with the tables and the rows of the invented organisation."""
    for path in tables.FOLDER.glob("*.json"):
        (tmp_path / path.name).write_text(path.read_text("utf-8"), "utf-8")
    rows = whole()
    for table in TABLES:
        names = {bare(name) for row in rows[table] for name in row}
        (tmp_path / f"{table}.json").write_text(json.dumps(definition(table, names)), "utf-8")
    monkeypatch.setattr(app.tables, "load", partial(tables.load, folder=tmp_path))
    gate = app.create_app()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url=BASE) as http:
        for table in (RESOURCE, ENTITY_MAP, ATTRIBUTE_MAP, VALUE_MAP):
            for row in rows[table]:
                await _created(http, table, row)
        yield Upstream(
            "Dataverse", BASE, http, Limiter(build_full_limit(4), math.inf, lambda: 0.0, _pause)
        )
    gate.close()


async def _pause(_: float) -> None:
    raise AssertionError("nothing throttles here")


async def _created(http: httpx.AsyncClient, table: str, row: dict[str, Any]) -> None:
    columns = {
        f"{bare(name)}@odata.bind" if name.startswith("_") else name:
        f"/{_LOOKUPS[bare(name)]}set({value})" if name.startswith("_") else value
        for name, value in row.items()
        if value is not None and name != f"{table}id"
    }  # fmt: skip
    answer = await http.patch(f"/{API}/{table}set({row[f'{table}id']})", json=columns)
    assert answer.status_code == 204, answer.text


def organisation(upstream: Upstream) -> Organisation:
    dataverse = Dataverse(upstream)

    async def send(request: Request) -> Response:
        return await dataverse.send(request, "toolkit")

    return Organisation(send, upstream.base, API)


async def test_the_organisation_tells_what_a_file_would(upstream: Upstream) -> None:
    there = await client.fetch_toolkit(organisation(upstream), LATER)
    told = convert(there)
    from_file = convert(read_toolkit(whole(), LATER))
    assert told.files == from_file.files
    assert [(one.id, one.status) for one in told.findings] == [
        (one.id, one.status) for one in from_file.findings
    ]


async def test_columns_that_are_not_published_are_found_by_their_labels(
    upstream: Upstream,
) -> None:
    there = await client.fetch_toolkit(organisation(upstream), NewerColumns())
    assert there.newer_columns == LATER
    assert "Expand is msind_expand, by its label" in there.notes


async def test_a_column_that_was_named_counts_more_than_a_label(upstream: Upstream) -> None:
    there = await client.fetch_toolkit(organisation(upstream), NewerColumns(matching="msind_other"))
    assert there.newer_columns.matching == "msind_other"


async def test_tables_have_the_names_of_the_metadata_and_their_days(upstream: Upstream) -> None:
    there = await client.fetch_toolkit(organisation(upstream), LATER)
    assert "new_nurse" not in there.tables
    contact = there.tables["contact"]
    assert (contact.entity_set, contact.key) == ("contacts", "contactid")
    assert contact.date_only is not None
    assert "birthdate" in contact.date_only
    assert "msemr_azurefhirlastupdatedon" not in contact.date_only


async def test_every_page_is_read(upstream: Upstream) -> None:
    there = await client.fetch_toolkit(replace(organisation(upstream), page_size=2), LATER)
    assert sum(len(one.attributes) for one in there.entities) == len(whole()[ATTRIBUTE_MAP])


async def test_an_organisation_without_the_toolkit_says_so() -> None:
    gate = app.create_app()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url=BASE) as http:
        here = Upstream(
            "Dataverse", BASE, http, Limiter(build_full_limit(4), math.inf, lambda: 0.0, _pause)
        )
        with pytest.raises(Misconfigured, match="the organisation has no table msind_"):
            await client.fetch_toolkit(organisation(here), LATER)
    gate.close()


async def test_a_next_page_elsewhere_is_not_asked_for() -> None:
    asked: list[str] = []

    async def send(request: Request) -> Response:
        asked.append(request.path)
        body: dict[str, Any] = {"value": [], "@odata.nextLink": "https://elsewhere.test/api/x"}
        if "EntityDefinitions" in request.path:
            body = {"EntitySetName": "rows", "PrimaryIdAttribute": "id", "value": []}
        return Response(200, {}, json.dumps(body).encode())

    with pytest.raises(Misconfigured, match="not below its own"):
        await client.fetch_toolkit(Organisation(send, BASE, API), LATER)
    assert all(path.startswith(API) for path in asked)


async def test_another_answer_is_told_without_its_text() -> None:
    async def send(_: Request) -> Response:
        return Response(500, {}, b"secret")

    with pytest.raises(Misconfigured, match="answered 500 to a request for the toolkit's tables"):
        await client.fetch_toolkit(Organisation(send, BASE, API), LATER)


@pytest.mark.parametrize("body", [b"<html>", b"[]"])
async def test_what_is_no_answer_is_told_as_such(body: bytes) -> None:
    async def send(_: Request) -> Response:
        return Response(200, {}, body)

    with pytest.raises(Misconfigured, match="something else than JSON"):
        await client.fetch_toolkit(Organisation(send, BASE, API), LATER)
