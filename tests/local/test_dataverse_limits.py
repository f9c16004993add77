"""The stand-in throttles as Dataverse does, on a clock that a test can simulate."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import httpx
import pytest

from local.dataverse.app import create_app
from local.dataverse.faults import Gate
from local.dataverse.limits import Limits, count_operations
from local.dataverse.simulated import SimulatedLoop
from local.dataverse.wire import Call

REQUESTS, TIME, CONCURRENT = "0x80072322", "0x80072321", "0x80072326"

Act = Callable[[httpx.AsyncClient], Awaitable[Any]]


def simulated(
    act: Act, takes: Callable[[Call], float] = lambda call: 0.0, limits: Limits | None = None
) -> Any:
    """What `act` brings back, its time simulated."""

    async def main() -> Any:
        app: Gate = create_app(
            limits=limits or Limits(),
            clock=asyncio.get_running_loop().time,
            execution_seconds=takes,
        )
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://dataverse/api/data/v9.2/"
        ) as client:
            found = await act(client)
        app.close()
        return found

    return run(main())


def run(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(main)


def code(answer: httpx.Response) -> str:
    assert answer.status_code == 429, answer.text
    return str(answer.json()["error"]["code"])


async def ask(client: httpx.AsyncClient) -> httpx.Response:
    return await client.get("WhoAmI")


def test_simulated_time_leaps_to_what_is_due_next_and_keeps_the_order() -> None:
    async def main() -> list[tuple[str, float]]:
        loop, seen = asyncio.get_running_loop(), []

        async def after(seconds: float, name: str) -> None:
            await asyncio.sleep(seconds)
            seen.append((name, loop.time()))

        await asyncio.gather(after(3600, "later"), after(60, "soon"))
        return seen

    assert run(main()) == [("soon", 60), ("later", 3600)]


def test_more_requests_than_the_window_holds_wait_until_the_first_have_left_it() -> None:
    async def act(client: httpx.AsyncClient) -> list[Any]:
        answers = []
        for _ in range(3):
            answers.append(await ask(client))
            await asyncio.sleep(10)
        refused = await ask(client)  # 30 s after the first
        await asyncio.sleep(int(refused.headers["Retry-After"]))
        return [*answers, refused, await ask(client)]

    *first, refused, again = simulated(act, limits=Limits(requests=3))
    assert [answer.status_code for answer in first] == [200, 200, 200]
    assert code(refused) == REQUESTS
    assert "limit of 3 over time window of 300 seconds" in refused.json()["error"]["message"]
    # the refused request counts too: two have to leave, the second was sent at 10 s
    assert refused.headers["Retry-After"] == "280"
    assert again.status_code == 200


def test_who_does_not_wait_waits_longer() -> None:
    async def act(client: httpx.AsyncClient) -> list[int]:
        await ask(client)
        waits = []
        for _ in range(3):
            await asyncio.sleep(5)
            waits.append(int((await ask(client)).headers["Retry-After"]) + 5 * len(waits))
        return waits

    waits = simulated(act, limits=Limits(requests=1))
    assert waits == sorted(set(waits)), "told from one moment on, each wait ends later"


def test_more_requests_at_once_than_the_limit_are_refused_at_once() -> None:
    async def act(client: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(ask(client) for _ in range(60)))

    answers = simulated(act, takes=lambda call: 1.0)
    assert sorted(answer.status_code for answer in answers) == [200] * 52 + [429] * 8
    assert {code(answer) for answer in answers if answer.status_code == 429} == {CONCURRENT}


def test_more_execution_time_than_the_limit_is_refused_until_enough_of_it_has_left() -> None:
    async def act(client: httpx.AsyncClient) -> list[httpx.Response]:
        answers = list(await asyncio.gather(*(ask(client) for _ in range(10))))
        refused = await ask(client)
        await asyncio.sleep(int(refused.headers["Retry-After"]))
        return [*answers, refused, await ask(client)]

    *first, refused, again = simulated(act, takes=lambda call: 120.0)
    assert {answer.status_code for answer in first} == {200}
    assert (code(refused), refused.headers["Retry-After"]) == (TIME, "300")
    assert "1,200,000 milliseconds" in refused.json()["error"]["message"]
    assert again.status_code == 200


def test_every_answer_tells_what_is_left_and_how_many_requests_are_wanted_at_once() -> None:
    async def act(client: httpx.AsyncClient) -> httpx.Headers:
        await ask(client)
        return (await ask(client)).headers

    headers = simulated(act, takes=lambda call: 2.0, limits=Limits(dop=7))
    assert headers["x-ms-dop-hint"] == "7"
    assert headers["x-ms-ratelimit-burst-remaining-xrm-requests"] == "5998"
    assert headers["x-ms-ratelimit-time-remaining-xrm-requests"] == "1,196.00"


def test_what_was_throttled_is_counted_and_a_reset_forgets_it() -> None:
    async def act(client: httpx.AsyncClient) -> list[Any]:
        for _ in range(4):
            await ask(client)
        before = (await client.get("http://dataverse/control/stats")).json()
        await client.post("http://dataverse/control/reset")
        after = (await client.get("http://dataverse/control/stats")).json()
        return [before["throttled"], after["throttled"], (await ask(client)).status_code]

    assert simulated(act, limits=Limits(requests=3)) == [{REQUESTS: 1}, {}, 200]


def test_the_most_requests_that_ran_at_once_are_told() -> None:
    async def act(client: httpx.AsyncClient) -> int:
        await asyncio.gather(*(ask(client) for _ in range(7)))
        found = await client.get("http://dataverse/control/stats")
        return int(found.json()["mostAtOnce"])

    assert simulated(act, takes=lambda call: 1.0) == 7


def test_the_limits_are_off_unless_they_are_asked_for() -> None:
    async def main() -> int:
        app = create_app(execution_seconds=lambda call: 1.0)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://dataverse/api/data/v9.2/"
        ) as client:
            answers = await asyncio.gather(*(ask(client) for _ in range(60)))
        app.close()
        return sum(answer.status_code == 200 for answer in answers)

    assert run(main()) == 60


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("contacts", b"{}", 1),
        ("$batch", b"GET a HTTP/1.1\r\n\r\nPATCH b HTTP/1.1\r\n", 2),
        ("contacts/Microsoft.Dynamics.CRM.UpsertMultiple", b'"@odata.type" "@odata.type"', 2),
    ],
)
def test_the_work_of_a_request_is_counted_in_its_operations(
    path: str, body: bytes, expected: int
) -> None:
    call = Call(
        method="POST",
        path=path,
        query="",
        headers={},
        body=body,
        root="http://dataverse/api/data/v9.2",
    )
    assert count_operations(call) == expected
