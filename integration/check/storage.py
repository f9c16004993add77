"""Storage: what the app and its host do there, done once to something of no meaning."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from uuid import uuid4

from integration.app.storage_clients import CONTAINER, TABLES, build_queue_client
from integration.check import remedies
from integration.check.connections import Connections
from integration.check.report import Line, failed, ok
from integration.check.runner import attempt, clock_line
from integration.core.errors import Unavailable
from integration.core.model import Response
from integration.journal.azure_errors import translate_storage_errors
from integration.queues.names import EXTERNAL_QUEUE, MIRROR_QUEUE, RELAY_QUEUE

_OURS = (RELAY_QUEUE, MIRROR_QUEUE, EXTERNAL_QUEUE)

# Hidden for nearly all its life: if it could not be deleted, no trigger would see it either.
_HIDDEN, _LIFE = 59, 60

_CONTENT = b"check"


async def lines(ends: Connections) -> list[Line]:
    """A line for the container, for each queue and each table, and for the clock."""
    queues = [each for name in (*_OURS, ends.events_queue) for each in (name, f"{name}-poison")]
    return list(
        await asyncio.gather(
            _line(ends, "container", CONTAINER, _blob(ends)),
            *(_line(ends, "queue", name, _queue(ends, name)) for name in queues),
            *(_line(ends, "table", name, _table(ends, name)) for name in TABLES),
            clock_line(ends, "clock of storage", lambda: _dated(ends)),
        )
    )


async def _line(ends: Connections, kind: str, name: str, work: Awaitable[str]) -> Line:
    title, account = f"{kind} {name}", str(ends.storage.blobs.account_name)

    async def worked() -> Line:
        try:
            async with translate_storage_errors():
                return ok(title, await work)
        except Unavailable as error:
            if error.why != "ResourceNotFoundError":
                raise
            return failed(title, "is not there", remedies.made(kind, name, account))

    role = remedies.storage_role(kind, account, ends.settings.client_id)
    return await attempt(title, worked(), away=remedies.STORAGE_AWAY, refused=role)


async def _blob(ends: Connections) -> str:
    blob = ends.storage.blobs.get_blob_client(CONTAINER, f"check-{uuid4()}")
    await blob.upload_blob(_CONTENT)
    try:
        found = await (await blob.download_blob()).readall()
    finally:
        await blob.delete_blob()
    return "written, read, deleted" if found == _CONTENT else "written, deleted; read otherwise"


async def _queue(ends: Connections, name: str) -> str:
    """The events' queue and those of what failed are filled by others."""
    queue = build_queue_client(ends.storage, name)
    await queue.peek_messages()
    if name not in _OURS:
        return "peeked"
    sent = await queue.send_message("check", visibility_timeout=_HIDDEN, time_to_live=_LIFE)
    await queue.delete_message(sent.id, sent.pop_receipt)
    return "peeked; sent to, and taken back"


async def _table(ends: Connections, name: str) -> str:
    """To delete what is not there takes the right to, and leaves nothing."""
    table = ends.storage.tables.get_table_client(name)
    nothing = table.query_entities("PartitionKey eq 'check'", results_per_page=1)
    _ = [entity async for entity in nothing]
    await table.delete_entity("check", str(uuid4()))
    return "read; may be written"


async def _dated(ends: Connections) -> Response:
    headers: dict[str, str] = {}

    def heard(raw: object) -> None:
        headers.update(
            {name.lower(): value for name, value in raw.http_response.headers.items()}  # type: ignore[attr-defined]
        )

    container = ends.storage.blobs.get_container_client(CONTAINER)
    async with translate_storage_errors():
        await container.get_container_properties(raw_response_hook=heard)
    return Response(200, headers, b"")
