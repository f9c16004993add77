"""Inject faults into the next N calls: throttling, errors, delays and lost connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET
from struct import pack
from typing import Any

import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from local.dataverse import limits
from local.dataverse.wire import Refusal, Reply

KINDS = frozenset({"status", "slow", "reset", "lost-reply", "throttle", "broken"})


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

    def matches(self, scope: Scope) -> bool:
        fits = self.method is None or self.method == scope["method"]
        return fits and (self.path is None or self.path in scope["path"])

    def build_reply(self) -> Reply:
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
}


class Gate:
    """Wraps the app. Each call takes the first fault that matches it."""

    def __init__(self, app: ASGIApp, close: Callable[[], None]) -> None:
        self._app = app
        self.close = close  # closes the app's database
        self.faults: list[Fault] = []
        self.requests = 0
        self.injected = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/api/data/"):
            await self._app(scope, receive, send)
            return
        self.requests += 1
        fault = self._take_fault(scope)
        match fault.kind if fault else None:
            case "status" | "throttle" if fault:
                await _send(fault.build_reply(), send)
            case "reset":
                await break_connection(scope, receive)
            case "lost-reply":
                await self._app(scope, receive, _discard)
                await break_connection(scope, receive)
            case "broken":
                await self._app(scope, receive, _halve_body(send))
            case "slow" if fault:
                await asyncio.sleep(fault.delay_ms / 1000)
                await self._app(scope, receive, send)
            case _:
                await self._app(scope, receive, send)

    def _take_fault(self, scope: Scope) -> Fault | None:
        fault = next((candidate for candidate in self.faults if candidate.matches(scope)), None)
        if fault is not None:
            fault.remaining -= 1
            self.injected += 1
            self.faults = [candidate for candidate in self.faults if candidate.remaining > 0]
        return fault


async def _send(reply: Reply, send: Send) -> None:
    pairs = [(name.lower().encode(), text.encode()) for name, text in reply.build_headers().items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": pairs})
    await send({"type": "http.response.body", "body": json.dumps(reply.document).encode()})


async def _discard(_message: Message) -> None:
    """Drop a message of the response: the call was executed, but the reply is lost."""


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
    # Zero linger makes the close a reset, as when the peer dies.
    transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, pack("ii", 1, 0))
    transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass
