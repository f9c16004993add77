"""What is promised of due days, of their double and of the table alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date

import pytest
from azure.data.tables.aio import TableServiceClient

from integration.journal.azure_due_days import AzureDueDays
from integration.journal.azure_tables import open_table
from integration.journal.due_days import DueDays, DueResource, MemoryDueDays
from local.services import Running

FIRST, SECOND, THIRD = date(2025, 12, 31), date(2026, 3, 1), date(2026, 3, 2)
ANNA, BERT = "Patient/p1.-x", "Patient/p2"


@pytest.fixture(params=["memory", "table"])
async def due_days(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[DueDays]:
    if request.param == "memory":
        yield MemoryDueDays()
        return
    azurite: Running = request.getfixturevalue("azurite")
    async with TableServiceClient.from_connection_string(azurite.storage) as tables:
        yield AzureDueDays(await open_table(tables, namespace))


async def test_what_is_due_is_listed_the_earliest_first(due_days: DueDays) -> None:
    assert await due_days.list_due(THIRD, 10) == []
    for day, resource in ((THIRD, ANNA), (SECOND, BERT), (FIRST, ANNA), (FIRST, ANNA)):
        await due_days.add(DueResource(day, resource))
    due = [DueResource(FIRST, ANNA), DueResource(SECOND, BERT), DueResource(THIRD, ANNA)]
    assert await due_days.list_due(THIRD, 10) == due
    assert await due_days.list_due(SECOND, 10) == due[:2]
    assert await due_days.list_due(THIRD, 1) == due[:1]


async def test_what_is_removed_is_not_due_and_another_day_of_it_is(due_days: DueDays) -> None:
    for day in (FIRST, SECOND):
        await due_days.add(DueResource(day, ANNA))
    for _ in range(2):
        await due_days.remove(DueResource(FIRST, ANNA))
    assert await due_days.list_due(THIRD, 10) == [DueResource(SECOND, ANNA)]
