"""The control API for tests: faults, statistics, recent writes and the history of a row.

POST   /control/faults   {"kind": "status" | "slow" | "reset" | "lost-reply" | "broken"
                          | "throttle" | "late" | "hang" | "customizing",
                          "next": N, "status", "code", "retryAfter", "delayMs", "method", "path",
                          "body", "held"}
DELETE /control/faults   remove all faults
POST   /control/late     execute the calls that are held: {"executed": N, "cancelled": N}
POST   /control/keys     {"table", "name", "columns"}: an alternate key of the organization
DELETE /control/keys     ?table=contact&name=…, a key that this organization does not have
POST   /control/tracking {"table", "on"}: whether the organization tracks changes of a table
GET    /control/settings all settings; POST changes some: see settings.py
GET    /control/stats    calls, faults and throttled calls so far, late calls that are not
                         executed yet, and rows by table
GET    /control/writes   ?last=N, oldest first: which row was written, how and when
GET    /control/history  ?table=contact&id=…, every state of one row, oldest first
POST   /control/webhooks {"url", "table", "key"}: a step that tells this address of updates; GET
                         shows what became of its messages
GET    /control/events   calls of OnExternal… actions of virtual tables, oldest first
POST   /control/reset    remove rows, faults and counts; restore the initial definitions

Only `history` shows values of rows: it proves that no older state was ever written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local.dataverse import setup, shaping
from local.dataverse.faults import Gate, parse_fault
from local.dataverse.limits import Protection
from local.dataverse.webhooks import Webhook, Webhooks
from local.dataverse.world import World

Handler = Callable[[Request], Awaitable[Response]]
Handled = tuple[str, Handler, list[str]]  # path, handler, methods


def build_routes(
    world: World,
    protection: Protection,
    gate: Callable[[], Gate],
    reset_world: Callable[[], None],
    webhooks: Webhooks,
) -> list[Route]:
    async def change_faults(request: Request) -> Response:
        if request.method == "DELETE":
            gate().faults.clear()
            return Response(status_code=204)
        try:
            gate().faults.append(parse_fault(await request.json()))
        except (ValueError, TypeError, AttributeError) as error:
            return JSONResponse({"error": str(error)}, 400)
        return Response(status_code=204)

    async def show_stats(_request: Request) -> Response:
        counts = {"requests": gate().requests, "faults": gate().injected}
        throttled = {"throttled": protection.refused, "mostAtOnce": protection.max_running}
        rows = {
            name: n
            for name, n in world.store.count_by_table().items()
            if name not in setup.list_table_names()
        }
        late = {"late": gate().late.pending}
        return JSONResponse({**counts, **throttled, **late, "rows": rows})

    async def reset(_request: Request) -> Response:
        reset_world()
        world.log.clear()
        world.external_events.clear()
        protection.reset()
        gate().faults.clear()
        gate().late.clear()
        webhooks.registered.clear()
        world.settings.reset()
        gate().requests = gate().injected = 0
        return Response(status_code=204)

    async def list_writes(request: Request) -> Response:
        last = request.query_params.get("last", "100")
        if not last.isdecimal():
            return JSONResponse({"error": "last must be a number"}, 400)
        entries = list(world.log)
        return JSONResponse(entries[max(len(entries) - int(last), 0) :])

    async def list_events(_request: Request) -> Response:
        return JSONResponse(list(world.external_events))

    async def show_history(request: Request) -> Response:
        table = world.catalog.by_name.get(request.query_params.get("table", ""))
        if table is None:
            return JSONResponse({"error": "no such table"}, 404)
        row_id = request.query_params.get("id", "").lower()
        return JSONResponse(world.store.read_history(table, row_id))

    handlers: list[Handled] = [
        ("/control/faults", change_faults, ["POST", "DELETE"]),
        ("/control/stats", show_stats, ["GET"]),
        ("/control/reset", reset, ["POST"]),
        ("/control/writes", list_writes, ["GET"]),
        ("/control/events", list_events, ["GET"]),
        ("/control/history", show_history, ["GET"]),
    ]
    handlers += _list_behaviours(world, gate)
    handlers.append(("/control/webhooks", _build_webhooks_handler(webhooks), ["GET", "POST"]))
    return [Route(path, handler, methods=methods) for path, handler, methods in handlers]


def _build_webhooks_handler(webhooks: Webhooks) -> Handler:
    async def change_webhooks(request: Request) -> Response:
        try:
            if request.method == "POST":
                webhooks.registered.append(Webhook(**await request.json()))
        except (ValueError, TypeError) as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse({"outcomes": list(webhooks.outcomes)})

    return change_webhooks


def _list_behaviours(world: World, gate: Callable[[], Gate]) -> list[Handled]:
    """Return what changes how the organization and the platform behave."""

    async def execute_late(_request: Request) -> Response:
        return JSONResponse(await gate().late.execute_held())

    async def add_key(request: Request) -> Response:
        body = await request.json()
        table = world.catalog.by_name.get(body.get("table", ""))
        columns = body.get("columns") or []
        if table is None or not columns or set(columns) - table.columns.keys():
            return JSONResponse({"error": "no such table, or no such column"}, 400)
        data = shaping.add_key(world, table, str(body.get("name")), list(columns))
        world.store.define(table.name, data)
        key = world.catalog.define(data).keys[-1]
        return JSONResponse({"status": key.status})

    async def remove_key(request: Request) -> Response:
        table = world.catalog.by_name.get(request.query_params.get("table", ""))
        name = request.query_params.get("name", "")
        if table is None or name not in {key.name for key in table.keys}:
            return JSONResponse({"error": "no such table, or no such key"}, 404)
        data = shaping.remove_key(world, table, name)
        world.store.define(table.name, data)
        world.catalog.define(data)
        return Response(status_code=204)

    async def change_tracking(request: Request) -> Response:
        body = await request.json()
        table = world.catalog.by_name.get(body.get("table", ""))
        if table is None:
            return JSONResponse({"error": "no such table"}, 404)
        data = {**world.catalog.data[table.name], "changeTracking": bool(body.get("on"))}
        world.store.define(table.name, data)
        world.catalog.define(data)
        return Response(status_code=204)

    async def change_settings(request: Request) -> Response:
        try:
            if request.method == "POST":
                world.settings.change(await request.json())
        except (ValueError, AttributeError) as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse(world.settings.describe())

    return [
        ("/control/late", execute_late, ["POST"]),
        ("/control/keys", add_key, ["POST"]),
        ("/control/keys", remove_key, ["DELETE"]),
        ("/control/tracking", change_tracking, ["POST"]),
        ("/control/settings", change_settings, ["GET", "POST"]),
    ]
