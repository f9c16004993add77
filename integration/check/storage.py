"""Check storage: do once what the app and its host do there, with a harmless item."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from uuid import uuid4

from integration.app.storage_clients import (
    CONTAINER,
    TABLES,
    StorageClients,
    build_queue_client,
)
from integration.check import remedies
from integration.check.connections import Connections
from integration.check.report import CheckResult, report_failure, report_ok
from integration.check.runner import check_clock, run_check
from integration.core.errors import Unavailable
from integration.core.model import Response
from integration.journal.azure_errors import translate_storage_errors
from integration.journal.inbox_files import ANSWERS
from integration.queues.names import APP_QUEUES

# Seconds. The message is invisible nearly as long as it lives: even if it cannot be deleted, no
# trigger sees it.
_HIDDEN_SECONDS, _LIFETIME_SECONDS = 59, 60

_CONTENT = b"check"


async def check_storage(connections: Connections) -> list[CheckResult]:
    """Check the containers, each queue, each table, and the clock."""
    queues = [
        queue
        for name in (*APP_QUEUES, connections.events_queue)
        for queue in (name, f"{name}-poison")
    ]
    return list(
        await asyncio.gather(
            _check_part(
                connections,
                "container",
                CONTAINER,
                _use_container(connections.storage, CONTAINER),
            ),
            *_check_inbox(connections),
            *(
                _check_part(connections, "queue", name, _use_queue(connections, name))
                for name in queues
            ),
            *(
                _check_part(connections, "table", name, _use_table(connections, name))
                for name in TABLES
            ),
            check_clock(connections, "clock of storage", lambda: _fetch_properties(connections)),
        )
    )


def _check_inbox(connections: Connections) -> Iterator[Awaitable[CheckResult]]:
    container, inbox = connections.settings.inbox.container, connections.inbox
    if container is not None:
        yield _check_part(connections, "container", container, _list_container(inbox, container))
        yield _check_part(connections, "container", ANSWERS, _use_container(inbox, ANSWERS))


async def _check_part(
    connections: Connections, kind: str, name: str, work: Awaitable[str]
) -> CheckResult:
    title, account = f"{kind} {name}", str(connections.storage.blobs.account_name)

    async def run() -> CheckResult:
        try:
            async with translate_storage_errors():
                return report_ok(title, await work)
        except Unavailable as error:
            if error.why != "ResourceNotFoundError":
                raise
            return report_failure(
                title, "does not exist", remedies.suggest_create(kind, name, account)
            )

    role = remedies.suggest_storage_role(kind, account, connections.settings.client_id)
    return await run_check(
        title, run(), if_unreachable=remedies.STORAGE_UNREACHABLE, if_refused=role
    )


async def _list_container(storage: StorageClients, name: str) -> str:
    """Write nothing: whatever is in the inbox is a file of a sender."""
    async for _ in storage.blobs.get_container_client(name).list_blob_names(results_per_page=1):
        break
    return "listed"


async def _use_container(storage: StorageClients, name: str) -> str:
    blob = storage.blobs.get_blob_client(name, f"check-{uuid4()}")
    await blob.upload_blob(_CONTENT)
    try:
        found = await (await blob.download_blob()).readall()
    finally:
        await blob.delete_blob()
    return (
        "written, read, deleted"
        if found == _CONTENT
        else "written, deleted; but other bytes were read"
    )


async def _use_queue(connections: Connections, name: str) -> str:
    """Send to the app's own queues. The others are filled by others, so only look into those."""
    queue = build_queue_client(connections.storage, name)
    await queue.peek_messages()
    if name not in APP_QUEUES:
        return "peeked"
    sent = await queue.send_message(
        "check", visibility_timeout=_HIDDEN_SECONDS, time_to_live=_LIFETIME_SECONDS
    )
    await queue.delete_message(sent.id, sent.pop_receipt)
    return "peeked; a message was sent and deleted"


async def _use_table(connections: Connections, name: str) -> str:
    """Deleting a missing entity needs the right to write, and changes nothing."""
    table = connections.storage.tables.get_table_client(name)
    nothing = table.query_entities("PartitionKey eq 'check'", results_per_page=1)
    _ = [entity async for entity in nothing]
    await table.delete_entity("check", str(uuid4()))
    return "read; may be written"


async def _fetch_properties(connections: Connections) -> Response:
    headers: dict[str, str] = {}

    def keep_headers(raw: object) -> None:
        headers.update(
            {name.lower(): value for name, value in raw.http_response.headers.items()}  # type: ignore[attr-defined]
        )

    container = connections.storage.blobs.get_container_client(CONTAINER)
    async with translate_storage_errors():
        await container.get_container_properties(raw_response_hook=keep_headers)
    return Response(200, headers, b"")
