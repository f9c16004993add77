"""Run functions: async ones on the loop, others in a thread pool, all within the timeout."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import azure.functions as func

from local.host import kill
from local.host.functions import Function
from local.host.settings import HostOptions

log = logging.getLogger("local.host")


@dataclass(frozen=True, slots=True)
class InvocationResult:
    succeeded: bool
    value: Any = None


class Context(func.Context):
    """The invocation context, for functions with a parameter named context."""

    def __init__(self, function: str, invocation: str) -> None:
        self._function = function
        self._invocation = invocation
        self._local = threading.local()

    @property
    def invocation_id(self) -> str:
        return self._invocation

    @property
    def function_name(self) -> str:
        return self._function

    @property
    def function_directory(self) -> str:
        return str(Path.cwd())

    @property
    def thread_local_storage(self) -> Any:
        return self._local

    @property
    def trace_context(self) -> Any:
        return None

    @property
    def retry_context(self) -> Any:
        return None


class Worker:
    def __init__(self, options: HostOptions) -> None:
        self._timeout = options.function_timeout
        self._kill_at_timeout = options.kill_at_timeout
        self._threads = ThreadPoolExecutor(options.threads, thread_name_prefix="function")
        self._calls: set[Future[Any]] = set()

    async def run(self, function: Function, argument: object) -> InvocationResult:
        """Run the function. A failure is logged and returned; only cancellation is raised."""
        invocation, started = str(uuid.uuid4()), time.monotonic()
        extra: dict[str, object] = {"function": function.name, "invocation": invocation}
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                value = await self._call_function(function, argument, invocation)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
            log.exception("function.failed", extra=extra)
            return InvocationResult(False)
        except Exception:
            event = "function.timed_out" if limit.expired() else "function.failed"
            log.exception(event, extra=extra)
            if limit.expired() and self._kill_at_timeout:
                kill.kill_host()
            return InvocationResult(False)
        extra["ms"] = round((time.monotonic() - started) * 1000)
        log.info("function.succeeded", extra=extra)
        return InvocationResult(True, value)

    async def _call_function(self, function: Function, argument: object, invocation: str) -> Any:
        arguments = {function.argument: argument}
        if function.wants_context:
            arguments["context"] = Context(function.name, invocation)
        if function.is_async:
            return await function.call(**arguments)
        context = contextvars.copy_context()
        call = self._threads.submit(lambda: context.run(function.call, **arguments))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return await asyncio.wrap_future(call)

    def close(self) -> bool:
        """Return whether every thread is done. A running one cannot be stopped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        return not self._calls
