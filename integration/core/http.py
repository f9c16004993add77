"""The one module that speaks HTTP: token, time limit, throttling, short retries, redaction."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from integration.core.activity import ActivityRecorder
from integration.core.errors import Misconfigured, ResponseTooLarge, Unavailable
from integration.core.model import Request, Response
from integration.core.rate_limiter import Limiter, LimiterClosed, build_full_limit

# httpx logs every address at INFO; a search query can hold an identifier of a patient.
logging.getLogger("httpx").setLevel(logging.WARNING)

# What is worth waiting for inside one call; longer trouble goes back to the queue.
_PATIENCE = 10.0
_TRIES = 3
_PAUSE = 0.5

_THROTTLED = (429, 503)

# Nothing has been sent yet when one of these is raised.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

_OF_THE_BODY = ("content-encoding", "content-length", "transfer-encoding")

# A token is renewed this long before it ends, so that none ends on its way.
_RENEW = 300.0


class AccessToken(Protocol):
    """What azure.identity hands out; `expires_on` in seconds since 1970."""

    @property
    def token(self) -> str: ...
    @property
    def expires_on(self) -> int: ...


class Credential(Protocol):
    """The part of azure.identity.aio that is needed here."""

    async def get_token(self, *scopes: str) -> AccessToken: ...


class TokenCache:
    """A token for one scope, reused until shortly before it ends, asked for once at a time."""

    def __init__(
        self, credential: Credential, scope: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._credential, self._scope, self._clock = credential, scope, clock
        self._held: AccessToken | None = None
        self._lock = asyncio.Lock()

    async def get(self, refused: str | None = None) -> str:
        """A token that is not `refused`, the one a neighbour has just answered 401 to."""
        async with self._lock:
            held = self._held
            if held is None or held.token == refused or held.expires_on - self._clock() < _RENEW:
                held = self._held = await self._credential.get_token(self._scope)
            return held.token


class BoundedClient(httpx.AsyncClient):
    """Reads no more of an answer than shows that it has more than `most` bytes."""

    def __init__(self, most: int, **options: Any) -> None:
        super().__init__(**options)
        self._most = most

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        answer = await super().send(request, **{**options, "stream": True})
        body = bytearray()
        try:
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > self._most:
                    break
        finally:
            await answer.aclose()
        # The body is decoded, and may be cut off.
        headers = [(n, v) for n, v in answer.headers.multi_items() if n not in _OF_THE_BODY]
        return httpx.Response(
            answer.status_code, headers=headers, content=bytes(body), request=request
        )


class _NotReached(Unavailable):
    """The neighbour has certainly seen nothing of the request."""


def build_limiter(
    most: int,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> Limiter:
    """Room for up to `most` requests under way to one neighbour, shared by a worker."""
    return Limiter(build_full_limit(most), _PATIENCE, clock, pause)


@dataclass(frozen=True, slots=True)
class Upstream:
    """One service reached over HTTP. `send` gives an answer or raises; it never guesses."""

    name: str
    base: str
    http: httpx.AsyncClient
    limiter: Limiter
    tokens: TokenCache | None = None
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep
    jitter: Callable[[], float] = field(default=random.random)
    activities: ActivityRecorder = field(default_factory=ActivityRecorder)

    async def send(
        self, request: Request, before_send: Callable[[], object] = lambda: None
    ) -> Response:
        """Send once; again only where the neighbour has certainly done nothing.

        Raises Unavailable for a lost connection, a time-out, 429 and 503 that last, TooLong for
        more than `request.most` bytes, and Misconfigured for 401 and 403. Every other answer is
        the caller's to judge. `still` is asked when a place is free, which may be long after: it
        raises when it is too late.
        """
        attempt = 1
        while True:
            try:
                response = await self._once(request, before_send)
            except _NotReached as error:
                trouble: Unavailable = error
            else:
                if response.status not in _THROTTLED:
                    return response
                why = f"answered {response.status}"
                trouble = Unavailable(self.name, why, response.retry_after)
            if attempt == _TRIES or (trouble.retry_after or 0) > _PATIENCE:
                raise trouble
            # A wait that the neighbour named closes its places: the next try waits there.
            if not trouble.retry_after:
                await self.pause(self._backoff(attempt))
            attempt += 1

    async def _once(self, request: Request, before_send: Callable[[], object]) -> Response:
        token = await self._token(None)
        response = await self._authorised(request, token, before_send)
        if response.status == 401 and token is not None:
            response = await self._authorised(request, await self._token(token), before_send)
        if response.status in (401, 403):
            raise Misconfigured(
                f"{self.name} answered {response.status}: give this app's identity its role there"
            )
        return response

    async def _authorised(
        self, request: Request, token: str | None, before_send: Callable[[], object]
    ) -> Response:
        headers = dict(request.headers)
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        try:
            async with self.limiter.acquire_slot() as round_:
                before_send()
                response = await self._exchanged(request, headers)
                self._learn(response, round_)
        except LimiterClosed as closed:
            raise Unavailable(self.name, "asked for a pause", closed.remaining) from None
        return response

    async def _exchanged(self, request: Request, headers: dict[str, str]) -> Response:
        """One request over the wire, and its entry in the activity log, whatever comes of it."""
        url = f"{self.base}/{request.path}" if request.path else self.base
        began = self.limiter.clock()
        status: int | str = "given up"
        try:
            answer = await self._answered(request, url, headers)
            status = answer.status
        # `from None`: the text of these may hold the address, and with it a query.
        except _NOT_SENT as error:
            status = "unreachable"
            raise _NotReached(self.name, f"connection failed ({type(error).__name__})") from None
        except httpx.TimeoutException:
            status = "not in time"
            raise Unavailable(
                self.name, "did not answer in time", is_outcome_unknown=True
            ) from None
        except httpx.HTTPError as error:
            status = "broken off"
            why = f"connection failed ({type(error).__name__})"
            raise Unavailable(self.name, why, is_outcome_unknown=True) from None
        finally:
            self.activities.record_call(
                self.name, request.method, status, self.limiter.clock() - began
            )
        return answer

    async def _answered(self, request: Request, url: str, headers: dict[str, str]) -> Response:
        body = bytearray()
        async with self.http.stream(
            request.method, url, content=request.body, headers=headers
        ) as answer:
            async for piece in answer.aiter_bytes():
                body += piece
                if request.max_bytes is not None and len(body) > request.max_bytes:
                    raise ResponseTooLarge(
                        self.name, f"an answer of more than {request.max_bytes:,} bytes"
                    )
        told = {name.lower(): value for name, value in answer.headers.items()}
        return Response(answer.status_code, told, bytes(body))

    def _learn(self, response: Response, round_: int) -> None:
        """Before its place is free, so that the next request starts under what was learnt."""
        if response.status in _THROTTLED:
            self.limiter.record_throttle(round_, response.retry_after)
        elif response.status < 500:
            self.limiter.record_success(round_)

    async def _token(self, refused: str | None) -> str | None:
        if self.tokens is None:
            return None
        try:
            return await self.tokens.get(refused)
        except Exception as error:
            # azure.identity has one error class for "no identity here" and for an outage.
            raise Unavailable(self.name, f"no token ({type(error).__name__})") from None

    def _backoff(self, attempt: int) -> float:
        """Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/"""
        return self.jitter() * min(_PAUSE * float(2**attempt), _PATIENCE)
