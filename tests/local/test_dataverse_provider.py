"""Rows of a virtual table are read and written at its feed, as the OData v4 provider does it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from local.dataverse.app import create_app
from tests.local.provision_parts import (
    COLUMNS,
    FEED,
    Client,
    column,
    label,
    lookup,
    published,
    sourced,
    virtual,
)

ID = "0b1c2d3e-0000-4000-8000-000000000001"
CONTACT = "0b1c2d3e-0000-4000-8000-0000000000c1"
TABLE = "abc_ve_conditions"

Answer = Callable[[httpx.Request], httpx.Response]


class Feed(httpx.AsyncBaseTransport):
    """Answers as it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.answer: Answer = lambda request: httpx.Response(200, json={"value": []})

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.requests.append(request)
        return self.answer(request)

    @property
    def query(self) -> dict[str, str]:
        return dict(self.requests[-1].url.params)

    def says(self, document: Any, status: int = 200) -> None:
        self.answer = lambda request: httpx.Response(status, json=document)


@pytest.fixture
def feed() -> Feed:
    return Feed()


@pytest.fixture
async def dataverse(feed: Feed) -> AsyncIterator[Client]:
    """With a virtual table of conditions: a name, a status, an onset, a patient."""
    app = create_app(feed=feed)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://dataverse/api/data/v9.2/"
    ) as http:
        client = Client(http)
        await published(client)
        await client.send("POST", "EntityDefinitions", virtual(await sourced(client)))
        options = [{"Value": 1, "Label": label("Active")}, {"Value": 2, "Label": label("Gone")}]
        status = column("Picklist", "abc_status", "msemr_status", OptionSet={"Options": options})
        await client.send("POST", COLUMNS, status)
        await client.send("POST", COLUMNS, column("DateTime", "abc_onset", "msemr_onset"))
        await client.send("POST", "RelationshipDefinitions", lookup())
        key = f"{COLUMNS}(LogicalName='abc_ve_conditionid')"
        cast = "Microsoft.Dynamics.CRM.UniqueIdentifierAttributeMetadata"
        found = await client.get(f"{key}/{cast}")
        body = {**found, "@odata.type": cast, "ExternalName": "msemr_conditionid"}
        await client.send("PUT", key, body)
        await client.send("PATCH", f"contacts({CONTACT})", {"lastname": "A"})
        yield client
    app.close()


def entity(**more: Any) -> dict[str, Any]:
    """As the feed tells one."""
    return {
        "msemr_conditionid": ID,
        "msemr_name": "Cough",
        "msemr_status": 1,
        "msemr_onset": "2026-03-02T10:00:00.25Z",
        "_msemr_subject_value": CONTACT,
        **more,
    }


async def test_a_row_has_dataverses_names_and_the_feeds_values(
    dataverse: Client, feed: Feed
) -> None:
    feed.says({"value": [entity()]})
    (row,) = (await dataverse.get(TABLE))["value"]
    assert row["abc_ve_conditionid"] == ID
    assert (row["abc_name"], row["abc_status"]) == ("Cough", 1)
    assert row["abc_onset"] == "2026-03-02T10:00:00Z"
    assert row["_abc_subject_value"] == CONTACT
    assert feed.requests[-1].url.path == "/api/odata/msemr_conditions"
    assert feed.requests[-1].headers["x-functions-key"] == "key"


async def test_choices_and_lookups_are_annotated_as_those_of_other_tables(
    dataverse: Client, feed: Feed
) -> None:
    feed.says(entity())
    answer = await dataverse.send(
        "GET", f"{TABLE}({ID})", expect=200, prefer='odata.include-annotations="*"'
    )
    row = answer.json()
    assert row["abc_status@OData.Community.Display.V1.FormattedValue"] == "Active"
    named = "_abc_subject_value@Microsoft.Dynamics.CRM.lookuplogicalname"
    assert row[named] == "contact"


