"""What is promised of recorded deletions, of their double and of the table alike."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from azure.data.tables.aio import TableServiceClient

from integration.core.state_version import NEVER_SEEN, StateVersion
from integration.journal.azure_deletions import AzureDeletions
from integration.journal.azure_tables import open_table
from integration.journal.deletions import Deletions, MemoryDeletions
from local.services import Running

ANNA, CLINIC = "Patient/p1.-x", "Organization/p1.-x"


def deleted(version: str, minute: int) -> StateVersion:
    return StateVersion(id=version, updated=f"2026-03-02T10:{minute:02}:00Z", is_deleted=True)


@pytest.fixture(params=["memory", "table"])
async def deletions(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[Deletions]:
    if request.param == "memory":
        yield MemoryDeletions()
        return
    azurite: Running = request.getfixturevalue("azurite")
    async with TableServiceClient.from_connection_string(azurite.storage) as tables:
        yield AzureDeletions(await open_table(tables, namespace))


async def test_a_deletion_is_found_by_its_resource_alone(deletions: Deletions) -> None:
    assert await deletions.find(ANNA) is None
    await deletions.record(ANNA, deleted("2", 1))
    assert await deletions.find(ANNA) == deleted("2", 1)
    assert await deletions.find(CLINIC) is None


@pytest.mark.parametrize("is_first", [True, False])
async def test_of_two_deletions_the_later_one_stays(
    deletions: Deletions, *, is_first: bool
) -> None:
    both = [deleted("2", 1), deleted("4", 2)]
    for deletion in reversed(both) if is_first else both:
        await deletions.record(ANNA, deletion)
    assert await deletions.find(ANNA) == deleted("4", 2)


async def test_a_deletion_of_which_nothing_more_is_known_is_recorded(deletions: Deletions) -> None:
    for _ in range(2):
        await deletions.record(ANNA, NEVER_SEEN)
    assert await deletions.find(ANNA) == NEVER_SEEN
    await deletions.record(ANNA, deleted("2", 1))
    assert await deletions.find(ANNA) == deleted("2", 1)


async def test_the_time_of_a_deletion_is_recorded_when_it_is_known(deletions: Deletions) -> None:
    heard = StateVersion(id="2", is_deleted=True)
    for deletion in (heard, deleted("2", 1), heard):
        await deletions.record(ANNA, deletion)
    assert await deletions.find(ANNA) == deleted("2", 1)


async def test_a_deletion_is_forgotten_unless_a_later_one_is_recorded(
    deletions: Deletions,
) -> None:
    await deletions.record(ANNA, deleted("4", 2))
    await deletions.forget(ANNA, deleted("2", 1))
    assert await deletions.find(ANNA) == deleted("4", 2)
    for _ in range(2):
        await deletions.forget(ANNA, deleted("4", 2))
    assert await deletions.find(ANNA) is None
