"""What is promised of the keys of rows, of doubles and tables alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from azure.data.tables.aio import TableServiceClient

from integration.journal.azure_row_keys import AzureRowKeys
from integration.journal.row_keys import MemoryRowKeys, RowKeys
from local.services import Running

MANY = {f"id-{n}.x": str(UUID(int=n)) for n in range(250)}


@pytest.fixture(params=["memory", "table"])
async def row_keys(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[RowKeys]:
    if request.param == "memory":
        yield MemoryRowKeys()
        return
    azurite: Running = request.getfixturevalue("azurite")
    async with TableServiceClient.from_connection_string(azurite.storage) as tables:
        table = await tables.create_table_if_not_exists(namespace)
        yield AzureRowKeys(table)


async def test_a_key_leads_to_its_resource_and_a_resource_to_its_key(
    row_keys: RowKeys,
) -> None:
    await row_keys.add("Patient", MANY)
    await row_keys.add("Patient", MANY)
    assert await row_keys.find_keys("Patient", MANY) == MANY
    assert await row_keys.find_ids("Patient", MANY.values()) == {
        key: id_ for id_, key in MANY.items()
    }


async def test_a_way_back_alone_says_nothing_of_the_way_there(
    row_keys: RowKeys,
) -> None:
    await row_keys.add("Patient", {"1": MANY["id-1.x"]})
    await row_keys.add_reverse("Patient", {"1": MANY["id-2.x"]})
    assert await row_keys.find_keys("Patient", ["1"]) == {"1": MANY["id-1.x"]}
    both = await row_keys.find_ids("Patient", [MANY["id-1.x"], MANY["id-2.x"]])
    assert both == {MANY["id-1.x"]: "1", MANY["id-2.x"]: "1"}


async def test_what_was_never_noted_is_not_there(row_keys: RowKeys) -> None:
    await row_keys.add("Patient", {"1": MANY["id-1.x"]})
    assert await row_keys.find_keys("Patient", ["2", "' or ''"]) == {}
    assert await row_keys.find_keys("Observation", ["1"]) == {}
    assert await row_keys.find_ids("Patient", ["1"]) == {}
    assert await row_keys.find_ids("Patient", []) == {}


async def test_ids_that_differ_in_case_have_keys_of_their_own(
    row_keys: RowKeys,
) -> None:
    keys = {"a": str(UUID(int=1)), "A": str(UUID(int=2))}
    await row_keys.add("Patient", keys)
    assert await row_keys.find_keys("Patient", ["a", "A"]) == keys