@pytest.mark.parametrize(
    ("condition", "sent"),
    [
        (f"_abc_subject_value eq {CONTACT}", f"_msemr_subject_value eq {CONTACT}"),
        ("abc_status eq 1 and abc_name ne null", "(msemr_status eq 1 and msemr_name ne null)"),
        ("not contains(abc_name,'o''b')", "not (contains(msemr_name,'o''b'))"),
        ("abc_onset ge 2026-03-02", "msemr_onset ge 2026-03-02T00:00:00Z"),
        (
            "abc_onset lt 2026-03-02T10:00:00Z or abc_status eq 2",
            "(msemr_onset lt 2026-03-02T10:00:00Z or msemr_status eq 2)",
        ),
        (
            'Microsoft.Dynamics.CRM.In(PropertyName=\'abc_status\',PropertyValues=["1","2"])',
            "(msemr_status eq 1 or msemr_status eq 2)",
        ),
    ],
)
async def test_a_filter_is_asked_of_the_feed_in_its_own_names(
    dataverse: Client, feed: Feed, condition: str, sent: str
) -> None:
    await dataverse.get(f"{TABLE}?$filter={condition}")
    assert feed.query["$filter"] == sent


async def test_only_what_is_selected_is_asked_for_and_the_order_is_the_feeds(
    dataverse: Client, feed: Feed
) -> None:
    query = "$select=abc_name&$orderby=abc_onset desc,abc_name&$top=3&$count=true"
    feed.says({"@odata.count": 7, "value": []})
    document = await dataverse.get(f"{TABLE}?{query}")
    assert set(feed.query["$select"].split(",")) == {"msemr_conditionid", "msemr_name"}
    assert feed.query["$orderby"] == "msemr_onset desc,msemr_name"
    assert (feed.query["$top"], feed.query["$count"]) == ("4", "true")
    assert document["@odata.count"] == 7


@pytest.mark.parametrize(
    "query", ["$filter=abc_nothing eq 1", "$filter=abc_status eq 'x'", "$select=abc_nothing"]
)
async def test_a_query_that_the_table_cannot_answer_is_not_asked_of_the_feed(
    dataverse: Client, feed: Feed, query: str
) -> None:
    await dataverse.refused("GET", f"{TABLE}?{query}")
    assert feed.requests == []


def paged(page: int) -> Answer:
    """A feed of five entities that shows `page` of them at a time."""
    every = [entity(msemr_conditionid=f"{ID[:-1]}{n}") for n in range(1, 6)]

    def answer(request: httpx.Request) -> httpx.Response:
        query = request.url.params
        start = int(query.get("$skiptoken", query.get("$skip", "0")))
        requested = int(query.get("$top", "99")) if "$skiptoken" not in query else 99
        shown = every[start : start + min(page, requested)]
        more = {}
        if len(shown) == page and start + page < len(every):
            more = {"@odata.nextLink": f"msemr_conditions?$skiptoken={start + page}"}
        return httpx.Response(200, json={"value": shown, **more})

    return answer


@pytest.mark.parametrize("page", [1, 2, 5, 50])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 10])
async def test_pages_are_whole_however_the_feed_cuts_them(
    dataverse: Client, feed: Feed, page: int, size: int
) -> None:
    feed.answer = paged(page)
    found: list[str] = []
    path = TABLE
    while path:
        answer = await dataverse.send("GET", path, expect=200, prefer=f"odata.maxpagesize={size}")
        document = answer.json()
        assert len(document["value"]) <= size
        found += [row["abc_ve_conditionid"][-1] for row in document["value"]]
        path = document.get("@odata.nextLink", "")
    assert found == ["1", "2", "3", "4", "5"]


async def test_a_next_page_elsewhere_is_not_followed(dataverse: Client, feed: Feed) -> None:
    link = "https://elsewhere.example.org/api/odata/msemr_conditions"
    feed.says({"value": [entity()], "@odata.nextLink": link})
    assert (await dataverse.refused("GET", TABLE)).startswith("0x80040265")
    assert [request.url.host for request in feed.requests] == ["feed.example.org"]


