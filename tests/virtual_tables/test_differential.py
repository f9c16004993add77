"""Whatever is asked, the feed answers what evaluating it on every row would.

The queries are random: see `tests/randomness.py`.
"""

from __future__ import annotations

import pytest

from tests.randomness import make_random, scale
from tests.virtual_tables.conftest import SHAPES, Feed
from tests.virtual_tables.random_queries import check_query, make_resources, read_values

QUERIES = scale(510)

TYPES = ("Observation", "Condition", "Encounter", "Location", "Immunization", "Task")


@pytest.mark.slow
@pytest.mark.seeded
async def test_random_queries_are_answered_as_by_evaluating_them_on_every_row(feed: Feed) -> None:
    r = make_random(1)
    await feed.put(*make_resources(r))
    types = [SHAPES[name].type for name in TYPES]
    rows = {
        type_.set: [read_values(type_, shown) for shown in await feed.every(type_.set)]
        for type_ in types
    }
    assert {name: len(found) for name, found in rows.items()} == {
        type_.set: 60 if type_.set in ("msemr_observations", "msemr_conditions") else 40
        for type_ in types
    }
    for _ in range(QUERIES):
        type_ = r.choice(types)
        await check_query(feed, r, type_, rows[type_.set])
