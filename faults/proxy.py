"""A proxy for storage that injects faults: 500, 503, or a connection lost before or after.

It also fails chosen work items on their way into the queue, and delivers work items to two workers
at once, as a queue may whose lease has run out.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import httpx
import uvicorn
from starlette.types import Receive, Scope, Send

from faults.injected import CONCERN_FAILED, DELIVERED_TWICE, QUEUE_FAILED, STORAGE_FAILED
from local.dataverse.__main__ import Breakable
from local.dataverse.faults import break_connection

ADDRESS = "127.0.0.1"
KINDS = ("500", "503", "reset", "lost-reply")

_RELAY_QUEUE = "/relay/messages"
_CONCERNS = "/attention"
_MESSAGE = b"<QueueMessage>"  # in the answer to a poll
_AT_ONCE = 1.0  # seconds between two workers that get the same work item

# Hop-by-hop headers, and those that the server sets itself.
_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"date", b"server"}


@dataclass(slots=True, kw_only=True)
class Proxy:
    """One server for each storage service. Each request takes the next of `faults`. Queue polls
    take none: nothing waits for them.

    Each work item for the relay takes the next of `queue_faults` on its way into the queue; None
    lets it pass. `doubles`: how many work items are still to be delivered twice. Each write of the
    list of what needs attention takes the next of `concern_faults`, likewise.
    """

    upstream: tuple[int, ...]
    ports: tuple[int, ...] = ()
    faults: deque[str] = field(default_factory=deque)
    queue_faults: deque[str | None] = field(default_factory=deque)
    concern_faults: deque[str | None] = field(default_factory=deque)
    doubles: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    _delivered: dict[str, _Delivered] = field(default_factory=dict)  # once, by path

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, upstream: tuple[int, ...]) -> AsyncIterator[Proxy]:
        proxy = cls(upstream=upstream)
        limits = httpx.Limits(
            max_connections=200, max_keepalive_connections=100, keepalive_expiry=2
        )
        async with httpx.AsyncClient(timeout=60, limits=limits, trust_env=False) as http:
            servers, tasks = [], []
            for port in upstream:
                server = _build_server(_App(proxy, http, f"http://{ADDRESS}:{port}"))
                listener = socket.create_server((ADDRESS, 0))
                proxy.ports += (listener.getsockname()[1],)
                servers.append(server)
                tasks.append(asyncio.create_task(server.serve(sockets=[listener])))
            try:
                yield proxy
            finally:
                for server in servers:
                    server.should_exit = True
                await asyncio.gather(*tasks)

    def take_fault(self, scope: Scope) -> str | None:
        if _is_poll(scope):
            return None
        if self.queue_faults and scope["method"] == "POST" and scope["path"].endswith(_RELAY_QUEUE):
            fault = self.queue_faults.popleft()
            self.injected[QUEUE_FAILED] += fault is not None
            return fault
        if self.concern_faults and scope["method"] != "GET" and _CONCERNS in scope["path"]:
            fault = self.concern_faults.popleft()
            self.injected[CONCERN_FAILED] += fault is not None
            return fault
        if not self.faults:
            return None
        self.injected[STORAGE_FAILED] += 1
        return self.faults.popleft()

    def take_delivered(self, scope: Scope) -> httpx.Response | None:
        """Return the work items that another worker has just got, if they are to come twice."""
        delivered = self._delivered.pop(scope["path"], None) if _is_poll(scope) else None
        if delivered is None or time.monotonic() - delivered.at > _AT_ONCE:
            return None
        number = delivered.answer.content.count(_MESSAGE)
        self.doubles -= number
        self.injected[DELIVERED_TWICE] += number
        return delivered.answer

    def keep_delivered(self, scope: Scope, answer: httpx.Response) -> None:
        """Keep the work items of a poll for the next one, if they are to come twice."""
        if self.doubles > 0 and _is_poll(scope) and _MESSAGE in answer.content:
            self._delivered[scope["path"]] = _Delivered(answer, time.monotonic())


@dataclass(frozen=True, slots=True)
class _Delivered:
    """The answer to a poll, with work items in it, and time.monotonic() of then."""

    answer: httpx.Response
    at: float


def _is_poll(scope: Scope) -> bool:
    return scope["method"] == "GET" and str(scope["path"]).endswith("/messages")


@dataclass(slots=True)
class _App:
    proxy: Proxy
    http: httpx.AsyncClient
    base: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = await self._read_request(scope, receive)
        fault = self.proxy.take_fault(scope)
        if fault in ("500", "503"):
            await _send_response(send, int(fault), [], b"")
            return
        if fault == "reset":
            await break_connection(scope, receive)
            return
        if delivered := self.proxy.take_delivered(scope):
            await _send_answer(send, delivered, delivered.content)
            return
        try:
            async with contextlib.aclosing(await self.http.send(request, stream=True)) as answer:
                body = b"".join([part async for part in answer.aiter_raw()])
        except httpx.TransportError:  # storage closed an idle connection
            fault = "lost-reply"
        if fault == "lost-reply":
            await break_connection(scope, receive)
            return
        self.proxy.keep_delivered(
            scope, httpx.Response(answer.status_code, headers=answer.headers, content=body)
        )
        await _send_answer(send, answer, body)

    async def _read_request(self, scope: Scope, receive: Receive) -> httpx.Request:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        query = scope["query_string"].decode("ascii")
        url = f"{self.base}{scope['raw_path'].decode('ascii')}{'?' if query else ''}{query}"
        headers = [pair for pair in scope["headers"] if pair[0] not in _HOP]
        return httpx.Request(scope["method"], url, headers=headers, content=body)


async def _send_answer(send: Send, answer: httpx.Response, body: bytes) -> None:
    headers = [pair for pair in answer.headers.raw if pair[0].lower() not in _HOP]
    await _send_response(send, answer.status_code, headers, body)


async def _send_response(
    send: Send, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes
) -> None:
    lower_headers = [(name.lower(), value) for name, value in headers]
    if not any(name == b"content-length" for name, _ in lower_headers):
        lower_headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": lower_headers})
    await send({"type": "http.response.body", "body": body})


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


def _build_server(app: _App) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        http=Breakable,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=3,
        timeout_keep_alive=120,
    )
    return _Server(config)
