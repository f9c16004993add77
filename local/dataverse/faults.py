"""Inject faults into the next N calls: throttling, errors, delays and lost connections.

`late`: the client's connection ends at once, and the call is executed `delayMs` later, or with
`held` when a test says so. `hang`: the call is not executed, and not answered for two minutes.
`customizing`: definitions cannot be changed, since another customization is running."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET
from struct import pack
from typing import Any

import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from local.dataverse import limits
from local.dataverse.late import (
    LIMIT_SECONDS,
    TIMEOUT,
    LateCalls,
    discard,
    hang,
    read_body,
    replay_body,
)
from local.dataverse.wire import Refusal, Reply

KINDS = frozenset(
    {
        *("status", "slow", "reset", "lost-reply", "throttle", "broken"),
        *("late", "hang", "customizing"),
    }
)

# SolutionConcurrencyFailure: one customization at a time. Clients have met it with the status 429,
# some with 503, so it is to be recognized by its code.
# https://learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes
# Its text: Microsoft support, "Concurrent solution operation failures".
CUSTOMIZING = Refusal(
    429,
    "0x80071151",
    "Microsoft.Crm.ObjectModel.CustomizationLockException: Cannot start the requested operation "
    "[EntityCustomization] because there is another [Publish] running at this moment.",
)
_CUSTOMIZED = ("EntityDefinitions", "RelationshipDefinitions", "Publish")


@dataclass(slots=True, kw_only=True)
class Fault:
    kind: str
    remaining: int = 1
    status: int = 503
    code: str = "0x80040216"
    retry_after: int | None = None
    delay_ms: int = 100
    method: str | None = None  # only calls of this method
    path: str | None = None  # only calls whose path contains this
    body: str | None = None  # only calls whose body contains this
    held: bool = False  # a late call waits until it is told to go on

    def matches(self, scope: Scope, body: bytes) -> bool:
        fits = self.method is None or self.method == scope["method"]
        if self.kind == "customizing":
            changes = any(name in scope["path"] for name in _CUSTOMIZED)
            fits = fits and changes and scope["method"] != "GET"
        fits = fits and (self.body is None or self.body.encode() in body)
        return fits and (self.path is None or self.path in scope["path"])

    def build_reply(self) -> Reply:
        if self.kind == "customizing":
            return Refusal(self.status, CUSTOMIZING.code, CUSTOMIZING.message).build_reply()
        status = 429 if self.kind == "throttle" else self.status
        message = "An unexpected error occurred."
        if self.code in (limits.REQUESTS, limits.TIME, limits.CONCURRENT):
            message = limits.DEFAULT_LIMITS.format_message(self.code)
        refused = Refusal(status, self.code, message).build_reply()
        wait = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return Reply(status, refused.document, wait)


def parse_fault(document: dict[str, Any]) -> Fault:
    """Parse a fault from the control API's JSON. Raises ValueError that names the mistake."""
    kind = document.get("kind")
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(sorted(KINDS))}")
    if unknown := document.keys() - FIELDS.keys():
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    fault = Fault(**{FIELDS[name]: value for name, value in document.items()})
    if kind == "late" and not 0 <= fault.delay_ms <= LIMIT_SECONDS * 1000:
        raise ValueError("a late call is executed within two minutes: delayMs is 0 to 120000")
    if kind == "customizing":
        fault.status = document.get("status", CUSTOMIZING.status)
    if kind == "throttle":
        fault.code = document.get("code", limits.REQUESTS)
        fault.retry_after = document.get("retryAfter", 2)
    return fault


FIELDS = {
    "kind": "kind",
    "next": "remaining",
    "status": "status",
    "code": "code",
    "retryAfter": "retry_after",
    "delayMs": "delay_ms",
    "method": "method",
    "path": "path",
    "body": "body",
    "held": "held",
}


class Gate:
    """Wraps the app. Each call takes the first fault that matches it."""

    def __init__(
        self,
        app: ASGIApp,
        close: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._app = app
        self._sleep = sleep
        self.late = LateCalls(app=app, clock=clock, sleep=sleep)
        self.close = close  # closes the app's database
        self.faults: list[Fault] = []
        self.requests = 0
        self.injected = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/api/data/"):
            await self._app(scope, receive, send)
            return
        self.requests += 1
        body = b""
        if any(fault.body is not None for fault in self.faults):
            body = await read_body(receive)
            receive = replay_body(body, receive)
        fault = self._take_fault(scope, body)
        match fault.kind if fault else None:
            case "status" | "throttle" | "customizing" if fault:
                await _send(fault.build_reply(), send)
            case "reset":
                await break_connection(scope, receive)
            case "lost-reply":
                await self._app(scope, receive, discard)
                await break_connection(scope, receive)
            case "late" if fault:
                delay = None if fault.held else fault.delay_ms / 1000
                await self.late.take(scope, receive, delay)
                await break_connection(scope, receive)
            case "hang":
                if await hang(receive, self._sleep):
                    await _send(TIMEOUT.build_reply(), send)
            case "broken":
                await self._app(scope, receive, _halve_body(send))
            case "slow" if fault:
                await self._sleep(fault.delay_ms / 1000)
                await self._app(scope, receive, send)
            case _:
                await self._app(scope, receive, send)

    def _take_fault(self, scope: Scope, body: bytes) -> Fault | None:
        matching = (candidate for candidate in self.faults if candidate.matches(scope, body))
        fault = next(matching, None)
        if fault is not None:
            fault.remaining -= 1
            self.injected += 1
            self.faults = [candidate for candidate in self.faults if candidate.remaining > 0]
        return fault


async def _send(reply: Reply, send: Send) -> None:
    pairs = [(name.lower().encode(), text.encode()) for name, text in reply.build_headers().items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": pairs})
    await send({"type": "http.response.body", "body": json.dumps(reply.document).encode()})


def _halve_body(send: Send) -> Send:
    """Send only half of the JSON, with a matching length."""

    async def send_half(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [pair for pair in message["headers"] if pair[0] != b"content-length"]
            await send({**message, "headers": headers})
        else:
            body = message.get("body", b"")
            await send({**message, "body": body[: len(body) // 2]})

    return send_half


async def break_connection(scope: Scope, receive: Receive) -> None:
    """Drop the connection. Without a socket below, the in-process client gets its own error."""
    transport = scope.get("state", {}).get("transport")
    if transport is None:
        raise httpx.ReadError("connection lost")
    if not transport.is_closing():  # the caller may have given up before
        # Zero linger makes the close a reset, as when the peer dies.
        transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, pack("ii", 1, 0))
        transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass
