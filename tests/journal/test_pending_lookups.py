"""What is promised of the waits, of their double and of the table alike."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from azure.data.tables.aio import TableServiceClient

from integration.core.model import WorkItem
from integration.journal.azure_pending_lookups import AzurePendingLookups
from integration.journal.azure_tables import open_table
from integration.journal.pending_lookups import (
    LookupState,
    MemoryPendingLookups,
    PendingLookups,
)
from integration.mirror import lookup_waits
from integration.queues.names import MIRROR_QUEUE
from integration.queues.queue_sender import MemoryQueueSender
from local.services import Running

DOCTOR, CLINIC = "Practitioner/7", "Organization/7"
WAITING, LINKED = LookupState.WAITING, LookupState.LINKED


@pytest.fixture(params=["memory", "table"])
async def waits(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[PendingLookups]:
    if request.param == "memory":
        yield MemoryPendingLookups()
        return
    azurite: Running = request.getfixturevalue("azurite")
    async with TableServiceClient.from_connection_string(azurite.storage) as tables:
        yield AzurePendingLookups(await open_table(tables, namespace))


async def told(waits: PendingLookups, target: str, state: LookupState = WAITING) -> list[str]:
    return sorted(await waits.list_resources(target, state))


async def test_nobody_waits_at_first(waits: PendingLookups) -> None:
    assert await told(waits, DOCTOR) == []
    await waits.remove(DOCTOR, "Patient/p1", WAITING)
    assert await told(waits, DOCTOR) == []


async def test_who_waits_is_told_of_each_target_alone(waits: PendingLookups) -> None:
    await waits.add(DOCTOR, "Patient/p1", WAITING)
    await waits.add(DOCTOR, "Patient/p2.-x", WAITING)
    await waits.add(CLINIC, "Patient/p3", WAITING)
    assert await told(waits, DOCTOR) == ["Patient/p1", "Patient/p2.-x"]
    assert await told(waits, CLINIC) == ["Patient/p3"]


async def test_who_points_at_a_row_does_not_wait_for_it(waits: PendingLookups) -> None:
    await waits.add(DOCTOR, "Patient/p1", LINKED)
    await waits.add(DOCTOR, "Patient/p2", WAITING)
    assert await told(waits, DOCTOR, LINKED) == ["Patient/p1"]
    assert await told(waits, DOCTOR, WAITING) == ["Patient/p2"]


async def test_a_resource_waits_once(waits: PendingLookups) -> None:
    for _ in range(3):
        await waits.add(DOCTOR, "Patient/p1", WAITING)
    assert await told(waits, DOCTOR) == ["Patient/p1"]


async def test_who_waits_no_longer_is_forgotten_and_nobody_else(waits: PendingLookups) -> None:
    for target in (DOCTOR, CLINIC):
        await waits.add(target, "Patient/p1", WAITING)
        await waits.add(target, "Patient/p2", WAITING)
    for _ in range(2):
        await waits.remove(DOCTOR, "Patient/p1", WAITING)
    assert await told(waits, DOCTOR) == ["Patient/p2"]
    assert len(await told(waits, CLINIC)) == 2


async def test_all_of_very_many_are_woken_for_the_delivery_that_brought_the_row(
    waits: PendingLookups,
) -> None:
    """More than the 1,000 of one answer."""
    names = {f"Patient/p{number}" for number in range(1100)}
    for name in names:
        await waits.add(DOCTOR, name, WAITING)
    await waits.add(CLINIC, "Patient/p1", WAITING)
    sender = MemoryQueueSender()
    await lookup_waits.queue_waiting(waits, sender, DOCTOR, "d9")
    assert len(sender.sent) == len(names)
    assert {item.resource for _, item, _ in sender.sent} == names
    assert {(queue, item.delivery) for queue, item, _ in sender.sent} == {(MIRROR_QUEUE, "d9")}
    assert await told(waits, DOCTOR) == []
    assert await told(waits, CLINIC) == ["Patient/p1"]


async def test_who_pointed_at_a_row_waits_when_it_comes_again(waits: PendingLookups) -> None:
    await waits.add(DOCTOR, "Patient/p1", LINKED)
    await lookup_waits.wait_again(waits, DOCTOR)
    assert await told(waits, DOCTOR, LINKED) == []
    sender = MemoryQueueSender()
    await lookup_waits.queue_waiting(waits, sender, DOCTOR, "d1")
    assert sender.sent == [(MIRROR_QUEUE, WorkItem("d1", resource="Patient/p1"), 0)]
