"""The journal in a storage account: what lies where, and what is told when it does not answer."""

from __future__ import annotations

import json
import traceback
from base64 import b64decode
from collections.abc import AsyncIterator
from typing import Any

import pytest
from azure.data.tables.aio import TableServiceClient
from azure.storage.blob.aio import BlobServiceClient
from azure.storage.queue import TextBase64EncodePolicy
from azure.storage.queue.aio import QueueServiceClient

from integration.core.errors import IntegrationError, Misconfigured, Unavailable
from integration.core.model import DeliveryRequest, EntryResult, WorkItem
from integration.journal.azure_activity import AzureActivityLog
from integration.journal.azure_store import TABLES, AzureJournal, open_journal
from integration.journal.store import Payload
from integration.journal.table_keys import make_delivery_id
from integration.mirror import mirror as mirroring
from integration.queues.azure_queue import AzureQueueSender
from integration.queues.names import MIRROR_QUEUE, RELAY_QUEUE
from integration.queues.queue_sender import parse_work_item
from integration.relay import process as relaying
from local.host.emulator import ACCOUNT, build_connection_string
from local.services import Running, find_free_ports
from tests.builders import MARKER, bundle, entry, observation, patient
from tests.conftest import Route
from tests.fhir.notices import HOME, make_full_entry, make_notification
from tests.journal.store_work import DELIVERY, EVERYTHING, ID, NOON, Work


async def journal_at(connection: str) -> AsyncIterator[AzureJournal]:
    """Told at once what is wrong, instead of after the patience of the SDK."""
    blobs = BlobServiceClient.from_connection_string(connection, retry_total=0)
    tables = TableServiceClient.from_connection_string(connection, retry_total=0)
    async with blobs, tables:
        container = blobs.get_container_client("deliveries")
        yield AzureJournal(container, *(tables.get_table_client(name) for name in TABLES))


@pytest.fixture
async def unreachable() -> AsyncIterator[AzureJournal]:
    ports = find_free_ports()
    async for journal in journal_at(build_connection_string(ports.blob, ports.queue, ports.table)):
        yield journal


@pytest.fixture
async def forbidden(azurite: Running) -> AsyncIterator[AzureJournal]:
    """As with an identity that has no role on the account."""
    key, wrong = "AccountKey=Eby8", "AccountKey=Wrng"
    async for journal in journal_at(azurite.storage.replace(key, wrong)):
        yield journal


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize("work", [work for _, work in EVERYTHING], ids=[n for n, _ in EVERYTHING])
async def test_storage_that_is_down_is_unavailable_and_told_without_its_address(
    unreachable: AzureJournal, work: Work
) -> None:
    with pytest.raises(Unavailable) as caught:
        await work(unreachable)
    assert caught.value.upstream == "storage"
    assert ACCOUNT not in shown(caught.value)
    assert "127.0.0.1" not in shown(caught.value)


@pytest.mark.azurite
@pytest.mark.parametrize("work", [work for _, work in EVERYTHING], ids=[n for n, _ in EVERYTHING])
async def test_an_identity_without_roles_is_for_an_operator(
    forbidden: AzureJournal, work: Work
) -> None:
    with pytest.raises(Misconfigured) as caught:
        await work(forbidden)
    assert ACCOUNT not in shown(caught.value)


@pytest.mark.azurite
async def test_opening_the_journal_twice_is_as_good_as_once(azurite: Running) -> None:
    blobs = BlobServiceClient.from_connection_string(azurite.storage)
    tables = TableServiceClient.from_connection_string(azurite.storage)
    async with blobs, tables:
        first = await open_journal(blobs, tables)
        await first.add_delivery(DELIVERY, Payload(DeliveryRequest("POST"), b"{}"))
        second = await open_journal(blobs, tables)
        assert await second.get_delivery(ID) == DELIVERY


@pytest.mark.azurite
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # the SDK's own way
async def test_outcomes_are_appended_in_blocks_of_at_most_four_mebibytes(azurite: Running) -> None:
    blobs = BlobServiceClient.from_connection_string(azurite.storage)
    tables = TableServiceClient.from_connection_string(azurite.storage)
    async with blobs, tables:
        journal = await open_journal(blobs, tables)
        large = [{"diagnostics": "x" * 1_000_000}]
        id_ = make_delivery_id(NOON, 2)
        await journal.begin_lane(id_, 0)
        await journal.add_entry_results(
            id_, 0, [EntryResult(number, 422, issues=large) for number in range(9)]
        )
        blob = journal.container.get_blob_client(f"{id_}/results/0")
        properties = await blob.get_blob_properties()
        assert properties.append_blob_committed_block_count == 3


