"""Reads that go together, changes that are one, and answers that cannot be taken for one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from integration.core.errors import Unavailable
from integration.core.http import Upstream, build_limiter
from integration.core.model import Response
from integration.dataverse.client import Dataverse, parse_rows
from integration.dataverse.requests import Change, build_who_am_i
from integration.dataverse.requests import build_row_query as asked
from local.dataverse.app import create_app

ROWS = [f"0b6d3d3e-9c4b-4a53-8f1f-{number:012d}" for number in range(200)]


class Told(httpx.AsyncBaseTransport):
    """The stand-in, and what it was asked; answers of a script come first."""

    def __init__(self) -> None:
        self.app = create_app()
        self.received: list[httpx.Request] = []
        self.script: list[httpx.Response] = []
        self._inner = httpx.ASGITransport(app=self.app)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.received.append(request)
        return (
            self.script.pop(0) if self.script else await self._inner.handle_async_request(request)
        )


@pytest.fixture
def told() -> Iterator[Told]:
    found = Told()
    yield found
    found.app.close()


@pytest.fixture
def dataverse(told: Told) -> Dataverse:
    http = httpx.AsyncClient(transport=told)
    upstream = Upstream("Dataverse", "http://dataverse", http, build_limiter(8), pause=_at_once)
    return Dataverse(upstream, {"x-option": "1"})


async def _at_once(seconds: float) -> None:
    """Time is no part of this."""


def question(row: str) -> list:
    return [asked("contacts", ["contactid"], f"contactid eq {row}")]


async def test_a_question_alone_goes_as_it_is(told: Told, dataverse: Dataverse) -> None:
    (answer,) = await dataverse.read(question(ROWS[0]), "d")
    assert parse_rows(answer) == []
    assert [request.method for request in told.received] == ["GET"]


async def test_what_many_ask_at_once_goes_in_few_requests_and_comes_back_to_each(
    told: Told, dataverse: Dataverse
) -> None:
    for row in ROWS[::2]:
        await dataverse.apply_changes(
            [Change(method="PATCH", entity_set="contacts", key=row, columns={"lastname": "x"})], "d"
        )
    told.received.clear()
    answers = await asyncio.gather(*(dataverse.read(question(row), "d") for row in ROWS))
    found = [[row["contactid"] for row in parse_rows(answer)] for (answer,) in answers]
    assert found == [[row] if number % 2 == 0 else [] for number, row in enumerate(ROWS)]
    assert len(told.received) <= 4


async def test_one_refused_question_costs_no_other_its_answer(dataverse: Dataverse) -> None:
    wrong = asked("contacts", ["nosuchcolumn"], "contactid ne null")
    answers = await dataverse.read([*question(ROWS[0]), wrong, build_who_am_i()], "d")
    assert [answer.status for answer in answers] == [200, 400, 200]


async def test_trouble_is_heard_by_everybody_who_asked(told: Told, dataverse: Dataverse) -> None:
    told.script = [httpx.Response(500)] * 10
    both = asyncio.gather(
        *(dataverse.read(question(row), "d") for row in ROWS[:2]), return_exceptions=True
    )
    assert all(isinstance(error, Unavailable) for error in await both)
    told.script.clear()
    assert len(await dataverse.read(question(ROWS[0]), "d")) == 1


async def test_changes_have_the_options_in_every_part(told: Told, dataverse: Dataverse) -> None:
    told.script = [httpx.Response(204), httpx.Response(500)]
    change = Change(method="PATCH", entity_set="contacts", key=ROWS[0], columns={"lastname": "x"})
    await dataverse.apply_changes([change], "d")
    with pytest.raises(Unavailable):
        await dataverse.apply_changes([change, change], "d")
    alone, together = told.received
    assert alone.headers["x-option"] == together.headers["x-option"] == "1"
    assert together.content.count(b"x-option: 1") == 2


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"values": []}'])
def test_an_answer_that_broke_off_is_trouble_and_no_empty_list(body: bytes) -> None:
    with pytest.raises(Unavailable):
        parse_rows(Response(200, {}, body))
