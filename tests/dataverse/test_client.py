"""Reads that go together, changes that are one, and answers that cannot be taken for one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from integration.core.errors import Misconfigured, Unavailable
from integration.core.http import Upstream, build_limiter
from integration.core.model import Response
from integration.dataverse.client import ChangeFailed, Dataverse, parse_rows
from integration.dataverse.requests import CASTS, Change, build_who_am_i
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


# --- the columns of a table ----------------------------------------------------------------------


class Seconds:
    """A clock that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Hanging(Told):
    """An organisation that answers nothing as long as it hangs: each request waits until then."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs = False
        self.waiting = 0
        self.over: asyncio.Event = asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.hangs:
            self.received.append(request)
            self.waiting += 1
            await self.over.wait()
            self.waiting -= 1
            raise httpx.ReadTimeout("late", request=request)
        return await super().handle_async_request(request)

    async def give_up(self) -> None:
        """Let the time of every sender be over whose request is here."""
        for _ in range(1000):
            await asyncio.sleep(0)
        assert self.waiting > 0
        self.over.set()
        self.over = asyncio.Event()


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    found = Hanging()
    yield found
    found.app.close()


def reach(hanging: Hanging, clock: Seconds, concurrency: int = 52) -> Dataverse:
    http = httpx.AsyncClient(transport=hanging)
    limiter = build_limiter(concurrency)
    upstream = Upstream("Dataverse", "http://dataverse", http, limiter, pause=_at_once)
    return Dataverse(upstream, clock=clock)


async def test_while_dataverse_hangs_all_that_ask_for_columns_wait_once_and_together(
    hanging: Hanging,
) -> None:
    dataverse, hanging.hangs = reach(hanging, Seconds()), True
    asked = asyncio.gather(
        *(dataverse.get_columns("contact") for _ in range(24)), return_exceptions=True
    )
    await hanging.give_up()
    assert all(isinstance(error, Unavailable) for error in await asked)
    assert len(hanging.received) == len(CASTS)


async def test_columns_of_one_table_do_not_wait_for_those_of_another(hanging: Hanging) -> None:
    dataverse = reach(hanging, Seconds())
    known = await dataverse.get_columns("contact")
    hanging.hangs = True
    waiting = asyncio.gather(dataverse.get_columns("account"), return_exceptions=True)
    await asyncio.sleep(0)
    assert await dataverse.get_columns("contact") == known
    await hanging.give_up()
    await waiting


async def test_known_columns_are_used_while_dataverse_hangs(hanging: Hanging) -> None:
    clock = Seconds()
    dataverse = reach(hanging, clock)
    known = await dataverse.get_columns("contact")
    clock.now += 3600
    hanging.hangs = True
    asked = asyncio.gather(*(dataverse.get_columns("contact") for _ in range(24)))
    await hanging.give_up()
    assert await asked == [known] * 24
    before = len(hanging.received)
    assert await dataverse.get_columns("contact") == known  # at once, without another request
    assert len(hanging.received) == before
    hanging.hangs = False
    clock.now += 60
    await dataverse.get_columns("contact")
    assert len(hanging.received) > before


async def test_columns_are_asked_for_again_after_a_while(hanging: Hanging) -> None:
    clock = Seconds()
    dataverse = reach(hanging, clock)
    for _ in range(3):
        await dataverse.get_columns("contact")
    assert len(hanging.received) == len(CASTS)
    clock.now += 3600
    await dataverse.get_columns("contact")
    assert len(hanging.received) == 2 * len(CASTS)


async def test_a_table_that_there_is_not_is_said_every_time(hanging: Hanging) -> None:
    dataverse = reach(hanging, Seconds())
    for _ in range(2):
        with pytest.raises(Misconfigured):
            await dataverse.get_columns("nosuchtable")


async def test_who_gives_up_takes_the_columns_from_nobody(hanging: Hanging) -> None:
    dataverse = reach(hanging, Seconds())
    first = asyncio.create_task(dataverse.get_columns("contact"))
    second = asyncio.create_task(dataverse.get_columns("contact"))
    await asyncio.sleep(0)
    first.cancel()
    assert "lastname" in await second


# --- which change failed -------------------------------------------------------------------------


def answered(status: int, *, content_id: str = "", code: str = "0x1") -> httpx.Response:
    """A refused change set, as https://github.com/MicrosoftDocs/powerapps-docs/issues/2843 has it."""
    body = (
        "--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n"
        f"Content-Type: application/http\r\n{content_id}\r\n"
        f'HTTP/1.1 {status} No\r\n\r\n{{"error": {{"code": "{code}"}}}}\r\n--c--\r\n--b--\r\n'
    )
    headers = {"content-type": "multipart/mixed; boundary=b"}
    return httpx.Response(status, content=body.encode(), headers=headers)


CHANGES = [
    Change(method="PATCH", entity_set=name, key=ROWS[0], columns={})
    for name in ("contacts", "accounts")
]


@pytest.mark.parametrize(
    ("content_id", "failed"),
    [("Content-ID: 2\r\n", 1), ("Content-ID: 1\r\n", 0), ("", None), ("Content-ID: 3\r\n", None)],
)
async def test_dataverse_says_which_change_of_a_change_set_it_refused(
    told: Told, dataverse: Dataverse, content_id: str, failed: int | None
) -> None:
    told.script = [answered(400, content_id=content_id)]
    result = await dataverse.apply_changes(CHANGES, "d")
    assert (result.status, result.failed) == (400, failed)


async def test_a_change_that_is_answered_500_is_named_with_table_and_code(
    told: Told, dataverse: Dataverse
) -> None:
    told.script = [answered(500, content_id="Content-ID: 2\r\n", code="0x80040224")]
    with pytest.raises(ChangeFailed, match="accounts: answered 500 0x80040224") as caught:
        await dataverse.apply_changes(CHANGES, "d")
    assert caught.value.position == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_a_change_set_that_is_put_off_is_not_refused(
    told: Told, dataverse: Dataverse, status: int
) -> None:
    told.script = [answered(status, content_id="Content-ID: 2\r\n")] * 10
    with pytest.raises(Unavailable) as caught:
        await dataverse.apply_changes(CHANGES, "d")
    assert not isinstance(caught.value, ChangeFailed)
