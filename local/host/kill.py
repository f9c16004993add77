"""Kill the host at the n-th request that it sends, like a lost machine: nothing cleans up.

HOST_KILL names a file. `before:17` in it kills the host before it sends its 17th request from then
on, `after:17` when that is answered. New content starts a new count. The request is recorded
beside the file, the file is emptied, and the next host starts at once. Queue reads do not count:
their number is random.
"""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIABLE = "HOST_KILL"
NOTE = ".killed"

_LAZY_MODULES = (
    "azure.data.tables.aio",
    "azure.storage.blob.aio",
    "azure.storage.queue.aio",
    "httpx",
)


def run_until_not_killed(env: Mapping[str, str], run: Callable[[], int]) -> int:
    """Run the host. With HOST_KILL set, run hosts until one ends without being killed.

    Each is a fork of a process that has only imported modules, so it starts fast and shares no
    state with the one before.
    """
    if not env.get(VARIABLE):
        return run()
    _import_lazy_modules()
    while True:
        host = os.fork()
        if host == 0:
            _watch_requests(RequestCounter(Path(env[VARIABLE])))
            return run()
        for number in (
            signal.SIGTERM,
            signal.SIGINT,
        ):  # sent to the whole group: the host ends first
            signal.signal(number, signal.SIG_IGN)
        _, status = os.waitpid(host, 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            return os.waitstatus_to_exitcode(status)


def _import_lazy_modules() -> None:
    """Import modules that an app imports only at its first call."""
    for name in _LAZY_MODULES:
        importlib.import_module(name)


@dataclass(slots=True)
class RequestCounter:
    """Counts requests, and kills the process at the one that the file names."""

    file: Path
    instruction: str = ""
    sent: int = 0

    def count_request(self) -> int:
        """Return the number of the request that is about to be sent."""
        instruction = self.file.read_text("utf-8") if self.file.exists() else ""
        if instruction != self.instruction:
            self.instruction, self.sent = instruction, 0
        self.sent += 1
        return self.sent

    def kill_if_reached(self, side: str, number: int, request: str) -> None:
        if self.instruction.split() and self.instruction.split()[0] == f"{side}:{number}":
            self.file.write_text("", "utf-8")
            self.file.with_suffix(NOTE).write_text(f"{side} {request}", "utf-8")
            kill_host()


def kill_host() -> None:
    """End this process at once. With HOST_KILL set, the next host starts."""
    os.kill(os.getpid(), signal.SIGKILL)


def _watch_requests(watch: RequestCounter) -> None:
    """Count every request that this process sends from now on."""
    import httpx
    from azure.core.pipeline.transport import AioHttpTransport

    _wrap_send(httpx.AsyncClient, watch)
    _wrap_send(AioHttpTransport, watch)


def _wrap_send(client: Any, watch: RequestCounter) -> None:
    """Wrap the client's `send(request)`, which httpx and the storage SDK both have."""
    send = client.send

    async def send_watched(self: Any, request: Any, **options: Any) -> Any:
        path = str(request.url).partition("?")[0].split("/", 3)[-1]
        if request.method == "GET" and path.endswith("/messages"):
            return await send(self, request, **options)
        number = watch.count_request()
        watch.kill_if_reached("before", number, f"{request.method} {path}")
        answer = await send(self, request, **options)
        watch.kill_if_reached("after", number, f"{request.method} {path}")
        return answer

    client.send = send_watched
