"""An organisation without Microsoft's tables has its own, which shows what the feed shows."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from integration.core.http import Upstream, build_limiter
from integration.dataverse.client import Dataverse
from integration.mapping.load import load_maps
from integration.provision import command
from integration.virtual_tables.physical.own_table import add_own_tables
from tests.doubles import DataverseDouble
from tests.randomness import make_random, scale
from tests.virtual_tables.conftest import SHAPES, Feed
from tests.virtual_tables.physical.desk import URL, open_desk
from tests.virtual_tables.random_queries import Row, check_query, make_resources, read_values

QUERIES = scale(60)
TYPES = ("Observation", "Condition", "Encounter")
MAPS = add_own_tables(load_maps("plain", "abc"), "abc").entities

# What the organisation's table has otherwise: lookups of tables without rows, and the full name of
# a contact, which Dataverse composes.
_LOOKUPS = "encounter"
_COMPOSED = "msemr_patientfullname"


async def provision(double: DataverseDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the tables, as the command does."""
    monkeypatch.setenv("MAP_SET", "plain")
    monkeypatch.setenv("MAP_PREFIX", "abc")

    @asynccontextmanager
    async def opened() -> AsyncIterator[Dataverse]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=double.app)) as http:
            yield Dataverse(Upstream("Dataverse", URL, http, build_limiter(4)))

    def run() -> int:
        parser = argparse.ArgumentParser()
        command.add_options(parser)
        options = [part for name in TYPES for part in ("--physical", name)]
        return command.run(parser.parse_args(options), lambda _: None, opened)

    # 1: that there is no feed's address is for a person.
    assert await asyncio.to_thread(run) == 1


@pytest.mark.slow
@pytest.mark.seeded
async def test_random_queries_are_answered_from_a_table_of_the_organisation(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    r = make_random(4)
    resources = list(make_resources(r))
    await feed.put(*resources)
    async with open_desk(feed, MAPS) as desk:
        await provision(desk.double, monkeypatch)
        types = [SHAPES[name].type for name in TYPES]
        from_fhir = {type_.set: await feed.every(type_.set) for type_ in types}
        for name in ("Patient", *TYPES):
            ids = [item["id"] for item in resources if item["resourceType"] == name]
            results = await desk.mirror(f"{name}/{id_}" for id_ in ids)
            assert {result.action for result in results} == {"created"}, results
        desk.switch(*TYPES)
        rows: dict[str, list[Row]] = {}
        for type_ in types:
            shown = {row[type_.key]: row for row in await feed.every(type_.set)}
            expected = {row[type_.key]: row for row in from_fhir[type_.set]}
            assert shown.keys() == expected.keys()
            for key, row in shown.items():
                for name, value in row.items():
                    if (
                        name.startswith("@")
                        or name == _COMPOSED
                        or value is None
                        or _LOOKUPS in name
                    ):
                        continue
                    other = expected[key][name]
                    # The mirror writes no blanks around a text.
                    other = other.strip() if isinstance(other, str) else other
                    assert value == other, (key, name)
            empty = {
                name
                for name in type_.by_name
                if all(row[name] is None for row in shown.values())
                and any(row[name] is not None for row in expected.values())
            }
            assert all(_LOOKUPS in name for name in empty), empty
            rows[type_.set] = [read_values(type_, row) for row in shown.values()]
        feed.asked.clear()
        for _ in range(QUERIES):
            type_ = r.choice(types)
            await check_query(feed, r, type_, rows[type_.set])
        assert feed.asked == []


async def test_a_row_of_the_organisations_table_is_written_whole(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_desk(feed, MAPS) as desk:
        await provision(desk.double, monkeypatch)
        desk.switch("Observation")
        body = {"msemr_codecode": "8867-4", "msemr_codetext": "Pulse", "msemr_status": 935000002}
        answer = await feed.ask("POST", "msemr_observations", body=body)
        assert answer.status == 201
        (row,) = await desk.double.rows("abc_observations")
        assert (row["abc_codecode"], row["abc_codetext"]) == ("8867-4", "Pulse")
        (shown,) = await feed.every("msemr_observations")
        assert shown["msemr_codecode"] == "8867-4"
        assert shown["msemr_azurefhirid"] is None
