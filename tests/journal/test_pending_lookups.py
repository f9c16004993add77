"""What is promised of the waits, of their double and of the table alike."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from azure.data.tables.aio import TableServiceClient

from integration.core.model import WorkItem
from integration.journal.azure_pending_lookups import AzurePendingLookups
from integration.journal.azure_tables import open_table
from integration.journal.pending_lookups import MemoryPendingLookups, PendingLookups
from local.services import Running

DOCTOR, CLINIC = "Practitioner/7", "Organization/7"


@pytest.fixture(params=["memory", "table"])
async def waits(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[PendingLookups]:
    if request.param == "memory":
        yield MemoryPendingLookups()
        return
    azurite: Running = request.getfixturevalue("azurite")
    async with TableServiceClient.from_connection_string(azurite.storage) as tables:
        yield AzurePendingLookups(await open_table(tables, namespace))


def claim(id_: str, delivery: str = "d1") -> WorkItem:
    return WorkItem(delivery, resource=f"Patient/{id_}")


async def told(waits: PendingLookups, target: str) -> list[tuple[str, str | None]]:
    return sorted((each.delivery, each.resource) for each in await waits.list_waiting(target))


async def test_nobody_waits_at_first(waits: PendingLookups) -> None:
    assert await told(waits, DOCTOR) == []
    await waits.remove(DOCTOR, claim("p1"))
    assert await told(waits, DOCTOR) == []


async def test_who_waits_is_told_of_each_target_alone(waits: PendingLookups) -> None:
    await waits.add(DOCTOR, claim("p1"))
    await waits.add(DOCTOR, claim("p2.-x", "d2"))
    await waits.add(CLINIC, claim("p3"))
    assert await told(waits, DOCTOR) == [("d1", "Patient/p1"), ("d2", "Patient/p2.-x")]
    assert await told(waits, CLINIC) == [("d1", "Patient/p3")]


async def test_a_resource_waits_once_for_the_delivery_that_said_so_last(
    waits: PendingLookups,
) -> None:
    for delivery in ("d1", "d1", "d2"):
        await waits.add(DOCTOR, claim("p1", delivery))
    assert await told(waits, DOCTOR) == [("d2", "Patient/p1")]


async def test_who_waits_no_longer_is_forgotten_and_nobody_else(waits: PendingLookups) -> None:
    for target in (DOCTOR, CLINIC):
        await waits.add(target, claim("p1"))
        await waits.add(target, claim("p2"))
    for _ in range(2):
        await waits.remove(DOCTOR, claim("p1"))
    assert await told(waits, DOCTOR) == [("d1", "Patient/p2")]
    assert len(await told(waits, CLINIC)) == 2


async def test_of_very_many_some_are_told_and_then_the_others(waits: PendingLookups) -> None:
    """Who is woken waits no longer, so the rest comes to light."""
    for number in range(5):
        await waits.add(DOCTOR, claim(f"p{number}"))
    woken = set()
    while found := await waits.list_waiting(DOCTOR):
        for each in found:
            woken.add(each.resource)
            await waits.remove(DOCTOR, each)
    assert woken == {f"Patient/p{number}" for number in range(5)}