@pytest.mark.parametrize("status", [400, 401, 412, 429, 500, 501, 503])
async def test_what_the_feed_says_against_a_request_is_an_error_without_details(
    dataverse: Client, feed: Feed, status: int
) -> None:
    feed.says({"error": {"code": "x", "message": "Zaphkiel"}}, status)
    error = await dataverse.refused("GET", f"{TABLE}({ID})")
    assert error.startswith("0x80040265")
    assert "Zaphkiel" not in error


async def test_a_feed_that_cannot_be_reached_is_the_same_error(
    dataverse: Client, feed: Feed
) -> None:
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no")

    feed.answer = away
    assert (await dataverse.refused("GET", TABLE)).startswith("0x80040265")


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"msemr_name": "no key"}),
    ],
)
async def test_an_answer_that_is_no_row_is_never_shown_as_one(
    dataverse: Client, feed: Feed, answer: httpx.Response
) -> None:
    feed.answer = lambda request: answer
    assert (await dataverse.refused("GET", f"{TABLE}({ID})")).startswith("0x80040265")


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize(
    ("method", "body"), [("GET", None), ("PATCH", {"abc_name": "x"}), ("DELETE", None)]
)
async def test_a_row_that_the_feed_has_not_is_not_there(
    dataverse: Client, feed: Feed, status: int, method: str, body: Any
) -> None:
    feed.says({"error": {"code": "x", "message": "y"}}, status)
    await dataverse.send(method, f"{TABLE}({ID})", body, expect=404)


async def test_a_new_row_is_written_at_the_feed_and_has_the_feeds_key(
    dataverse: Client, feed: Feed
) -> None:
    feed.says(entity(), 201)
    body = {
        "abc_name": "Cough",
        "abc_status": 2,
        "abc_subject@odata.bind": f"/contacts({CONTACT})",
    }
    answer = await dataverse.send("POST", TABLE, body)
    assert answer.headers["odata-entityid"].endswith(f"{TABLE}({ID})")
    (request,) = feed.requests
    assert (request.method, request.url.path) == ("POST", "/api/odata/msemr_conditions")
    assert json.loads(request.content) == {
        "msemr_name": "Cough",
        "msemr_status": 2,
        "_msemr_subject_value": CONTACT,
    }


async def test_a_change_and_a_removal_are_the_feeds(dataverse: Client, feed: Feed) -> None:
    feed.answer = lambda request: httpx.Response(204)
    await dataverse.send("PATCH", f"{TABLE}({ID})", {"abc_status": 2, "abc_name": None})
    (change,) = feed.requests
    assert (change.method, str(change.url)) == ("PATCH", f"{FEED}/msemr_conditions({ID})")
    assert json.loads(change.content) == {"msemr_status": 2, "msemr_name": None}
    await dataverse.send("DELETE", f"{TABLE}({ID})")
    assert (feed.requests[-1].method, feed.requests[-1].content) == ("DELETE", b"")


@pytest.mark.parametrize(
    "body",
    [
        {"abc_status": 3},
        {"abc_name": "x" * 101},
        {"abc_nothing": 1},
        {"abc_subject@odata.bind": f"/contacts({ID})"},
    ],
)
async def test_a_value_that_the_column_cannot_take_does_not_reach_the_feed(
    dataverse: Client, feed: Feed, body: dict[str, Any]
) -> None:
    await dataverse.refused("POST", TABLE, body)
    assert feed.requests == []


async def test_virtual_rows_do_not_travel_in_a_batch(dataverse: Client, feed: Feed) -> None:
    part = f"--b\r\nContent-Type: application/http\r\n\r\nGET {TABLE} HTTP/1.1\r\n\r\n\r\n--b--\r\n"
    answer = await dataverse.http.post(
        "$batch", content=part, headers={"content-type": "multipart/mixed; boundary=b"}
    )
    assert b"HTTP/1.1 501" in answer.content
    assert feed.requests == []
