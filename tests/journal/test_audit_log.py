"""What the audit log promises, of its double and of the table alike."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from azure.data.tables.aio import TableServiceClient

from integration.journal.audit_entry import (
    MAX_NAMED,
    Access,
    AccessAction,
    AccessKind,
    AuditEntry,
    Reader,
    build_access,
)
from integration.journal.audit_log import AuditFilter, AuditLog, MemoryAuditLog
from integration.journal.azure_audit import AzureAuditLog
from integration.journal.table_keys import build_audit_id, is_audit_id
from local.services import Running
from tests.audits import NOON

DELIVERY = "019a0000-0000-7000-8000-000000000000"
NORTH = Reader(sender="north", principal="CN=north", key="north-key", user="nurse@ward.example")


def made(token: int, seconds: float = 0, **access: Any) -> AuditEntry:
    """An entry, so many seconds before noon."""
    time = NOON - timedelta(seconds=seconds)
    fields = {"kind": AccessKind.ROWS, **access}
    reader = fields.pop("reader", Reader())
    id_ = build_audit_id(time, f"{token:08x}")
    return AuditEntry(id=id_, time=time, reader=reader, access=Access(**fields))


FULL = made(
    1,
    reader=NORTH,
    kind=AccessKind.DELIVERY_ANSWER,
    action=AccessAction.READ,
    status=200,
    types=("Observation", "Patient"),
    resources=("Patient/p1", "Observation/o1"),
    number=2,
    delivery=DELIVERY,
)
BARE = made(2, status=None)
SINGLE = made(3, types=("Patient",), resources=("Patient/p1",), number=1)
OTHER = made(
    4,
    reader=Reader(sender="south", user="doctor"),
    kind=AccessKind.ROW,
    action=AccessAction.UPDATE,
    types=("Patience",),
    resources=("Patience/p1",),
    number=1,
    delivery="d",
)
EVERYTHING = AuditFilter()


@pytest.fixture(params=["memory", "table"])
async def log(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[AuditLog]:
    if request.param == "memory":
        yield MemoryAuditLog()
        return
    azurite: Running = request.getfixturevalue("azurite")
    async with TableServiceClient.from_connection_string(azurite.storage) as tables:
        yield AzureAuditLog(await tables.create_table_if_not_exists(namespace))


async def put(log: AuditLog, *entries: AuditEntry) -> None:
    for entry in entries:
        await log.put(entry)


async def found(
    log: AuditLog, wanted: AuditFilter = EVERYTHING, top: int = 100
) -> list[AuditEntry]:
    """Page by page, to the end."""
    seen: list[AuditEntry] = []
    after = None
    while True:
        page = await log.list_entries(wanted, top, after)
        assert len(page.entries) <= top
        seen += page.entries
        after = page.after
        if after is None:
            return seen


async def test_a_log_begins_empty(log: AuditLog) -> None:
    page = await log.list_entries(EVERYTHING, 10, None)
    assert (page.entries, page.after) == ((), None)


@pytest.mark.parametrize("entry", [FULL, BARE, SINGLE, OTHER])
async def test_an_entry_is_found_as_it_was_recorded(log: AuditLog, entry: AuditEntry) -> None:
    await log.put(entry)
    assert await found(log) == [entry]


async def test_an_entry_is_written_over_by_its_id(log: AuditLog) -> None:
    done = replace(BARE, access=SINGLE.access)
    await put(log, BARE, done, done)
    assert await found(log) == [done]


async def test_entries_are_found_newest_first_whoever_wrote_them_when(log: AuditLog) -> None:
    entries = [made(n, 40_000 * n) for n in range(6)]  # of three days
    await put(log, *(entries[n] for n in (4, 1, 0, 5, 2, 3)))
    assert await found(log) == entries


@pytest.mark.parametrize("top", [1, 2, 3, 5, 6])
@pytest.mark.parametrize(
    "wanted", [EVERYTHING, AuditFilter(resource="Patient"), AuditFilter(resource="Patient/p1")]
)
async def test_pages_follow_each_other_without_gap_or_repeat(
    log: AuditLog, top: int, wanted: AuditFilter
) -> None:
    entries = [
        replace(
            made(n, 20_000 * n),
            access=build_access(
                AccessKind.ROWS, [f"Patient/p{n % 2}", f"Goal/g{n}"] if n % 3 else ["Patient/p1"]
            ),
        )
        for n in range(10)
    ]
    await put(log, *entries)
    expected = [
        entry
        for entry in entries
        if wanted.resource in (None, "Patient") or "Patient/p1" in entry.access.resources
    ]
    assert await found(log, wanted, top) == expected


async def test_what_is_recorded_while_somebody_reads_moves_no_page(log: AuditLog) -> None:
    entries = [made(n, n) for n in range(4)]
    await put(log, *entries)
    first = await log.list_entries(EVERYTHING, 2, None)
    await log.put(made(9, -5))
    second = await log.list_entries(EVERYTHING, 2, first.after)
    assert [*first.entries, *second.entries] == entries


@pytest.mark.parametrize(
    "wanted",
    [
        AuditFilter(sender="north"),
        AuditFilter(user="nurse@ward.example"),
        AuditFilter(delivery=DELIVERY),
        AuditFilter(kind=AccessKind.DELIVERY_ANSWER),
        AuditFilter(resource="Observation/o1"),
        AuditFilter(resource="Observation"),
        AuditFilter(
            since=NOON,
            until=NOON,
            sender="north",
            user="nurse@ward.example",
            delivery=DELIVERY,
            kind=AccessKind.DELIVERY_ANSWER,
            resource="Patient/p1",
        ),
    ],
)
async def test_entries_are_found_by_each_of_their_fields(
    log: AuditLog, wanted: AuditFilter
) -> None:
    await put(log, OTHER, FULL, BARE, SINGLE)
    assert await found(log, wanted) == [FULL]


async def test_a_resource_is_found_alone_and_among_others(log: AuditLog) -> None:
    await put(log, OTHER, FULL, BARE, SINGLE)
    for resource in ("Patient", "Patient/p1"):
        assert {entry.id for entry in await found(log, AuditFilter(resource=resource))} == {
            FULL.id,
            SINGLE.id,
        }


@pytest.mark.parametrize(
    "wanted",
    [
        AuditFilter(kind=AccessKind.CONTENT),
        AuditFilter(resource="Patient/p"),
        AuditFilter(resource="Patient/"),
        AuditFilter(resource="Pat"),
        AuditFilter(resource="*"),
        AuditFilter(resource="Patient/p1 Observation/o1"),
        AuditFilter(sender="nor"),
        AuditFilter(sender="north", user="doctor"),
        AuditFilter(delivery="' or delivery ge '"),
        AuditFilter(user="o'clock"),
    ],
)
async def test_what_does_not_match_is_not_found(log: AuditLog, wanted: AuditFilter) -> None:
    await put(log, OTHER, FULL, BARE, SINGLE)
    assert await found(log, wanted) == []


async def test_entries_are_found_by_time_with_both_ends(log: AuditLog) -> None:
    entries = [made(n, 30_000 * n) for n in range(5)]
    tick = timedelta(microseconds=1)
    await put(log, *entries)
    for first in range(5):
        for last in range(first, 5):
            until, since = entries[first].time, entries[last].time
            assert (
                await found(log, AuditFilter(since=since, until=until))
                == (entries[first : last + 1])
            )
            assert (
                await found(log, AuditFilter(since=since + tick, until=until))
                == (entries[first:last])
            )
            assert (
                await found(log, AuditFilter(since=since, until=until - tick), top=1)
                == (entries[first + 1 : last + 1])
            )


def position(text: bytes) -> str:
    return base64.b64encode(text).decode()


@pytest.mark.parametrize(
    "after",
    [
        *("", "x", "%%%", "é"),
        *map(position, (b"", b"\xff", b"[1]", b"{}", b'{"last":1}', b'{"last":"x\' or"}')),
    ],
)
async def test_no_page_goes_on_where_none_has_ended(log: AuditLog, after: str) -> None:
    await log.put(BARE)
    with pytest.raises(ValueError):  # noqa: PT011 - whatever finds it out
        await log.list_entries(EVERYTHING, 1, after)


async def test_what_is_deleted_are_whole_days_and_no_more_than_was_asked(log: AuditLog) -> None:
    entries = [made(n, 8 * 3600 * n) for n in range(9)]  # 2, 3, 3 and 1 of a day
    await put(log, *entries)
    assert await log.delete_before(NOON - timedelta(days=1), 2) == 2
    assert len(await found(log)) == 7
    assert await log.delete_before(NOON - timedelta(days=1), 100) == 2
    assert await found(log) == entries[:5]
    assert await log.delete_before(NOON - timedelta(days=1), 100) == 0
    assert await log.delete_before(NOON + timedelta(days=1), 100) == 5
    assert await found(log) == []


def test_an_access_names_twenty_resources_and_counts_all() -> None:
    names = [f"Goal/g{n}" for n in range(250)]
    access = build_access(AccessKind.ROWS, names)
    assert access.resources == tuple(names[:MAX_NAMED])
    assert (access.number, access.types) == (250, ("Goal",))


def test_an_access_to_nothing_says_what_was_asked_for() -> None:
    access = build_access(AccessKind.ROWS, [], type_="Goal")
    assert (access.types, access.resources, access.number) == (("Goal",), (), 0)


def test_what_has_no_id_yet_is_counted_with_its_type() -> None:
    access = build_access(AccessKind.DRY_RUN, ["Patient", "Goal/g1", "Goal/g1"])
    assert access.types == ("Goal", "Patient")
    assert (access.resources, access.number) == (("Goal/g1",), 3)


def test_an_id_sorts_the_newest_first() -> None:
    moments = [NOON + timedelta(microseconds=n) for n in (-86_400_000_000, -1, 0, 1, 10**12)]
    ids = [build_audit_id(moment, "0") for moment in moments]
    assert sorted(ids, reverse=True) == ids
    assert all(is_audit_id(id_) for id_ in ids)
    assert not is_audit_id(f"{ids[0]}'")


async def test_the_row_of_a_full_entry_is_small(azurite: Running, namespace: str) -> None:
    """docs/operations.md says how much it takes."""
    long_names = [f"MedicationAdministration/{n:036}" for n in range(1000)]
    entry = replace(FULL, access=build_access(AccessKind.ROWS, long_names))
    async with TableServiceClient.from_connection_string(azurite.storage) as tables:
        table = await tables.create_table_if_not_exists(namespace)
        await AzureAuditLog(table).put(entry)
        (row,) = [each async for each in table.list_entities()]
    # UTF-16, with the names of the columns.
    assert sum(2 * len(str(value)) + len(name) for name, value in row.items()) < 4000
