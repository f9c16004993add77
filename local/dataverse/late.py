"""Calls that outlive their client.

Dataverse works on when a client has given up: a call has two minutes from its start, then
Dataverse cancels it and rolls it back. So for two minutes nobody can know whether a call whose
reply never came will still be executed.

https://learn.microsoft.com/power-apps/developer/data-platform/analyze-performance#time-and-resource-constraints
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope

from local.dataverse.wire import Refusal

LIMIT_SECONDS = 120.0

# SqlTimeout, by https://learn.microsoft.com/power-apps/developer/data-platform/troubleshoot-plug-in
# (-2147204783). The page does not name the HTTP status.
TIMEOUT = Refusal(
    500, "0x80044151", "Sql error: Execution Timeout Expired. The timeout period elapsed."
)


@dataclass(frozen=True, slots=True)
class LateCall:
    """A call whose client is gone, and the moment of its arrival by the clock."""

    scope: Scope
    body: bytes
    arrived: float


@dataclass(slots=True, kw_only=True)
class LateCalls:
    """The calls that are still to be executed: after a delay, or when a test says so."""

    app: ASGIApp
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    held: list[LateCall] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def take(self, scope: Scope, receive: Receive, delay: float | None) -> None:
        """Read the call to its end, and execute it after `delay` seconds; None: when told."""
        call = LateCall(dict(scope), await read_body(receive), self.clock())
        if delay is None:
            self.held.append(call)
            return
        task = asyncio.create_task(self._execute_after(call, delay))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def execute_held(self) -> dict[str, int]:
        """Execute the held calls in their order. Those older than two minutes are cancelled."""
        held, self.held = self.held, []
        counts = {"executed": 0, "cancelled": 0}
        for call in held:
            if self.clock() - call.arrived > LIMIT_SECONDS:
                counts["cancelled"] += 1
            else:
                await self._execute(call)
                counts["executed"] += 1
        return counts

    @property
    def pending(self) -> int:
        return len(self.held) + len(self._tasks)

    def clear(self) -> None:
        self.held.clear()
        for task in self._tasks:
            task.cancel()

    async def _execute_after(self, call: LateCall, delay: float) -> None:
        await self.sleep(delay)
        await self._execute(call)

    async def _execute(self, call: LateCall) -> None:
        async def leave() -> Message:
            return {"type": "http.disconnect"}

        await self.app(call.scope, replay_body(call.body, leave), discard)


async def hang(
    receive: Receive, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
) -> bool:
    """Do nothing until the client gives up, or two minutes are over. Return whether they are."""
    await read_body(receive)
    waiting = asyncio.ensure_future(sleep(LIMIT_SECONDS))
    leaving = asyncio.ensure_future(receive())
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return waiting.done()
    finally:
        waiting.cancel()
        leaving.cancel()


async def read_body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def replay_body(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that begins with a body which was read already."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


async def discard(_message: Message) -> None:
    """Drop a message of the response: the call was executed, but nobody hears of it."""
