"""Webhooks: asynchronous steps that tell an address of each update of a table's rows.

They are as they are in Dataverse: the message holds values (and loses them above 256 KB), proves
itself by a static key, comes in no order, and is tried once more, only after 502, 503 or 504. Of
the values it has all of the row's here, not the changed ones alone.
https://learn.microsoft.com/power-apps/developer/data-platform/use-webhooks
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from local.dataverse.world import World

TIMEOUT = 60.0
MAX_BYTES = 256 * 1024

_TRIED_AGAIN = (502, 503, 504)


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """`key`: the value of authentication type WebhookKey, sent as `code`."""

    url: str
    table: str
    key: str = ""


@dataclass(slots=True)
class Webhooks:
    """The registered ones, and what became of their messages: statuses, or the name of an error."""

    transport: httpx.AsyncBaseTransport | None = None
    registered: list[Webhook] = field(default_factory=list)
    outcomes: deque[int | str] = field(default_factory=lambda: deque(maxlen=10_000))
    _sending: set[asyncio.Task[None]] = field(default_factory=set)

    def tell(self, world: World, writes: Iterable[Mapping[str, Any]]) -> None:
        """Send the messages of these writes later, as the platform's asynchronous service does."""
        for write in writes:
            for hook in self.registered:
                is_update = write["method"] == "PATCH" and not write["created"]
                if write["table"] == hook.table and is_update:
                    message = _build_message(world, write)
                    task = asyncio.ensure_future(self._send(hook, message))
                    self._sending.add(task)
                    task.add_done_callback(self._sending.discard)

    async def _send(self, hook: Webhook, message: bytes) -> None:
        async with httpx.AsyncClient(transport=self.transport, timeout=TIMEOUT) as client:
            for _ in range(2):
                try:
                    response = await client.post(
                        hook.url,
                        content=message,
                        params={"code": hook.key} if hook.key else None,
                        headers={"content-type": "application/json"},
                    )
                except httpx.HTTPError as error:
                    self.outcomes.append(type(error).__name__)
                    return
                self.outcomes.append(response.status_code)
                if response.status_code not in _TRIED_AGAIN:
                    return


def _build_message(world: World, write: Mapping[str, Any]) -> bytes:
    """https://learn.microsoft.com/dotnet/api/microsoft.xrm.sdk.remoteexecutioncontext"""
    user = write.get("user", write.get("caller", world.parameters.user))
    context: dict[str, Any] = {
        "MessageName": "Update",
        "Stage": 40,
        "Mode": 1,
        "PrimaryEntityName": write["table"],
        "PrimaryEntityId": write["id"],
        "UserId": user,
        "InitiatingUserId": write.get("caller", world.parameters.caller),
    }
    row = world.store.get(world.catalog.by_name[write["table"]], write["id"])
    values = [{"key": name, "value": value} for name, value in (row.values if row else {}).items()]
    target = {"key": "Target", "value": {"LogicalName": write["table"], "Attributes": values}}
    message = json.dumps({**context, "InputParameters": [target]}, default=str).encode()
    return message if len(message) <= MAX_BYTES else json.dumps(context).encode()
