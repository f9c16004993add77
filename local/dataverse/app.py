"""The ASGI app: parse HTTP requests, call the router, build HTTP responses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import takewhile
from uuid import uuid4

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from local.dataverse import batch, control, provider, refusals, router, setup, tables
from local.dataverse.faults import Gate
from local.dataverse.feeds import Feeds
from local.dataverse.limits import Limits, Protection
from local.dataverse.organization import Organization
from local.dataverse.rows import Store
from local.dataverse.tables import Additions
from local.dataverse.webhooks import Webhooks
from local.dataverse.wire import Call, Reply
from local.dataverse.world import World

VERSIONS = frozenset({"v9.1", "v9.2"})
METHODS = ["GET", "POST", "PATCH", "PUT", "DELETE"]


def create_app(
    database: str = ":memory:",
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    new_id: Callable[[], str] = lambda: str(uuid4()),
    *,
    additions: Additions | None = None,
    organization: Organization | None = None,
    limits: Limits | None = None,
    clock: Callable[[], float] = time.monotonic,
    execution_seconds: Callable[[Call], float] = lambda call: 0.0,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    feed: httpx.AsyncBaseTransport | None = None,
) -> Gate:
    """Create the app with its own store. `database` is a file, or `:memory:`.

    `additions` are the organization's custom columns. `limits` throttle by `clock`; each call
    sleeps for its `execution_seconds`. `feed` is the transport to the feeds of virtual tables, if
    not the network.
    """
    catalog = tables.load(additions)
    world = World(
        catalog=catalog,
        store=Store(database),
        now=now,
        new_id=new_id,
        organization=organization or Organization(),
    )
    initial_definitions = dict(catalog.data)
    setup.initialize(world)
    protection = Protection(limits, clock)
    feeds = Feeds(feed)
    webhooks = Webhooks()

    async def answer_data(request: Request) -> Response:
        refused = protection.admit()
        if refused is not None:
            return _build_response(refused, protection.build_headers())
        seconds = 0.0
        try:
            call = await _read_call(request)
            seconds = execution_seconds(call)
            if seconds:
                await sleep(seconds)
            version = request.path_params["version"]
            virtual = provider.find_virtual_table(world, call) if version in VERSIONS else None
            if virtual is not None:
                reply = await provider.answer(world, call, virtual, feeds)
            else:
                newest = world.log[-1] if world.log else None
                reply = _answer(world, version, call)
                # From its end: a full log drops an entry for each one that comes.
                added = [*takewhile(lambda entry: entry is not newest, reversed(world.log))]
                webhooks.tell(world, reversed(added))
        finally:
            protection.finish(seconds)
        return _build_response(reply, protection.build_headers())

    def reset_world() -> None:
        world.store.clear()
        setup.reset(world, initial_definitions)

    async def answer_unknown(request: Request, _error: Exception) -> Response:
        return _build_response(
            refusals.no_http_resource(str(request.url.replace(query=""))).build_reply()
        )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await feeds.aclose()
        world.store.close()

    inner = Starlette(
        routes=[
            *control.build_routes(world, protection, lambda: gate, reset_world, webhooks),
            Route("/api/data/{version}/{rest:path}", answer_data, methods=METHODS),
        ],
        exception_handlers={404: answer_unknown},
        lifespan=lifespan,
    )
    gate = Gate(inner, world.store.close, clock=clock, sleep=sleep)
    return gate


def _answer(world: World, version: str, call: Call) -> Reply:
    if version not in VERSIONS:
        return refusals.no_http_resource(f"{call.root}/{call.path}").build_reply()
    if call.resource == "$batch" and call.method == "POST":
        return batch.answer(world, call)
    return router.answer(world, call)


async def _read_call(request: Request) -> Call:
    """Read the call. Its path stays encoded until keys are parsed: they may hold a slash."""
    prefix = f"/api/data/{request.path_params['version']}"
    raw_path = request.scope.get("raw_path") or request.scope["path"].encode()
    return Call(
        method=request.method,
        path=raw_path.decode("ascii", "replace").partition("?")[0].removeprefix(prefix).lstrip("/"),
        query=request.scope["query_string"].decode("ascii", "replace"),
        headers={name.lower(): value for name, value in request.headers.items()},
        body=await request.body(),
        root=f"{request.url.scheme}://{request.url.netloc}{prefix}",
    )


def _build_response(reply: Reply, extra_headers: Mapping[str, str] | None = None) -> Response:
    headers = {
        **reply.build_headers(),
        "x-ms-service-request-id": str(uuid4()),
        **(extra_headers or {}),
    }
    return Response(reply.encode(), reply.status, headers)
