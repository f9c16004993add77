"""Run the host: one HTTP server, one listener per queue trigger, one task per timer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack

import uvicorn
from azure.storage.queue.aio import QueueServiceClient

from local.host import http, leases, queues, storage, timers
from local.host.functions import Function
from local.host.settings import CannotStart, HostOptions, resolve_setting
from local.host.worker import Worker

log = logging.getLogger("local.host")

DRAIN_SECONDS = 30.0
ADDRESS = "127.0.0.1"


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the host."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run(functions: Sequence[Function], options: HostOptions, port: int) -> bool:
    """Serve until SIGTERM or SIGINT, then drain. Return whether every thread has ended.

    Raises CannotStart if a trigger or the port cannot be used.
    """
    worker = Worker(options)
    stopping = asyncio.Event()
    routes = http.read_routes(functions, options.route_prefix)
    for function in functions:
        if function.kind == "timerTrigger":
            timers.read_schedule(function)
    async with AsyncExitStack() as stack:
        triggers = await _open_triggers(functions, options, worker, stack)
        server = _build_server(http.build_app(routes, worker, options))
        listening = stack.enter_context(_listen(port))
        _print_functions(functions, routes, triggers, port)
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[listening]))
            for trigger in triggers:
                group.create_task(queues.listen(trigger, stopping, DRAIN_SECONDS))
            for function in functions:
                if function.kind == "timerTrigger":
                    group.create_task(
                        timers.run_on_schedule(function, worker, stopping, DRAIN_SECONDS)
                    )
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stopping.set)
            print(f"ready: http://{ADDRESS}:{port}", flush=True)
            await stopping.wait()
            log.info("host.stopping")
            server.should_exit = True
    log.info("host.stopped")
    return worker.close()


async def _open_triggers(
    functions: Sequence[Function], options: HostOptions, worker: Worker, stack: AsyncExitStack
) -> list[leases.Trigger]:
    services: dict[str, QueueServiceClient] = {}
    triggers = []
    for function in functions:
        if function.kind != "queueTrigger":
            continue
        connection = _resolve_setting(function.trigger, "connection") or "AzureWebJobsStorage"
        if connection not in services:
            service = storage.open_service(connection, os.environ)
            services[connection] = await stack.enter_async_context(service)
        name = _resolve_setting(function.trigger, "queueName").lower()
        queue, poison = storage.open_queues(services[connection], name)
        triggers.append(
            leases.Trigger(
                function=function, queue=queue, poison=poison, options=options.queues, worker=worker
            )
        )
    return triggers


def _resolve_setting(trigger: Mapping[str, object], name: str) -> str:
    return resolve_setting(str(trigger.get(name) or ""), os.environ)


def _build_server(app: http.App) -> Server:
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=int(DRAIN_SECONDS),
    )
    return Server(config)


def _listen(port: int) -> socket.socket:
    # asyncio disables Nagle's algorithm only if the protocol is named; else replies take 40 ms.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((ADDRESS, port))
        listening.listen(2048)  # from here on, callers wait instead of being refused
    except OSError as error:
        listening.close()
        raise CannotStart(f"port {port} is taken: set HOST_PORT or --port") from error
    return listening


def _print_functions(
    functions: Sequence[Function],
    routes: Sequence[http.Route],
    triggers: Sequence[leases.Trigger],
    port: int,
) -> None:
    for route in routes:
        methods = ",".join(sorted(route.methods - {"HEAD"})) or "ALL"
        print(f"  {route.function.name}: [{methods}] http://{ADDRESS}:{port}/{route.text}")
    for trigger in triggers:
        print(f"  {trigger.function.name}: queue {trigger.queue.queue_name}")
    for function in functions:
        if function.kind == "timerTrigger":
            print(f"  {function.name}: timer {function.trigger['schedule']}", flush=True)
