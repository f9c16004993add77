"""Whatever is asked, both routes answer what evaluating it on every row of theirs would.

The queries are random: see `tests/randomness.py`.
"""

from __future__ import annotations

import pytest

from tests.randomness import make_random, scale
from tests.virtual_tables.conftest import SHAPES, Feed, Json
from tests.virtual_tables.physical.desk import open_desk
from tests.virtual_tables.random_queries import Row, check_query, make_resources, read_values

QUERIES = scale(150)
TYPES = ("Observation", "Condition", "Encounter")
KEY = "msemr_azurefhirid"


async def read_all(feed: Feed, set_: str) -> list[Json]:
    return await feed.every(set_)


@pytest.mark.slow
@pytest.mark.seeded
async def test_random_queries_are_answered_from_dataverse_as_by_evaluating_them_on_every_row(
    feed: Feed,
) -> None:
    r = make_random(3)
    resources = list(make_resources(r))
    await feed.put(*resources)
    async with open_desk(feed) as desk:
        types = [SHAPES[name].type for name in TYPES]
        from_fhir = {type_.set: await feed.every(type_.set) for type_ in types}
        for name in ("Patient", "Encounter", "Observation", "Condition"):
            ids = [item["id"] for item in resources if item["resourceType"] == name]
            results = await desk.mirror(f"{name}/{id_}" for id_ in ids)
            assert {result.action for result in results} == {"created"}
        desk.switch(*TYPES)
        rows: dict[str, list[Row]] = {}
        for type_ in types:
            shown = await feed.every(type_.set)
            keys = {row[KEY]: row[type_.key] for row in shown}
            assert keys == {row[KEY]: row[type_.key] for row in from_fhir[type_.set]}
            rows[type_.set] = [read_values(type_, row) for row in shown]
        feed.asked.clear()
        for _ in range(QUERIES):
            type_ = r.choice(types)
            await check_query(feed, r, type_, rows[type_.set])
        assert feed.asked == [], "FHIR is not asked on this route"
