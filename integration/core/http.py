"""Send HTTP requests to upstreams: tokens, time limits, throttling, short retries, redaction."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Protocol

import httpx

from integration.core.activity_recorder import ActivityRecorder
from integration.core.errors import Misconfigured, ResponseTooLarge, Unavailable
from integration.core.model import Request, Response
from integration.core.rate_limiter import Limiter, LimiterClosed, build_full_limit

# httpx logs every address at INFO; a search query can hold an identifier of a patient.
logging.getLogger("httpx").setLevel(logging.WARNING)

# What an operator must do, by the status of the answer.
_REFUSED = {
    401: "it does not accept this app's credential: it has expired, or is of another tenant",
    403: "give this app's identity its role there",
}

# Seconds that one call waits, at most. Work that would have to wait longer is requeued.
_MAX_WAIT = 10.0
_MAX_ATTEMPTS = 3
_BASE_DELAY = 0.5

_THROTTLE_STATUSES = (429, 503)

# When one of these is raised, nothing has been sent yet.
_CONNECT_ERRORS = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

_BODY_HEADERS = ("content-encoding", "content-length", "transfer-encoding")

# Seconds before its end that a token is renewed, so that it does not expire on its way.
_RENEW_BEFORE = 300.0


class AccessToken(Protocol):
    """A token of azure.identity; `expires_on` in seconds since 1970."""

    @property
    def token(self) -> str: ...
    @property
    def expires_on(self) -> int: ...


class Credential(Protocol):
    """The part of a credential of azure.identity.aio that is used here."""

    async def get_token(self, *scopes: str) -> AccessToken: ...


class TokenCache:
    """Caches the token for one scope until shortly before it expires."""

    def __init__(
        self, credential: Credential, scope: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._credential, self._scope, self._clock = credential, scope, clock
        self._token: AccessToken | None = None
        self._lock = asyncio.Lock()

    async def get(self, refused: str | None = None) -> str:
        """Return a token other than `refused`, which an upstream has just answered with 401."""
        async with self._lock:
            token = self._token
            if (
                token is None
                or token.token == refused
                or token.expires_on - self._clock() < _RENEW_BEFORE
            ):
                token = self._token = await self._credential.get_token(self._scope)
            return token.token


class BoundedClient(httpx.AsyncClient):
    """Reads a response up to the first byte that exceeds `max_bytes`, and drops the rest."""

    def __init__(self, max_bytes: int, **options: Any) -> None:
        super().__init__(**options)
        self._max_bytes = max_bytes

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        response = await super().send(request, **{**options, "stream": True})
        body = bytearray()
        try:
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > self._max_bytes:
                    break
        finally:
            await response.aclose()
        # The headers of the body do not fit: it is decoded, and may be cut off.
        headers = [(n, v) for n, v in response.headers.multi_items() if n not in _BODY_HEADERS]
        return httpx.Response(
            response.status_code, headers=headers, content=bytes(body), request=request
        )


class _ConnectionFailed(Unavailable):
    """The upstream cannot have received the request."""


def build_limiter(
    maximum: int,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> Limiter:
    """Build a limiter for up to `maximum` concurrent requests of a worker to one upstream."""
    limit = build_full_limit(maximum)
    return Limiter(limit=limit, max_wait=_MAX_WAIT, clock=clock, pause=pause)


@dataclass(frozen=True, slots=True)
class Upstream:
    """A service that is reached over HTTP. `pause` and `jitter` are for retries."""

    name: str
    base: str
    http: httpx.AsyncClient
    limiter: Limiter
    _: KW_ONLY
    tokens: TokenCache | None = None
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep
    jitter: Callable[[], float] = field(
        default=random.random  # noqa: S311 -- spreads retries, no secret
    )
    activities: ActivityRecorder = field(default_factory=ActivityRecorder)

    async def send(
        self, request: Request, before_send: Callable[[], object] = lambda: None
    ) -> Response:
        """Send a request; send it again only where the upstream cannot have done anything.

        `before_send` is called when there is a free slot, which may take long: it raises where the
        request must not be sent any more. Returns every response but those that raise Unavailable
        (429 and 503 that last; also a lost connection and a time-out), ResponseTooLarge (more than
        `request.max_bytes`) or Misconfigured (401, 403).
        """
        attempt = 1
        while True:
            try:
                response = await self._send_authorised(request, before_send)
            except _ConnectionFailed as error:
                failure: Unavailable = error
            else:
                if response.status not in _THROTTLE_STATUSES:
                    return response
                why = f"answered {response.status}"
                failure = Unavailable(self.name, why, response.retry_after, is_answer=True)
            if attempt == _MAX_ATTEMPTS or (failure.retry_after or 0) > _MAX_WAIT:
                raise failure
            # A pause that the upstream named closes the limiter: the next attempt waits there.
            if not failure.retry_after:
                await self.pause(self._compute_backoff(attempt))
            attempt += 1

    async def _send_authorised(
        self, request: Request, before_send: Callable[[], object]
    ) -> Response:
        token = await self._get_token(None)
        response = await self._send_with_token(request, token, before_send)
        if response.status == 401 and token is not None:
            response = await self._send_with_token(
                request, await self._get_token(token), before_send
            )
        if response.status in (401, 403):
            raise Misconfigured(
                f"{self.name} answered {response.status}: {_REFUSED[response.status]}"
            )
        return response

    async def _send_with_token(
        self, request: Request, token: str | None, before_send: Callable[[], object]
    ) -> Response:
        headers = dict(request.headers)
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        try:
            async with self.limiter.acquire_slot() as round_:
                before_send()
                response = await self._exchange(request, headers)
                self._inform_limiter(response, round_)
        except LimiterClosed as closed:
            raise Unavailable(
                self.name, "asked for a pause", closed.remaining, is_answer=True
            ) from None
        return response

    async def _exchange(self, request: Request, headers: dict[str, str]) -> Response:
        """Send one request, and record it in the activity log whether it succeeds or not."""
        url = f"{self.base}/{request.path}" if request.path else self.base
        started = self.limiter.clock()
        status: int | str = "given up"
        try:
            response = await self._read_response(request, url, headers)
            status = response.status
        # `from None`: the texts of these errors may have the URL, and with it a query.
        except _CONNECT_ERRORS as error:
            status = "unreachable"
            raise _ConnectionFailed(
                self.name, f"connection failed ({type(error).__name__})"
            ) from None
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
                self.name, request.method, status, self.limiter.clock() - started
            )
        return response

    async def _read_response(self, request: Request, url: str, headers: dict[str, str]) -> Response:
        body = bytearray()
        async with self.http.stream(
            request.method, url, content=request.body, headers=headers
        ) as response:
            async for piece in response.aiter_bytes():
                body += piece
                if request.max_bytes is not None and len(body) > request.max_bytes:
                    raise ResponseTooLarge(
                        self.name, f"a response of more than {request.max_bytes:,} bytes"
                    )
        lowered = {name.lower(): value for name, value in response.headers.items()}
        return Response(response.status_code, lowered, bytes(body))

    def _inform_limiter(self, response: Response, round_: int) -> None:
        """Update the limit before the slot is released, so that it holds for the next request."""
        if response.status in _THROTTLE_STATUSES:
            self.limiter.record_throttle(round_, response.retry_after)
        elif response.status < 500:
            self.limiter.record_success(round_)

    async def _get_token(self, refused: str | None) -> str | None:
        if self.tokens is None:
            return None
        try:
            return await self.tokens.get(refused)
        except Exception as error:
            # azure.identity has one error class for "no identity here" and for an outage.
            raise Unavailable(self.name, f"no token ({type(error).__name__})") from None

    def _compute_backoff(self, attempt: int) -> float:
        # Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        return self.jitter() * min(_BASE_DELAY * float(2**attempt), _MAX_WAIT)
