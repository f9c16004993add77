"""The ASGI app: HTTP in, calls to the router, HTTP out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import uuid4

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from local.dataverse import batch, control, refusals, router, tables
from local.dataverse.faults import Gate
from local.dataverse.rows import Store
from local.dataverse.wire import Call, Reply
from local.dataverse.writes import World

VERSIONS = frozenset({"v9.1", "v9.2"})
METHODS = ["GET", "POST", "PATCH", "PUT", "DELETE"]


def create_app(
    database: str = ":memory:",
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    new_id: Callable[[], str] = lambda: str(uuid4()),
) -> Gate:
    """The app, with its own store. `database` is a file, or `:memory:`."""
    world = World(tables.load(), Store(database), now, new_id)

    async def data(request: Request) -> Response:
        return await _data(world, request)

    async def unknown(request: Request, _error: Exception) -> Response:
        return _response(refusals.no_http_resource(str(request.url.replace(query=""))).reply())

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        world.store.close()

    inner = Starlette(
        routes=[
            *control.routes(world, lambda: gate),
            Route("/api/data/{version}/{rest:path}", data, methods=METHODS),
        ],
        exception_handlers={404: unknown},
        lifespan=lifespan,
    )
    gate = Gate(inner, world.store.close)
    return gate


async def _data(world: World, request: Request) -> Response:
    call = await _call(request)
    version = request.path_params["version"]
    if version not in VERSIONS:
        return _response(refusals.no_http_resource(f"{call.root}/{call.path}").reply())
    if call.resource == "$batch" and call.method == "POST":
        return _response(batch.answer(world, call))
    return _response(router.answer(world, call))


async def _call(request: Request) -> Call:
    """The path stays encoded until its keys are read, or an encoded slash would split it."""
    prefix = f"/api/data/{request.path_params['version']}"
    whole = request.scope.get("raw_path") or request.scope["path"].encode()
    return Call(
        method=request.method,
        path=whole.decode("ascii", "replace").partition("?")[0].removeprefix(prefix).lstrip("/"),
        query=request.scope["query_string"].decode("ascii", "replace"),
        headers={name.lower(): value for name, value in request.headers.items()},
        body=await request.body(),
        root=f"{request.url.scheme}://{request.url.netloc}{prefix}",
    )


def _response(reply: Reply) -> Response:
    headers = {
        **reply.all_headers(),
        "x-ms-service-request-id": str(uuid4()),
        # How many parallel requests the service would like, and what is left of the 5-minute limit:
        # https://learn.microsoft.com/power-apps/developer/data-platform/send-parallel-requests
        "x-ms-dop-hint": "4",
        "x-ms-ratelimit-burst-remaining-xrm-requests": "5999",
    }
    return Response(reply.content(), reply.status, headers)
