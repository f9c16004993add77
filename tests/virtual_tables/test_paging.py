"""Pages by `$skip`: each row once, in one order, at the cost of one page, however long the list."""

from __future__ import annotations

import random
from dataclasses import replace
from uuid import UUID

import httpx
import pytest

from integration.core import decimal_json
from integration.core.errors import Unavailable
from integration.virtual_tables.page_starts import PageStarts
from integration.virtual_tables.skip_token import PageCursor
from tests.randomness import make_random
from tests.virtual_tables.conftest import Feed, Json
from tests.virtual_tables.scripted import scripted

SET = "msemr_conditions"
ROWS, PAGE = 2300, 50


def condition(number: int) -> Json:
    return {
        "resourceType": "Condition",
        "id": str(UUID(int=number * 7919 % 10_007)),  # in another order than they are stored
        "code": {"text": f"Condition {number % 7}"},
        "subject": {"reference": "Patient/p-1"},
        "recordedDate": f"20{number % 13 + 10}-01-01",
    }


class Server:
    """A FHIR server with many conditions, which counts what it is asked. `forgets`: it takes no
    address of a page that it has issued."""

    def __init__(self, number: int = ROWS) -> None:
        self.resources = [{**condition(n), "meta": {"versionId": "1"}} for n in range(1, number)]
        self.requests = 0
        self.forgets = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        asked = request.url.params
        if asked.get("_summary") == "count":
            return httpx.Response(200, json={"resourceType": "Bundle", "total": ROWS - 1})
        if self.forgets and "ct" in asked:
            return httpx.Response(400, json={"resourceType": "OperationOutcome"})
        first, size = int(asked.get("ct", 0)), int(asked["_count"])
        entries = [{"resource": item} for item in self.resources[first : first + size]]
        body: Json = {"resourceType": "Bundle", "entry": entries}
        if first + size < len(self.resources):
            url = str(request.url.copy_set_param("ct", str(first + size)))
            body["link"] = [{"relation": "next", "url": url}]
        return httpx.Response(200, content=decimal_json.encode(body))


async def read_page(feed: Feed, options: str, number: int, size: int = PAGE) -> list[str]:
    page = await feed.get(SET, f"{options}&$top={size}&$skip={number * size}")
    return [row["msemr_conditionid"] for row in page["value"]]


