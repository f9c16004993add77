"""The documents of the feed have an ETag, and who has one of them is told so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from integration.journal.data_routes import ChosenRoute
from tests.virtual_tables.conftest import SHAPES, Feed

DOCUMENTS = ["", "$metadata"]


@pytest.mark.parametrize("path", DOCUMENTS)
async def test_who_has_the_document_is_told_so(feed: Feed, path: str) -> None:
    first = await feed.ask("GET", path)
    tag = first.headers["ETag"]
    assert first.status == 200
    for stated in (tag, f'W/"other", {tag}', "*"):
        again = await feed.ask("GET", path, if_none_match=stated)
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
    other = await feed.ask("GET", path, if_none_match='W/"other"')
    assert (other.status, other.body) == (200, first.body)


@pytest.mark.parametrize("path", DOCUMENTS)
async def test_a_document_is_the_same_on_either_route(feed: Feed, path: str) -> None:
    before = await feed.ask("GET", path)
    await feed.routes.set_routes({"Observation": ChosenRoute("dataverse", "somebody")})
    feed.tables.data_routes.clear_cache()
    after = await feed.ask("GET", path, if_none_match=before.headers["ETag"])
    assert after.status == 304


@pytest.mark.parametrize("path", DOCUMENTS)
async def test_a_document_is_another_one_after_a_map_is_taken_out(feed: Feed, path: str) -> None:
    before = await feed.ask("GET", path)
    left = {name: shape for name, shape in SHAPES.items() if name != "Observation"}
    feed.tables = replace(feed.tables, entity_types=left)
    after = await feed.ask("GET", path, if_none_match=before.headers["ETag"])
    assert after.status == 200
    assert b"msemr_observations" in before.body
    assert b"msemr_observations" not in after.body
    assert after.headers["ETag"] != before.headers["ETag"]


async def test_each_format_is_a_document_of_its_own(feed: Feed) -> None:
    xml = await feed.ask("GET", "$metadata", accept="application/xml")
    json = await feed.ask("GET", "$metadata", accept="application/json")
    assert xml.headers["ETag"] != json.headers["ETag"]
    asked = await feed.ask(
        "GET", "$metadata", accept="application/json", if_none_match=xml.headers["ETag"]
    )
    assert (asked.status, asked.body) == (200, json.body)
