"""HTTP triggers as an ASGI app: match a route, check the key, limit the body, run, reply."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from local.host import exchange, routes
from local.host.exchange import Reply
from local.host.functions import Function
from local.host.settings import CannotStart, HostOptions
from local.host.worker import Worker

log = logging.getLogger("local.host")

# Kestrel reads on for up to five seconds, so that a sender gets the 413 instead of a reset.
DRAIN_SECONDS = 5.0
PING = "/admin/host/ping"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    function: Function
    text: str
    template: routes.Template
    methods: frozenset[str]  # empty: all of them
    level: str

    def accepts(self, method: str) -> bool:
        return not self.methods or method in self.methods


class TooLarge(Exception):
    """The body is over the limit."""


class ClientDisconnected(Exception):
    """The client disconnected before it had sent the whole body."""


def read_routes(functions: Iterable[Function], prefix: str) -> list[Route]:
    """Return the routes in the order of the functions; the first that matches is used."""
    found = [_build_route(f, prefix) for f in functions if f.kind == "httpTrigger"]
    for first, second in combinations(found, 2):
        methods = not first.methods or not second.methods or first.methods & second.methods
        if methods and routes.can_hide(first.template, second.template):
            # https://github.com/Azure/azure-functions-host/issues/9876 -- the name decides
            extra = {"taken": first.function.name, "hidden": second.function.name}
            log.warning("routes.overlap", extra=extra)
    return found


def build_app(found: list[Route], worker: Worker, options: HostOptions) -> App:
    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        reply = await _answer(scope, receive, found, worker, options)
        for message in exchange.build_messages(reply, scope["method"]):
            await send(message)

    return app


async def _answer(
    scope: Mapping[str, Any],
    receive: Receive,
    found: list[Route],
    worker: Worker,
    options: HostOptions,
) -> Reply:
    path, method = scope["raw_path"].decode("ascii"), scope["method"]
    if path == PING:
        return Reply(200)
    matches = ((r, routes.match(r.template, path)) for r in found if r.accepts(method))
    found_route = next(((r, values) for r, values in matches if values is not None), None)
    if found_route is None:
        return Reply(404)
    route, values = found_route
    headers, query = exchange.read_headers(scope), exchange.read_query(scope)
    if not _is_allowed(route, headers.get("x-functions-key") or query.get("code"), options.keys):
        return Reply(401)
    try:
        body = await _read_body(receive, headers, options.body_limit)
    except TooLarge:
        return Reply(413, headers=((b"connection", b"close"),))
    except ClientDisconnected:
        log.warning("request.cut_off", extra={"function": route.function.name})
        return Reply(400)
    request = exchange.build_request(scope, values, body)
    result = await worker.run(route.function, request)
    if not result.succeeded:
        return Reply(500)
    try:
        return exchange.build_reply(result.value)
    except Exception:
        log.exception("function.reply_unreadable", extra={"function": route.function.name})
        return Reply(500)


def _build_route(function: Function, prefix: str) -> Route:
    trigger = function.trigger
    text = "/".join(part for part in (prefix, str(trigger["route"]).strip("/")) if part)
    methods = {getattr(m, "value", str(m)).upper() for m in trigger.get("methods") or ()}
    if "GET" in methods:  # azure-functions-host WebScriptHostHttpRoutesManager.cs
        methods.add("HEAD")
    level = trigger.get("authLevel") or "function"
    try:
        template = routes.parse(text)
    except ValueError as error:
        raise CannotStart(f"{function.name}: {error}") from error
    return Route(
        function=function,
        text=text,
        template=template,
        methods=frozenset(methods),
        level=getattr(level, "value", str(level)).lower(),
    )


def _is_allowed(route: Route, key: str | None, keys: Mapping[str, str]) -> bool:
    """https://learn.microsoft.com/azure/azure-functions/function-keys-how-to -- without keys,
    every caller is allowed, as by `func start`. `function/name` is a key of that function only."""
    if route.level == "anonymous" or not keys:
        return True
    function_prefix = f"{route.function.name}/"
    valid_keys = [
        value
        for name, value in keys.items()
        if name == "_master"
        or (route.level == "function" and ("/" not in name or function_prefix in name))
    ]
    given = (key or "").encode()
    return any([hmac.compare_digest(given, value.encode()) for value in valid_keys])


async def _read_body(receive: Receive, headers: Mapping[str, str], limit: int) -> bytes:
    length = headers.get("content-length", "")
    too_large = length.isdecimal() and int(length) > limit
    chunks: list[bytes] = []
    size, more = 0, True
    while more and not too_large:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        chunk, more = message.get("body", b""), message.get("more_body", False)
        chunks.append(chunk)
        size += len(chunk)
        too_large = size > limit
    if not too_large:
        return b"".join(chunks)
    chunks.clear()
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while more:
                more = (await receive()).get("more_body", False)
    except TimeoutError:
        log.debug("request.not_drained", extra={"seconds": DRAIN_SECONDS})
    raise TooLarge