@pytest.mark.parametrize("options", ["$count=true", "$filter=msemr_note eq null"])
async def test_page_40_costs_no_more_than_twice_page_1(options: str) -> None:
    server, costs = Server(), []
    async with scripted(server) as feed:
        keys: list[str] = []
        for number in range(ROWS // PAGE + 1):
            server.requests = 0
            keys += await read_page(feed, options, number)
            costs.append(server.requests)
        assert keys == [item["id"] for item in server.resources]
        assert max(costs[:41]) <= 2 * costs[0]


@pytest.mark.parametrize("options", ["$count=true", "$filter=msemr_note eq null"])
async def test_a_page_that_the_worker_does_not_remember_is_the_same_though_slower(
    options: str,
) -> None:
    """However many rows come before it: they were not looked at in vain."""
    server = Server()
    async with scripted(server) as feed:
        feed.tables = replace(feed.tables, reader=replace(feed.tables.reader, max_scanned=300))
        expected = [item["id"] for item in server.resources]
        assert await read_page(feed, options, 44) == expected[2200:2250]
        server.requests = 0
        assert await read_page(feed, options, 45) == expected[2250:2299]
        assert server.requests <= 2


async def test_what_is_read_before_a_failure_is_not_read_again() -> None:
    """A deep page may take longer than a request may, on a worker that has not read the list."""
    server, is_away = Server(), [True]

    def answer(request: httpx.Request) -> httpx.Response:
        if is_away[0] and request.url.params.get("ct") == "2000":
            return httpx.Response(500)
        return server(request)

    async with scripted(answer) as feed:
        with pytest.raises(Unavailable):
            await read_page(feed, "", 44)
        is_away[0], server.requests = False, 0
        assert await read_page(feed, "", 44) == [item["id"] for item in server.resources[2200:2250]]
        assert server.requests == 1


async def test_a_page_whose_address_the_server_has_forgotten_is_read_from_the_beginning() -> None:
    server = Server(120)
    async with scripted(server) as feed:
        expected = [item["id"] for item in server.resources]
        assert await read_page(feed, "$select=msemr_name", 0) == expected[:50]
        server.forgets = True
        assert await read_page(feed, "$select=msemr_name", 1) == expected[50:100]


async def test_a_server_that_takes_none_of_its_addresses_is_in_trouble() -> None:
    server = Server()
    server.forgets = True
    async with scripted(server) as feed:
        for options in ("$filter=msemr_note eq 'x'", "$orderby=msemr_name"):
            with pytest.raises(Unavailable):
                await feed.get(SET, options)


async def test_a_page_may_be_larger_than_the_one_before_it() -> None:
    server = Server(400)
    async with scripted(server) as feed:
        expected = [item["id"] for item in server.resources]
        assert await read_page(feed, "", 0, 20) == expected[:20]
        page = await feed.get(SET, "$skip=20&$top=200")
        assert [row["msemr_conditionid"] for row in page["value"]] == expected[20:220]
        assert "@odata.nextLink" not in page


@pytest.mark.parametrize(
    "options",
    [
        "",
        "$filter=msemr_note eq null",
        "$filter=contains(msemr_name,'Condition')",
        "$orderby=msemr_asserteddate",
        "$orderby=msemr_asserteddate desc",
        "$orderby=msemr_name",
        "$filter=msemr_note eq null&$orderby=msemr_azurefhirlastupdatedon desc",
    ],
)
async def test_rows_have_one_order_whatever_else_is_asked_for(feed: Feed, options: str) -> None:
    r = make_random(options)
    await feed.put(*(condition(n) for n in range(1, 61)))
    columns = {item.name for item in feed.tables.entity_types["Condition"].type.properties}
    options = options.replace(
        "msemr_azurefhirlastupdatedon",
        feed.tables.entity_types["Condition"].entity.updated_column,
    )
    assert "msemr_asserteddate" in columns
    whole = [row["msemr_conditionid"] for row in await feed.every(SET, options)]
    assert len(set(whole)) == 60
    for _ in range(3):
        forget(feed, r)
        keys: list[str] = []
        while len(keys) < 60:
            more = r.sample(["$count=true", "$select=msemr_note", f"$top={r.randrange(1, 20)}"], 2)
            size = {"prefer": f"odata.maxpagesize={r.randrange(5, 20)}"}
            asked = "&".join(filter(None, [options, f"$skip={len(keys)}", *more]))
            page = await feed.get(SET, asked, **size)
            keys += [row["msemr_conditionid"] for row in page["value"]]
        assert keys == whole


def forget(feed: Feed, r: random.Random) -> None:
    """Sometimes another worker answers."""
    if r.random() < 0.5:
        reader = replace(feed.tables.reader, page_starts=PageStarts())
        feed.tables = replace(feed.tables, reader=reader)


# -- what is remembered ----------------------------------------------------------------------------


def test_the_last_page_that_begins_before_a_row_is_found() -> None:
    starts = PageStarts(lambda: 0.0)
    for row in (50, 100, 200):
        starts.add("query", row, PageCursor(f"page {row}", 3))
    assert starts.find("query", 49) is None
    assert starts.find("query", 100) == (100, PageCursor("page 100", 3))
    assert starts.find("query", 199) == (100, PageCursor("page 100", 3))
    assert starts.find("another query", 199) is None
    starts.forget("query")
    assert starts.find("query", 199) is None


def test_what_is_remembered_is_bounded_and_ends() -> None:
    time = [0.0]
    starts = PageStarts(lambda: time[0], max_queries=3, max_pages=2)
    for query in range(5):
        for row in (1, 2, 3):
            starts.add(query, row, PageCursor("x", row))
    assert [starts.find(query, 9) is not None for query in range(5)] == [False, False] + 3 * [True]
    assert starts.find(4, 1) is None
    assert starts.find(4, 2) is not None
    time[0] = 601.0
    assert starts.find(4, 9) is None
