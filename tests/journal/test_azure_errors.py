"""What storage refuses is told to an operator by its own code, and by nothing that was sent."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from azure.data.tables.aio import TableServiceClient
from azure.storage.blob.aio import BlobServiceClient
from azure.storage.queue.aio import QueueServiceClient

from integration.core.errors import Misconfigured
from integration.journal.azure_errors import translate_storage_errors
from local.host.emulator import build_connection_string
from tests.builders import MARKER

Use = Callable[[str], Awaitable[object]]


@pytest.fixture
async def storage() -> AsyncIterator[str]:
    """A storage of an older version, as it answers a newer SDK; its answer quotes the request."""
    body = f"<Error><Code>InvalidHeaderValue</Code><Message>{MARKER}</Message></Error>".encode()
    head = (
        "HTTP/1.1 400 Bad Request\r\nx-ms-error-code: InvalidHeaderValue\r\n"
        f"Content-Type: application/xml\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield build_connection_string(port, port, port)


async def use_blobs(storage: str) -> None:
    async with BlobServiceClient.from_connection_string(storage, retry_total=0) as blobs:
        await blobs.get_container_client("deliveries").download_blob("x")


async def use_queues(storage: str) -> None:
    async with QueueServiceClient.from_connection_string(storage, retry_total=0) as queues:
        await queues.get_queue_client("relay").get_queue_properties()


async def use_tables(storage: str) -> None:
    async with TableServiceClient.from_connection_string(storage, retry_total=0) as tables:
        await tables.get_table_client("deliveries").get_entity("p", "r")


@pytest.mark.parametrize("use", [use_blobs, use_queues, use_tables])
async def test_storage_of_an_older_version_is_told_with_what_to_do(storage: str, use: Use) -> None:
    with pytest.raises(Misconfigured) as caught:
        async with translate_storage_errors():
            await use(storage)
    assert "(InvalidHeaderValue)" in str(caught.value)
    assert "--skipApiVersionCheck" in str(caught.value)
    assert MARKER not in "".join(traceback.format_exception(caught.value))
