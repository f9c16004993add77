"""What is promised of signing keys, of the double and the table alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from azure.data.tables.aio import TableClient, TableServiceClient

from integration.core.errors import Unavailable
from integration.journal.azure_signing_keys import AzureSigningKeys
from integration.journal.signing_keys import MemorySigningKeys, SigningKey, SigningKeys
from local.services import Running


@pytest.fixture
async def table(azurite: Running, namespace: str) -> AsyncIterator[TableClient]:
    async with TableServiceClient.from_connection_string(azurite.storage) as tables:
        yield await tables.create_table_if_not_exists(namespace)


@pytest.fixture(params=["memory", pytest.param("table", marks=pytest.mark.azurite)])
def keys(request: pytest.FixtureRequest) -> SigningKeys:
    if request.param == "memory":
        return MemorySigningKeys()
    return AzureSigningKeys(request.getfixturevalue("table"))


async def test_the_first_key_of_a_name_stays(keys: SigningKeys) -> None:
    assert await keys.read_or_add("a", b"first") == b"first"
    assert await keys.read_or_add("a", b"second") == b"first"
    assert await keys.read_or_add("b", b"second") == b"second"


async def test_workers_that_begin_at_the_same_time_have_one_key(keys: SigningKeys) -> None:
    made = iter([b"1", b"2", b"3", b"4"])
    workers = [SigningKey(keys, "a", lambda: next(made)) for _ in range(4)]
    found = await asyncio.gather(*(worker.get() for worker in workers))
    assert len(set(found)) == 1
    assert await keys.read_or_add("a", b"5") == found[0]


@pytest.mark.azurite
async def test_without_its_table_there_is_no_key(table: TableClient) -> None:
    await table.delete_table()
    with pytest.raises(Unavailable):
        await AzureSigningKeys(table).read_or_add("a", b"1")
