"""`status` reads storage alone: what is there is told, and nothing is created."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from azure.data.tables.aio import TableServiceClient
from azure.storage.blob.aio import BlobServiceClient

from integration.cli.main import main
from integration.core.model import Delivery, DeliveryRequest, Status
from integration.journal.azure_store import AzureJournal, open_journal
from integration.journal.store import IndexEntry, Payload
from integration.journal.table_keys import build_index_key, make_delivery_id
from local.host.emulator import build_connection_string
from local.services import Running, find_free_ports


@pytest.fixture
def environment() -> Iterator[None]:
    """One that the test may change."""
    before = dict(os.environ)
    os.environ.update(
        FHIR_URL="http://127.0.0.1:1/fhir",
        FHIR_SCOPE="none",
        DATAVERSE_URL="http://127.0.0.1:1",
        DATAVERSE_SCOPE="none",
    )
    yield
    os.environ.clear()
    os.environ.update(before)


MOMENT = datetime.now(UTC) - timedelta(days=300)
PARKED = Delivery(
    id=make_delivery_id(MOMENT, 7),
    sender="lab",
    key="k",
    digest="d",
    accepted=MOMENT,
    status=Status.PARKED,
    kind="batch",
    entries=1,
    bytes=2,
    reason="answered 503",
)
ENTRY = IndexEntry(build_index_key(PARKED.id, MOMENT), PARKED.id)


@asynccontextmanager
async def journal_at(storage: str) -> AsyncIterator[AzureJournal]:
    async with (
        BlobServiceClient.from_connection_string(storage) as blobs,
        TableServiceClient.from_connection_string(storage) as tables,
    ):
        yield await open_journal(blobs, tables)


async def add_parked(storage: str) -> None:
    async with journal_at(storage) as journal:
        await journal.add_delivery(PARKED, Payload(DeliveryRequest("POST"), b"{}"))
        await journal.index_delivery(PARKED.id, MOMENT)


async def remove_parked(storage: str) -> None:
    """Other tests have the same storage."""
    async with journal_at(storage) as journal:
        await journal.move_index_entry(ENTRY, None)
        await journal.delete_delivery(PARKED.id)


@pytest.fixture
def storage(azurite: Running) -> Iterator[str]:
    """Storage that holds a parked delivery."""
    asyncio.run(add_parked(azurite.storage))
    yield azurite.storage
    asyncio.run(remove_parked(azurite.storage))


@pytest.mark.azurite
@pytest.mark.usefixtures("environment")
def test_a_parked_delivery_is_told(storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    os.environ.update(AzureWebJobsStorage=storage)
    assert main(["status"]) == 1
    told = capsys.readouterr().out
    assert f"  the oldest  {PARKED.id}  parked, accepted 300 days ago" in told
    assert "  deliveries: " in told.partition("status: look at")[2]
    assert main(["status", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["deliveries"]["oldest"]["id"] == PARKED.id
    assert "worker" not in found


@pytest.mark.usefixtures("environment")
def test_storage_that_is_not_there_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    ports = find_free_ports()
    nowhere = build_connection_string(ports.blob, ports.queue, ports.table)
    os.environ.update(AzureWebJobsStorage=nowhere)
    assert main(["status"]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("storage: no part of the status")
    assert str(ports.table) not in line


@pytest.mark.usefixtures("environment")
def test_settings_that_are_missing_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for name in [name for name in os.environ if name.startswith("AzureWebJobsStorage")]:
        del os.environ[name]
    assert main(["status"]) == 2
    assert "AzureWebJobsStorage" in capsys.readouterr().out
