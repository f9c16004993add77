"""What is promised of the record of housekeeping's last run, of the double and the table alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from azure.data.tables.aio import TableClient, TableServiceClient

from integration.core.errors import Unavailable
from integration.journal.azure_housekeeping_runs import AzureHousekeepingRuns
from integration.journal.housekeeping_runs import (
    HousekeepingRun,
    HousekeepingRuns,
    MemoryHousekeepingRuns,
)
from local.services import Running

BEGAN = datetime(2026, 3, 2, 12, 0, 0, 250000, tzinfo=UTC)
RUN = HousekeepingRun(
    began=BEGAN,
    ended=BEGAN + timedelta(seconds=9),
    queued=1,
    parked=2,
    forgotten=3,
    locks=4,
    activity=10_000,
    audit=6,
    failed=7,
    more=True,
)


@pytest.fixture
async def table(azurite: Running, namespace: str) -> AsyncIterator[TableClient]:
    async with TableServiceClient.from_connection_string(azurite.storage) as tables:
        yield await tables.create_table_if_not_exists(namespace)


@pytest.fixture(params=["memory", pytest.param("table", marks=pytest.mark.azurite)])
def runs(request: pytest.FixtureRequest) -> HousekeepingRuns:
    if request.param == "memory":
        return MemoryHousekeepingRuns()
    return AzureHousekeepingRuns(request.getfixturevalue("table"))


async def test_before_the_first_run_none_is_recorded(runs: HousekeepingRuns) -> None:
    assert await runs.get_last_run() is None


async def test_the_last_run_takes_the_place_of_the_one_before(runs: HousekeepingRuns) -> None:
    await runs.save_last_run(RUN)
    assert await runs.get_last_run() == RUN
    later = HousekeepingRun(began=BEGAN + timedelta(hours=1), ended=BEGAN + timedelta(hours=1))
    await runs.save_last_run(later)
    assert await runs.get_last_run() == later


@pytest.mark.azurite
async def test_a_row_of_another_version_of_the_app_is_read(table: TableClient) -> None:
    moments = {"began": BEGAN, "ended": BEGAN}
    await table.upsert_entity(
        {"PartitionKey": "housekeeping", "RowKey": "last", **moments, "queued": 5, "colour": "red"}
    )
    found = await AzureHousekeepingRuns(table).get_last_run()
    assert found == HousekeepingRun(began=BEGAN, ended=BEGAN, queued=5)


@pytest.mark.azurite
async def test_a_table_that_is_not_there_is_unavailable_to_who_writes(
    azurite: Running, namespace: str
) -> None:
    async with TableServiceClient.from_connection_string(azurite.storage, retry_total=0) as tables:
        with pytest.raises(Unavailable):
            await AzureHousekeepingRuns(tables.get_table_client(namespace)).save_last_run(RUN)
