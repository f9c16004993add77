"""Work items are sent to the real queue in the form that the queue trigger reads."""

from __future__ import annotations

import base64
import json
import traceback
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from azure.storage.queue import TextBase64EncodePolicy
from azure.storage.queue.aio import QueueClient

from integration.core.errors import Unavailable
from integration.core.model import WorkItem
from integration.queues.azure_queue import AzureQueueReader, AzureQueueSender
from integration.queues.queue_reader import MemoryQueueReader, QueueState
from integration.queues.queue_sender import parse_work_item
from local.host.emulator import ACCOUNT, build_connection_string
from local.services import Running, find_free_ports

WHOLE = WorkItem(
    "019caaee-c260-7000-8000-000000000001",
    lane=3,
    resource="Patient/p1",
    attempt=2,
    since=1772412300.25,
)


def client(connection: str, name: str, **options: Any) -> QueueClient:
    policy = TextBase64EncodePolicy()
    return QueueClient.from_connection_string(
        connection, name, message_encode_policy=policy, **options
    )


@pytest.fixture
async def queue(azurite: Running, namespace: str) -> AsyncIterator[QueueClient]:
    async with client(azurite.storage, namespace) as made:
        await made.create_queue()
        yield made


@pytest.mark.azurite
@pytest.mark.parametrize("claim", [WorkItem("d"), WorkItem("d", lane=0), WHOLE])
async def test_a_work_item_is_received_as_it_was_sent(queue: QueueClient, claim: WorkItem) -> None:
    opened: list[str] = []

    def open_(name: str) -> QueueClient:
        opened.append(name)
        return queue

    await AzureQueueSender(open_).send("relay", claim)
    (message,) = await queue.peek_messages()
    assert parse_work_item(base64.b64decode(message.content)) == claim
    assert opened == ["relay"]


@pytest.mark.azurite
@pytest.mark.parametrize("delay", [1.5, 900.0])
async def test_a_delayed_work_item_is_in_the_queue_but_invisible(
    queue: QueueClient, delay: float
) -> None:
    await AzureQueueSender(lambda _: queue).send("relay", WHOLE, delay)
    assert (await queue.get_queue_properties()).approximate_message_count == 1
    assert await queue.receive_message() is None


@pytest.mark.azurite
async def test_a_work_item_never_expires(queue: QueueClient) -> None:
    """By default a message is gone after seven days, and nobody hears of it."""
    await AzureQueueSender(lambda _: queue).send("relay", WHOLE)
    message = await queue.receive_message()
    assert message is not None
    assert message.expires_on.year == 9999


async def test_a_queue_that_is_down_is_unavailable_and_its_address_is_not_shown() -> None:
    ports = find_free_ports()
    nowhere = build_connection_string(ports.blob, ports.queue, ports.table)
    async with client(nowhere, "relay", retry_total=0) as queue:
        with pytest.raises(Unavailable) as caught:
            await AzureQueueSender(lambda _: queue).send("relay", WHOLE)
    shown = "".join(traceback.format_exception(caught.value))
    assert ACCOUNT not in shown
    assert str(ports.queue) not in shown


@pytest.mark.azurite
async def test_a_queue_that_is_not_there_is_unavailable(azurite: Running, namespace: str) -> None:
    async with client(azurite.storage, namespace, retry_total=0) as queue:
        with pytest.raises(Unavailable):
            await AzureQueueSender(lambda _: queue).send("relay", WHOLE)


# --- how long it is, and how old ---------------------------------------------------------------


@pytest.mark.azurite
async def test_a_queue_is_measured_and_keeps_its_messages(queue: QueueClient) -> None:
    reader = AzureQueueReader(lambda _: queue)
    assert await reader.measure("relay") == QueueState(0, None)
    for _ in range(3):
        await AzureQueueSender(lambda _: queue).send("relay", WHOLE)
    found = await reader.measure("relay")
    assert found.length == 3
    (first, *_) = await queue.peek_messages()
    assert found.oldest == first.inserted_on
    assert abs(datetime.now(UTC) - first.inserted_on) < timedelta(minutes=1)
    assert await reader.measure("relay") == found


@pytest.mark.azurite
async def test_what_is_invisible_counts_and_has_no_age(queue: QueueClient) -> None:
    await AzureQueueSender(lambda _: queue).send("relay", WHOLE, 900.0)
    await AzureQueueSender(lambda _: queue).send("relay", WHOLE)
    await queue.receive_message()
    assert await AzureQueueReader(lambda _: queue).measure("relay") == QueueState(2, None)


@pytest.mark.azurite
async def test_a_queue_that_does_not_exist_is_empty(azurite: Running, namespace: str) -> None:
    async with client(azurite.storage, namespace, retry_total=0) as queue:
        assert await AzureQueueReader(lambda _: queue).measure("x") == QueueState(0, None)
    assert await MemoryQueueReader().measure("x") == QueueState(0, None)


async def test_a_queue_that_does_not_answer_is_not_taken_for_empty() -> None:
    ports = find_free_ports()
    nowhere = build_connection_string(ports.blob, ports.queue, ports.table)
    async with client(nowhere, "relay", retry_total=0) as queue:
        with pytest.raises(Unavailable):
            await AzureQueueReader(lambda _: queue).measure("relay")


# --- what a message says -----------------------------------------------------------------------


def test_a_work_item_without_its_optional_fields_is_parsed() -> None:
    """An operator may write one by hand, to process a parked delivery again."""
    assert parse_work_item(b'{"delivery": "d"}') == WorkItem("d")


def test_a_work_item_of_a_later_version_is_parsed() -> None:
    body = json.dumps({"delivery": "d", "lane": 1, "colour": "red"}).encode()
    assert parse_work_item(body) == WorkItem("d", lane=1)


@pytest.mark.parametrize("body", [b"", b"{}", b'"d"', b'{"delivery": 7}', b"\xff"])
def test_a_message_that_is_no_work_item_is_an_error(body: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        parse_work_item(body)
