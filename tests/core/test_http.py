"""Everything that is said to an upstream goes through here: once, in time, and with a token."""

from __future__ import annotations

import asyncio
import gzip
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

import httpx
import pytest

from integration.core.errors import Misconfigured, Unavailable
from integration.core.http import BoundedClient, TokenCache, Upstream, build_limiter
from integration.core.model import Request
from integration.core.rate_limiter import build_full_limit
from tests.builders import MARKER
from tests.conftest import told_by

Answer = httpx.Response | Exception | Callable[[], Awaitable[httpx.Response]]

SEARCH = Request("GET", f"Patient?identifier={MARKER}")


@dataclass(frozen=True)
class Token:
    token: str
    expires_on: int


class Credential:
    """Hands out token-1, token-2, …, each for an hour; slow when it is told to be."""

    def __init__(self, clock: Seconds) -> None:
        self.clock = clock
        self.scopes: list[str] = []
        self.broken = False

    async def get_token(self, *scopes: str) -> Token:
        await asyncio.sleep(0)
        if self.broken:
            raise ValueError(f"no identity for {MARKER}")
        self.scopes += scopes
        return Token(f"token-{len(self.scopes)}", int(self.clock()) + 3600)


class Seconds:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Far:
    """The other end of the wire: answers in order, the last one for ever. Time passes in pauses."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.answers: list[Answer] = [httpx.Response(200, content=b"{}")]
        self.received: list[httpx.Request] = []
        self.pauses: list[float] = []

    async def hear(self, request: httpx.Request) -> httpx.Response:
        self.received.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else await answer()

    def clock(self) -> float:
        return self.now

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    @property
    def tokens(self) -> list[str | None]:
        return [request.headers.get("authorization") for request in self.received]


@pytest.fixture
def far() -> Far:
    return Far()


@pytest.fixture
def credential() -> Credential:
    return Credential(Seconds())


@pytest.fixture
async def near(far: Far) -> AsyncIterator[Upstream]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(far.hear)) as http:
        yield Upstream(
            "FHIR server",
            "https://fhir.example/base",
            http,
            build_limiter(3, far.clock, far.pause),
            pause=far.pause,
            jitter=lambda: 1.0,
        )


@pytest.fixture
async def trusted(far: Far, credential: Credential) -> AsyncIterator[Upstream]:
    tokens = TokenCache(credential, "https://fhir.example/.default", credential.clock)
    async with httpx.AsyncClient(transport=httpx.MockTransport(far.hear)) as http:
        room = build_limiter(32, far.clock, far.pause)
        yield Upstream(
            "FHIR server", "https://fhir.example", http, room, tokens=tokens, pause=far.pause
        )


async def unavailable(near: Upstream, request: Request = SEARCH) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        await near.send(request)
    return caught.value


# --- what is sent ------------------------------------------------------------------------------


async def test_a_request_goes_out_as_it_was_built(near: Upstream, far: Far) -> None:
    far.answers = [httpx.Response(201, content=b"said", headers={"ETag": 'W/"1"'})]
    response = await near.send(Request("PUT", "Patient/p1", b"bytes", {"if-match": 'W/"0"'}))
    (heard,) = far.received
    assert (heard.method, str(heard.url)) == ("PUT", "https://fhir.example/base/Patient/p1")
    assert heard.content == b"bytes"
    assert heard.headers["if-match"] == 'W/"0"'
    assert "authorization" not in heard.headers
    assert (response.status, response.body, response.headers["etag"]) == (201, b"said", 'W/"1"')


async def test_a_request_without_a_path_goes_to_the_base_address(near: Upstream, far: Far) -> None:
    await near.send(Request("POST", "", b"{}"))
    assert str(far.received[0].url) == "https://fhir.example/base"


@pytest.mark.parametrize("status", [200, 204, 301, 400, 404, 409, 412, 422, 500, 502])
async def test_what_an_upstream_answers_is_for_the_caller_to_judge(
    near: Upstream, far: Far, status: int
) -> None:
    far.answers = [httpx.Response(status, headers={"location": "https://elsewhere.example/"})]
    assert (await near.send(SEARCH)).status == status
    assert len(far.received) == 1


async def test_redirects_are_not_followed(trusted: Upstream, far: Far) -> None:
    """A token must not go where an upstream points."""
    far.answers = [httpx.Response(307, headers={"location": "https://elsewhere.example/"})]
    await trusted.send(SEARCH)
    assert {request.url.host for request in far.received} == {"fhir.example"}


# --- throttling --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
async def test_a_short_wait_is_waited_out(near: Upstream, far: Far, status: int) -> None:
    far.answers = [httpx.Response(status, headers={"retry-after": "7"}), httpx.Response(200)]
    assert (await near.send(SEARCH)).status == 200
    assert far.pauses == [7]


async def test_a_long_wait_goes_back_to_the_queue_at_once(near: Upstream, far: Far) -> None:
    far.answers = [httpx.Response(429, headers={"retry-after": "120"})]
    error = await unavailable(near)
    assert (error.why, error.retry_after) == ("answered 429", 120)
    assert far.pauses == []
    assert len(far.received) == 1


async def test_the_finer_header_wins(near: Upstream, far: Far) -> None:
    headers = {"retry-after": "120", "x-ms-retry-after-ms": "2500"}
    far.answers = [httpx.Response(429, headers=headers), httpx.Response(200)]
    await near.send(SEARCH)
    assert far.pauses == [2.5]


async def test_a_wait_of_nothing_is_no_wait_that_was_named(near: Upstream, far: Far) -> None:
    far.answers = [httpx.Response(429, headers={"retry-after": "0"}), httpx.Response(200)]
    await near.send(SEARCH)
    assert far.pauses == [1]


async def test_pauses_are_jittered_so_that_workers_do_not_come_back_together(
    near: Upstream, far: Far
) -> None:
    far.answers = [httpx.Response(503), httpx.Response(200)]
    await replace(near, jitter=lambda: 0.25).send(SEARCH)
    assert far.pauses == [0.25]


@pytest.mark.parametrize("header", ["Wed, 21 Oct 2026 07:28:00 GMT", "-1", "soon", "²"])
async def test_a_wait_that_is_no_number_is_replaced_by_a_growing_one(
    near: Upstream, far: Far, header: str
) -> None:
    busy = httpx.Response(503, headers={"retry-after": header.encode()})
    far.answers = [busy, busy, httpx.Response(200)]
    await near.send(SEARCH)
    first, second = far.pauses
    assert 0 < first < second <= 10


async def test_throttling_that_lasts_is_told_with_the_last_wish(near: Upstream, far: Far) -> None:
    far.answers = [httpx.Response(503, headers={"retry-after": "3"})]
    assert (await unavailable(near)).retry_after == 3
    assert 1 < len(far.received) < 10
    assert len(far.pauses) == len(far.received) - 1


# --- lost connections --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.ReadTimeout,
        httpx.WriteTimeout,
        httpx.PoolTimeout,
        httpx.ReadError,
        httpx.WriteError,
        httpx.CloseError,
        httpx.RemoteProtocolError,
        httpx.LocalProtocolError,
        httpx.ProxyError,
        httpx.UnsupportedProtocol,
        httpx.DecodingError,
        httpx.TooManyRedirects,
    ],
)
async def test_a_failed_connection_is_unavailable_and_told_without_the_address(
    near: Upstream, far: Far, kind: type[httpx.HTTPError]
) -> None:
    request = httpx.Request("GET", f"https://fhir.example/base/{SEARCH.path}")
    far.answers = [kind(f"failed: {request.url}", request=request)]
    error = await unavailable(near)
    assert error.retry_after is None
    shown = "".join(traceback.format_exception(error))
    assert MARKER not in shown
    assert "fhir.example" not in str(error)
    assert "Patient?" not in str(error)


@pytest.mark.parametrize("kind", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout])
async def test_a_connection_that_was_never_made_is_tried_again(
    near: Upstream, far: Far, kind: type[httpx.HTTPError]
) -> None:
    far.answers = [kind("refused"), kind("refused"), httpx.Response(200)]
    assert (await near.send(Request("POST", "", b"{}"))).status == 200
    first, second = far.pauses
    assert 0 < first < second <= 10


async def test_tries_are_counted_over_all_kinds_of_trouble(near: Upstream, far: Far) -> None:
    far.answers = [
        httpx.ConnectError("refused"),
        httpx.Response(503, headers={"retry-after": "1"}),
        httpx.ConnectError("refused"),
        httpx.Response(200),
    ]
    await unavailable(near)
    assert len(far.received) == 3


@pytest.mark.parametrize(
    "kind",
    [
        httpx.ReadTimeout,
        httpx.WriteTimeout,
        httpx.ReadError,
        httpx.WriteError,
        httpx.CloseError,
        httpx.RemoteProtocolError,
    ],
)
async def test_what_may_have_arrived_is_not_sent_twice(
    near: Upstream, far: Far, kind: type[httpx.HTTPError]
) -> None:
    far.answers = [kind("lost"), httpx.Response(200)]
    await unavailable(near, Request("POST", "", b"{}"))
    assert (len(far.received), far.pauses) == (1, [])


async def test_a_lost_reply_is_not_followed_by_a_second_request(near: Upstream, far: Far) -> None:
    """The upstream may have done as asked: only the caller knows how to find out."""
    far.answers = [httpx.ReadError("lost"), httpx.Response(200)]
    await unavailable(near, Request("POST", "", b"{}"))
    assert len(far.received) == 1


async def test_no_log_record_holds_an_address(
    near: Upstream, far: Far, caplog: pytest.LogCaptureFixture
) -> None:
    """httpx tells every address, unless it is told not to."""
    caplog.set_level(logging.DEBUG)
    await near.send(SEARCH)
    assert MARKER not in told_by(caplog.records)


# --- tokens ------------------------------------------------------------------------------------


async def test_a_token_is_used_again_until_shortly_before_its_end(
    trusted: Upstream, far: Far, credential: Credential
) -> None:
    await trusted.send(SEARCH)
    credential.clock.now += 3600 - 301
    await trusted.send(SEARCH)
    credential.clock.now += 2
    await trusted.send(SEARCH)
    assert far.tokens == ["Bearer token-1", "Bearer token-1", "Bearer token-2"]
    assert set(credential.scopes) == {"https://fhir.example/.default"}


async def test_many_requests_at_once_ask_for_one_token(
    trusted: Upstream, credential: Credential
) -> None:
    await asyncio.gather(*(trusted.send(SEARCH) for _ in range(10)))
    assert len(credential.scopes) == 1


async def test_a_refused_token_is_replaced_once(trusted: Upstream, far: Far) -> None:
    far.answers = [httpx.Response(401), httpx.Response(200)]
    assert (await trusted.send(SEARCH)).status == 200
    assert far.tokens == ["Bearer token-1", "Bearer token-2"]


async def test_a_second_refusal_is_for_an_operator(trusted: Upstream, far: Far) -> None:
    far.answers = [httpx.Response(401)]
    with pytest.raises(Misconfigured, match="FHIR server answered 401") as caught:
        await trusted.send(SEARCH)
    assert len(far.received) == 2
    assert MARKER not in str(caught.value)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_missing_role_is_for_an_operator_at_once(
    near: Upstream, far: Far, status: int
) -> None:
    far.answers = [httpx.Response(status)]
    with pytest.raises(Misconfigured, match=str(status)):
        await near.send(SEARCH)
    assert len(far.received) == 1


async def test_many_requests_refused_at_once_ask_for_one_fresh_token(
    trusted: Upstream, far: Far, credential: Credential
) -> None:
    """As when a token is revoked: a stampede on the identity endpoint would be throttled."""
    everybody_is_here = asyncio.Barrier(10)

    async def together() -> httpx.Response:
        if len(far.received) <= 10:
            await everybody_is_here.wait()
            return httpx.Response(401)
        return httpx.Response(200)

    far.answers = [together]
    await asyncio.gather(*(trusted.send(SEARCH) for _ in range(10)))
    assert len(credential.scopes) == 2


async def test_no_token_is_unavailable_and_told_without_details(
    trusted: Upstream, far: Far, credential: Credential
) -> None:
    credential.broken = True
    error = await unavailable(trusted)
    assert MARKER not in "".join(traceback.format_exception(error))
    assert far.received == []


async def test_no_fresh_token_after_a_refusal_is_unavailable_too(
    trusted: Upstream, far: Far, credential: Credential
) -> None:
    await trusted.send(SEARCH)

    async def refused_after_an_hour() -> httpx.Response:
        credential.clock.now += 3600
        credential.broken = True
        return httpx.Response(401)

    far.answers = [refused_after_an_hour]
    error = await unavailable(trusted)
    assert MARKER not in "".join(traceback.format_exception(error))


# --- places ------------------------------------------------------------------------------------


async def test_no_more_requests_are_under_way_than_there_are_places(
    near: Upstream, far: Far
) -> None:
    under_way, limit = 0, 0

    async def slowly() -> httpx.Response:
        nonlocal under_way, limit
        under_way += 1
        limit = max(limit, under_way)
        for _ in range(5):
            await asyncio.sleep(0)
        under_way -= 1
        return httpx.Response(200)

    far.answers = [slowly]
    await asyncio.gather(*(near.send(SEARCH) for _ in range(12)))
    assert limit == 3


async def test_a_pause_takes_no_place(near: Upstream, far: Far) -> None:
    far.answers = [httpx.Response(429), httpx.Response(200)]
    taken = []

    async def pause(_: float) -> None:
        taken.append(near.limiter.under_way)

    await replace(near, pause=pause).send(SEARCH)
    assert taken == [0]


@pytest.mark.parametrize("kind", [httpx.ReadTimeout, httpx.ConnectError, httpx.ProxyError])
async def test_a_failed_request_gives_its_place_back(
    near: Upstream, far: Far, kind: type[httpx.HTTPError]
) -> None:
    far.answers = [kind("failed")]
    await unavailable(near)
    assert near.limiter.under_way == 0
    assert near.limiter.limit == build_full_limit(3)


@pytest.mark.parametrize("status", [429, 503])
async def test_an_upstream_that_throttles_many_requests_at_once_is_asked_half_as_much(
    near: Upstream, far: Far, status: int
) -> None:
    room = build_limiter(16, far.clock, far.pause)
    near = replace(near, limiter=room)
    everybody_is_here, limits = asyncio.Barrier(16), []

    async def together() -> httpx.Response:
        if len(far.received) <= 16:
            await everybody_is_here.wait()
            return httpx.Response(status)
        limits.append((room.under_way, room.limit.current))
        return httpx.Response(200)

    far.answers = [together]
    answers = await asyncio.gather(*(near.send(SEARCH) for _ in range(16)))
    assert {answer.status for answer in answers} == {200}
    assert limits[0][1] == 8
    assert all(under_way <= now for under_way, now in limits)


async def test_an_answer_that_is_the_upstream_s_own_trouble_changes_no_limit(
    near: Upstream, far: Far
) -> None:
    near.limiter.record_throttle(0, None)
    lowered = near.limiter.limit
    far.answers = [httpx.Response(500)]
    await near.send(SEARCH)
    assert near.limiter.limit == lowered


async def test_everybody_waits_as_long_as_the_upstream_asked_one_to(
    near: Upstream, far: Far
) -> None:
    near = replace(near, limiter=build_limiter(1, far.clock, far.pause))
    heard_at = []

    async def told() -> httpx.Response:
        heard_at.append(far.now)
        if len(heard_at) == 1:
            return httpx.Response(429, headers={"retry-after": "4"})
        return httpx.Response(200)

    far.answers = [told]
    await asyncio.gather(*(near.send(SEARCH) for _ in range(3)))
    assert heard_at == [1000, 1004, 1004, 1004]
    assert far.pauses == [4]


async def test_while_an_upstream_wants_a_long_rest_nothing_is_sent_to_it(
    near: Upstream, far: Far
) -> None:
    far.answers = [httpx.Response(429, headers={"retry-after": "120"}), httpx.Response(200)]
    await unavailable(near)
    far.now += 30
    error = await unavailable(near)
    assert error.retry_after == 90
    assert error.upstream == "FHIR server"
    assert MARKER not in "".join(traceback.format_exception(error))
    assert (len(far.received), far.pauses) == (1, [])
    far.now += 85
    assert (await near.send(SEARCH)).status == 200
    assert far.pauses == [5]


# --- answers that are bounded --------------------------------------------------------------------


class Pieces(httpx.AsyncByteStream):
    """A body in pieces, that knows how many were taken and whether it was put away."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces, self.taken, self.closed = pieces, 0, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            self.taken += 1
            yield piece

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize(("pieces", "taken"), [(1000, 3), (2, 2), (0, 0)])
async def test_an_answer_is_read_until_it_is_too_large_and_then_let_go(
    pieces: int, taken: int
) -> None:
    body = Pieces([b"x" * 100] * pieces)

    async def hear(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"x-a": "b", "content-length": "9"}, stream=body)

    async with BoundedClient(250, transport=httpx.MockTransport(hear)) as http:
        answer = await http.get("https://a.example/")
    assert (len(answer.content), body.taken, body.closed) == (100 * taken, taken, True)
    assert (answer.status_code, answer.headers["x-a"]) == (200, "b")


async def test_what_is_packed_is_bounded_as_it_unfolds() -> None:
    whole = gzip.compress(b"x" * 10_000_000)
    packed = Pieces([whole[n : n + 500] for n in range(0, len(whole), 500)])

    async def hear(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=packed)

    async with BoundedClient(250, transport=httpx.MockTransport(hear)) as http:
        await http.get("https://a.example/")
    assert packed.taken < len(packed.pieces)
