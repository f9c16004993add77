"""What is promised of the keys of rows and of the data routes, of doubles and tables alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
from azure.data.tables.aio import TableServiceClient

from integration.journal.azure_data_routes import AzureDataRouteStore
from integration.journal.azure_row_keys import AzureRowKeys
from integration.journal.data_routes import ChosenRoute, DataRouteStore, MemoryDataRouteStore
from integration.journal.row_keys import MemoryRowKeys, RowKeys
from local.services import Running

MANY = {f"id-{n}.x": str(UUID(int=n)) for n in range(250)}


@pytest.fixture(params=["memory", "table"])
async def kept(
    request: pytest.FixtureRequest, namespace: str
) -> AsyncIterator[tuple[RowKeys, DataRouteStore]]:
    if request.param == "memory":
        yield MemoryRowKeys(), MemoryDataRouteStore()
        return
    azurite: Running = request.getfixturevalue("azurite")
    async with TableServiceClient.from_connection_string(azurite.storage) as tables:
        table = await tables.create_table_if_not_exists(namespace)
        yield AzureRowKeys(table), AzureDataRouteStore(table)


async def test_a_key_leads_to_its_resource_and_a_resource_to_its_key(
    kept: tuple[RowKeys, DataRouteStore],
) -> None:
    row_keys, _ = kept
    await row_keys.add("Patient", MANY)
    await row_keys.add("Patient", MANY)
    assert await row_keys.find_keys("Patient", MANY) == MANY
    assert await row_keys.find_ids("Patient", MANY.values()) == {
        key: id_ for id_, key in MANY.items()
    }


async def test_a_way_back_alone_says_nothing_of_the_way_there(
    kept: tuple[RowKeys, DataRouteStore],
) -> None:
    row_keys, _ = kept
    await row_keys.add("Patient", {"1": MANY["id-1.x"]})
    await row_keys.add_reverse("Patient", {"1": MANY["id-2.x"]})
    assert await row_keys.find_keys("Patient", ["1"]) == {"1": MANY["id-1.x"]}
    both = await row_keys.find_ids("Patient", [MANY["id-1.x"], MANY["id-2.x"]])
    assert both == {MANY["id-1.x"]: "1", MANY["id-2.x"]: "1"}


async def test_what_was_never_noted_is_not_there(kept: tuple[RowKeys, DataRouteStore]) -> None:
    row_keys, _ = kept
    await row_keys.add("Patient", {"1": MANY["id-1.x"]})
    assert await row_keys.find_keys("Patient", ["2", "' or ''"]) == {}
    assert await row_keys.find_keys("Observation", ["1"]) == {}
    assert await row_keys.find_ids("Patient", ["1"]) == {}
    assert await row_keys.find_ids("Patient", []) == {}


async def test_ids_that_differ_in_case_have_keys_of_their_own(
    kept: tuple[RowKeys, DataRouteStore],
) -> None:
    row_keys, _ = kept
    keys = {"a": str(UUID(int=1)), "A": str(UUID(int=2))}
    await row_keys.add("Patient", keys)
    assert await row_keys.find_keys("Patient", ["a", "A"]) == keys


async def test_a_route_stays_as_it_was_chosen_last_with_who_chose_it_when(
    kept: tuple[RowKeys, DataRouteStore],
) -> None:
    _, routes = kept
    assert await routes.list_routes() == {}
    changed = datetime(2026, 3, 2, 1, 15, 0, 123456, tzinfo=UTC)
    last = ChosenRoute("dataverse", "anna@example.org", changed)
    await routes.set_route("Observation", ChosenRoute("virtual", "somebody", changed))
    await routes.set_route("Condition", ChosenRoute("virtual"))
    await routes.set_route("Observation", last)
    found = await routes.list_routes()
    assert found == {"Observation": last, "Condition": ChosenRoute("virtual")}
