"""On a laptop a poller tells of files, as Event Grid does in Azure."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import pytest
from azure.storage.blob.aio import ContainerClient
from azure.storage.queue import TextBase64DecodePolicy, TextBase64EncodePolicy
from azure.storage.queue.aio import QueueClient

from integration.app import storage_clients
from integration.app.settings import read_settings
from integration.intake.inbox import take_files
from local.inbox_poller import tell_news
from local.services import Running
from tests.conftest import Route
from tests.intake.mailing import as_json, make_mailing

pytestmark = pytest.mark.azurite


@dataclass(frozen=True)
class Emulator:
    files: ContainerClient
    queue: QueueClient

    async def receive(self) -> list[bytes]:
        """The messages, as the queue trigger gets them."""
        found = []
        async for message in self.queue.receive_messages():
            await self.queue.delete_message(message)
            found.append(message.content.encode())
        return found


@pytest.fixture
async def emulator(azurite: Running, namespace: str) -> AsyncIterator[Emulator]:
    async with AsyncExitStack() as stack:
        settings = read_settings(azurite.settings())
        clients = storage_clients.open_clients(settings.storage, None, stack)
        files = clients.blobs.get_container_client(f"{namespace}-inbox")
        await files.create_container()
        queue = clients.queues.get_queue_client(
            namespace,
            message_encode_policy=TextBase64EncodePolicy(),
            message_decode_policy=TextBase64DecodePolicy(),
        )
        await queue.create_queue()
        yield Emulator(files, queue)


async def test_a_file_is_told_of_once_and_again_when_it_has_changed(emulator: Emulator) -> None:
    seen: dict[str, str] = {}
    await tell_news(emulator.files, emulator.queue, seen)
    assert await emulator.receive() == []
    await emulator.files.upload_blob("lab/a", b"1")
    for expected in (1, 0):
        await tell_news(emulator.files, emulator.queue, seen)
        assert len(await emulator.receive()) == expected
    await emulator.files.upload_blob("lab/a", b"2", overwrite=True)
    await tell_news(emulator.files, emulator.queue, seen)
    assert len(await emulator.receive()) == 1
    await emulator.files.delete_blob("lab/a")
    await tell_news(emulator.files, emulator.queue, seen)
    assert (await emulator.receive(), seen) == ([], {})


async def test_what_it_tells_is_what_the_app_understands(emulator: Emulator, route: Route) -> None:
    name, content = "lab/jour férié +%20.json", as_json({"resourceType": "Patient"})
    await emulator.files.upload_blob(name, content)
    await tell_news(emulator.files, emulator.queue, {})
    (message,) = await emulator.receive()
    mailing = make_mailing(route)
    mailing.files.put(name, content)
    await take_files(replace(mailing.inbox, container=emulator.files.container_name), message)
    assert len(route.journal.deliveries) == 1