async def test_a_journal_that_cannot_be_opened_is_unavailable() -> None:
    ports = find_free_ports()
    nowhere = build_connection_string(ports.blob, ports.queue, ports.table)
    blobs = BlobServiceClient.from_connection_string(nowhere, retry_total=0)
    tables = TableServiceClient.from_connection_string(nowhere, retry_total=0)
    async with blobs, tables:
        with pytest.raises(IntegrationError) as caught:
            await open_journal(blobs, tables)
    assert isinstance(caught.value, Unavailable)


@pytest.mark.azurite
async def test_tables_queues_and_names_of_blobs_hold_no_patient_data(
    azurite: Running, route: Route, namespace: str
) -> None:
    """A whole delivery with something marked everywhere a sender can put it."""
    storage = azurite.storage
    blobs = BlobServiceClient.from_connection_string(storage)
    tables = TableServiceClient.from_connection_string(storage)
    queues = QueueServiceClient.from_connection_string(storage)
    async with blobs, tables, queues:
        container = await blobs.create_container(namespace)
        names = [
            f"{namespace}{use}"
            for use in ("deliveries", "open", "attention", "keys", "rows", "subs")
        ]
        kept_in = [await tables.create_table(name) for name in names]
        log = await tables.create_table(f"{namespace}activity")
        route.activities.store = AzureActivityLog(log).add
        clients = {
            name: queues.get_queue_client(
                f"{namespace}-{name}", message_encode_policy=TextBase64EncodePolicy()
            )
            for name in (RELAY_QUEUE, MIRROR_QUEUE)
        }
        for client in clients.values():
            await client.create_queue()
        route.journal = AzureJournal(container, *kept_in)
        route.queue_sender = AzureQueueSender(clients.__getitem__)
        maybe = {"ifNoneExist": f"identifier=urn:mrn|{MARKER}"}
        marked = patient(identifier=[{"value": MARKER}], gender=MARKER, text={"div": MARKER})
        accepted = await route.ask(
            bundle(
                entry(marked, f"urn:{MARKER}", **maybe),
                entry({"resourceType": "Location", "name": MARKER}),
                entry(observation(), ifMatch=MARKER),
                kind="batch",
            ),
            headers={"idempotency-key": MARKER, "if-none-exist": MARKER},
        )
        told = make_notification(
            make_full_entry({**marked, "id": "p"}),
            events=((3, f"{HOME}/Patient/{MARKER}"),),
            subscription=f"{HOME}/Subscription/{MARKER}",
        )
        await route.ask(told, headers={"idempotency-key": MARKER * 2})
        route.fhir_double.refuses = {"Location"}
        await relaying.process(route.relay, WorkItem(accepted.delivery))
        messages = [each async for each in peeked(clients)]
        (person,) = route.fhir_double.of("Patient")
        claim = WorkItem(accepted.delivery, resource=f"Patient/{person['id']}")
        await mirroring.mirror_resource(route.mirror, claim)
        assert [row.action for row in await route.journal.list_row_results(accepted.delivery)] == [
            "created"
        ]
        entities = [each for table in kept_in async for each in table.list_entities()]
        blob_names = [name async for name in container.list_blob_names()]
        activity = [each async for each in log.list_entities()]
        assert len(entities) == 7  # the refused Location needs attention
        assert {each["action"] for each in activity} >= {"write unit 0.0", "create", "mirror"}
        assert len(messages) == 3
        assert len(blob_names) == 3
        for found in (entities, activity, messages, blob_names):
            assert MARKER not in repr(found)
        # The bytes are where they belong, so the searches above can find it.
        assert MARKER in repr(await route.journal.get_payload(accepted.delivery))
        assert MARKER in json.dumps(await route.dataverse_double.contacts())


async def peeked(clients: dict[str, Any]) -> AsyncIterator[WorkItem]:
    for client in clients.values():
        for message in await client.peek_messages(max_messages=32):
            yield parse_work_item(b64decode(message.content))
