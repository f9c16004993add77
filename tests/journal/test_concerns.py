"""What is promised of the list of what needs attention, in memory and in a table alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from azure.data.tables.aio import TableServiceClient
from azure.storage.blob.aio import BlobServiceClient

from integration.core.model import Delivery, DeliveryRequest, EntryResult, Status
from integration.journal.attention import ConcernFilter
from integration.journal.azure_row_keys import AzureRowKeys
from integration.journal.azure_store import AzureJournal
from integration.journal.concern import (
    MAX_POSITIONS,
    MAX_REASON_LENGTH,
    Concern,
    ConcernKind,
    build_concern_id,
    build_delivery_concern,
    build_entries_concern,
)
from integration.journal.concerns import change_with_concern, park_open
from integration.journal.row_keys import MemoryRowKeys, RowKeys
from integration.journal.store import Journal, MemoryJournal, Payload
from integration.journal.table_keys import make_delivery_id
from local.services import Running
from tests.builders import MARKER

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
USES = ("deliveries", "open", "attention", "keys", "rows", "subs")
Kept = tuple[Journal, RowKeys]


@pytest.fixture(params=["memory", "table"])
async def kept(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[Kept]:
    if request.param == "memory":
        yield MemoryJournal(), MemoryRowKeys()
        return
    azurite: Running = request.getfixturevalue("azurite")
    async with (
        BlobServiceClient.from_connection_string(azurite.storage) as blobs,
        TableServiceClient.from_connection_string(azurite.storage) as tables,
    ):
        opened = [await tables.create_table(f"{namespace}{use}") for use in (*USES, "rowkeys")]
        container = blobs.get_container_client(namespace)
        yield AzureJournal(container, *opened[:-1]), AzureRowKeys(opened[-1])


@pytest.fixture(params=["memory", "azurite"])
async def journal(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[Journal]:
    if request.param == "memory":
        yield MemoryJournal()
        return
    azurite: Running = request.getfixturevalue("azurite")
    async with (
        BlobServiceClient.from_connection_string(azurite.storage) as blobs,
        TableServiceClient.from_connection_string(azurite.storage) as tables,
    ):
        opened = [await tables.create_table(f"{namespace}{use}") for use in USES]
        yield AzureJournal(await blobs.create_container(namespace), *opened)


def make(hours: float, kind: ConcernKind = ConcernKind.PARKED, sender: str = "north") -> Concern:
    """Return the concern of a delivery, so many hours before noon."""
    since = NOON - timedelta(hours=hours)
    return build_delivery_concern(kind, f"d{hours}", sender, since, reason="the cause", lane=3)


def make_row(hours: float, resource: str) -> Concern:
    """Return the concern of a row."""
    since = NOON - timedelta(hours=hours)
    return Concern(
        id=build_concern_id(since, resource),
        since=since,
        kind=ConcernKind.ROW_REFUSED,
        delivery="d",
        sender="north",
        reason="answered 400",
        resource=resource,
        table="contact",
    )


async def test_a_concern_comes_back_as_it_was_written(kept: Kept) -> None:
    journal, _ = kept
    refused = [EntryResult(n, 422, issues=[{"code": "invalid"}]) for n in (4, 7)]
    entries = build_entries_concern("d", "north", NOON, refused)
    row = replace(make_row(2, "Patient/p1"), attempts=3, next_attempt=NOON)
    for concern in (entries, make(1), row):
        await journal.put_concern(concern)
        await journal.put_concern(concern)
    page = await journal.list_concerns(ConcernFilter(), 10, None)
    assert page.concerns == (entries, make(1), row)
    assert page.after is None


async def test_the_newest_come_first_page_by_page(kept: Kept) -> None:
    journal, _ = kept
    for hours in (30, 1, 50, 2, 25):
        await journal.put_concern(make(hours))
    found, after, pages = list[str](), None, 0
    while True:
        page = await journal.list_concerns(ConcernFilter(), 2, after)
        found += [concern.delivery for concern in page.concerns]
        after, pages = page.after, pages + 1
        if after is None:
            break
    assert found == ["d1", "d2", "d25", "d30", "d50"]
    assert pages == 3
    with pytest.raises(ValueError, match=r"."):
        await journal.list_concerns(ConcernFilter(), 2, "no page")


@pytest.mark.parametrize(
    ("criteria", "found"),
    [
        (ConcernFilter(sender="south"), ["d2"]),
        (ConcernFilter(kinds=frozenset({ConcernKind.PARKED})), ["d1", "d2"]),
        (ConcernFilter(resource="Patient/p1"), ["d"]),
        (ConcernFilter(reason="answered 400"), ["d"]),
        (ConcernFilter(reason="answered 40"), []),
        (ConcernFilter(since=NOON - timedelta(hours=26)), ["d1", "d2", "d25"]),
        (ConcernFilter(until=NOON - timedelta(hours=25)), ["d25", "d"]),
        (ConcernFilter(sender="south", resource="Patient/p1"), []),
    ],
)
async def test_a_list_can_be_narrowed(
    kept: Kept, criteria: ConcernFilter, found: list[str]
) -> None:
    journal, _ = kept
    await journal.put_concern(make(1))
    await journal.put_concern(make(2, sender="south"))
    await journal.put_concern(make(25, ConcernKind.HELD))
    await journal.put_concern(make_row(27, "Patient/p1"))
    page = await journal.list_concerns(criteria, 10, None)
    assert [concern.delivery for concern in page.concerns] == found


async def test_a_concern_is_deleted_once_and_twice(kept: Kept) -> None:
    journal, _ = kept
    await journal.put_concern(make(1))
    await journal.delete_concern(make(1).id)
    await journal.delete_concern(make(1).id)
    assert (await journal.list_concerns(ConcernFilter(), 10, None)).concerns == ()


def test_a_reason_is_short_and_quotes_no_text_of_a_fhir_server() -> None:
    issue = {"code": "invalid", "diagnostics": f"no {MARKER}", "details": {"text": MARKER}}
    odd = {"code": f"{MARKER}: 1"}
    refused = [EntryResult(n, 422, issues=[issue, odd]) for n in range(100)]
    concern = build_entries_concern("d", "north", NOON, refused)
    assert (concern.reason, concern.number) == ("422 invalid", 100)
    assert concern.positions == tuple(range(MAX_POSITIONS))
    long = build_delivery_concern(ConcernKind.PARKED, "d", "n", NOON, reason="x" * 9000)
    assert len(long.reason) == MAX_REASON_LENGTH


async def test_the_record_of_a_row_names_its_concern_beside_its_key(kept: Kept) -> None:
    _, row_keys = kept
    await row_keys.name_concern("Patient", "p1", "c1")
    assert await row_keys.find_keys("Patient", ["p1"]) == {}
    await row_keys.add("Patient", {"p1": "key", "p2": "other"})
    recorded = await row_keys.read("Patient", "p1")
    assert (recorded.key, recorded.concern) == ("key", "c1")
    assert await row_keys.unname_concern("Patient", "p1", recorded)
    recorded = await row_keys.read("Patient", "p1")
    assert (recorded.key, recorded.concern) == ("key", None)
    nothing = await row_keys.read("Patient", "p9")
    assert (nothing.key, nothing.concern) == (None, None)


@pytest.mark.parametrize("again", ["c1", "c2"])
async def test_a_concern_that_was_named_again_meanwhile_stays_named(kept: Kept, again: str) -> None:
    _, row_keys = kept
    await row_keys.name_concern("Patient", "p1", "c1")
    seen = await row_keys.read("Patient", "p1")
    await row_keys.name_concern("Patient", "p1", again)
    assert not await row_keys.unname_concern("Patient", "p1", seen)
    current = await row_keys.read("Patient", "p1")
    assert current.concern == again
    assert await row_keys.unname_concern("Patient", "p1", current)
    assert (await row_keys.read("Patient", "p1")).concern is None


async def test_many_concerns_are_deleted_though_some_are_gone(kept: Kept) -> None:
    journal, _ = kept
    several = [make(hours) for hours in (1, 2, 30)]
    for concern in several:
        await journal.put_concern(concern)
    await journal.delete_concern(several[0].id)
    await journal.delete_concerns([concern.id for concern in several])
    await journal.delete_concerns([])
    assert (await journal.list_concerns(ConcernFilter(), 10, None)).concerns == ()


# -- a delivery and its concern -------------------------------------------------------------------


def make_delivery() -> Delivery:
    """Return a delivery that a worker is processing."""
    return Delivery(
        id=make_delivery_id(NOON, 1),
        sender="north",
        key="k",
        digest="d",
        accepted=NOON,
        status=Status.PROCESSING,
        kind="batch",
        entries=1,
        bytes=2,
    )


async def list_all(journal: Journal) -> list[ConcernKind]:
    page = await journal.list_concerns(ConcernFilter(), 10, None)
    return [concern.kind for concern in page.concerns]


async def test_a_delivery_that_was_parked_meanwhile_ends_without_a_line(
    journal: Journal,
) -> None:
    """Its message failed repeatedly while a slow worker still had it. What the worker has seen of
    the delivery names no concern, and still the line goes."""
    await journal.add_delivery(make_delivery(), Payload(DeliveryRequest("POST"), b"{}"))
    seen = await journal.get_delivery(make_delivery().id)
    assert seen is not None
    assert await park_open(journal, seen, "it failed repeatedly", NOON)
    assert await list_all(journal) == [ConcernKind.PARKED]
    is_done = await change_with_concern(
        journal,
        seen,
        None,
        only_if=frozenset({Status.PROCESSING, Status.PARKED}),
        status=Status.DONE,
    )
    assert is_done
    assert await list_all(journal) == []
    ended = await journal.get_delivery(seen.id)
    assert ended is not None
    assert (ended.status, ended.attention) == (Status.DONE, "")


async def test_a_delivery_that_has_ended_meanwhile_gets_no_line(journal: Journal) -> None:
    await journal.add_delivery(make_delivery(), Payload(DeliveryRequest("POST"), b"{}"))
    seen = await journal.get_delivery(make_delivery().id)
    assert seen is not None
    await journal.update_delivery(seen.id, status=Status.DONE)
    assert not await park_open(journal, seen, "it failed repeatedly", NOON)
    assert await list_all(journal) == []
