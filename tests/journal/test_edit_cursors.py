"""What is promised of the record of how far edits were followed, of the double and the table alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from azure.data.tables.aio import TableClient, TableServiceClient

from integration.core.errors import Unavailable
from integration.journal.azure_edit_cursors import AzureEditCursors
from integration.journal.edit_cursors import EditCursor, EditCursors, MemoryEditCursors, Stage
from local.services import Running

LINK = "api/data/v9.2/contacts?$select=contactid&$deltatoken=919042%2108%2F22%2F2017"


@pytest.fixture
async def table(azurite: Running, namespace: str) -> AsyncIterator[TableClient]:
    async with TableServiceClient.from_connection_string(azurite.storage) as tables:
        yield await tables.create_table_if_not_exists(namespace)


@pytest.fixture(params=["memory", pytest.param("table", marks=pytest.mark.azurite)])
def cursors(request: pytest.FixtureRequest) -> EditCursors:
    if request.param == "memory":
        return MemoryEditCursors()
    return AzureEditCursors(request.getfixturevalue("table"))


async def test_a_table_that_was_never_followed_begins_at_the_beginning(
    cursors: EditCursors,
) -> None:
    assert await cursors.read("contact") == EditCursor(table="contact", stage=Stage.COMPARING)


async def test_what_is_kept_is_read_again(cursors: EditCursors) -> None:
    first = await cursors.read("contact")
    kept = replace(first, link=LINK, stage=Stage.FOLLOWING, columns="a,b")
    assert await cursors.save(kept) == kept
    assert await cursors.read("contact") == kept
    assert (await cursors.read("account")).link == ""


async def test_of_two_who_begin_one_goes_on(cursors: EditCursors) -> None:
    first, second = await cursors.read("contact"), await cursors.read("contact")
    assert await cursors.save(replace(first, link="first")) is not None
    assert await cursors.save(replace(second, link="second")) is None
    assert (await cursors.read("contact")).link == "first"


async def test_of_two_who_go_on_one_does(cursors: EditCursors) -> None:
    saved = await cursors.save(replace(await cursors.read("contact"), link="a"))
    assert saved is not None
    again = await cursors.save(replace(saved, link="b"))
    assert again is not None
    assert await cursors.save(replace(saved, link="c")) is None
    assert await cursors.save(replace(again, link="d")) is not None
    assert (await cursors.read("contact")).link == "d"


@pytest.mark.azurite
async def test_a_lost_table_is_told(table: TableClient) -> None:
    cursors = AzureEditCursors(table)
    await table.delete_table()
    with pytest.raises(Unavailable):
        await cursors.save(EditCursor(table="contact"))
