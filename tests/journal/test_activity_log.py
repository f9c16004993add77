"""What the activity log promises, of its double and of the table alike."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from azure.data.tables.aio import TableServiceClient

from integration.core.model import Activity, Category
from integration.journal.activity_log import ActivityFilter, ActivityLog, MemoryActivityLog
from integration.journal.azure_activity import AzureActivityLog
from integration.journal.table_keys import build_activity_key, parse_activity_time
from local.services import Running

NOON = datetime(2026, 3, 2, 12, 0, 0, 123457, tzinfo=UTC)
DELIVERY = "019a0000-0000-7000-8000-000000000000"
FULL = Activity(
    time=NOON,
    category=Category.WARNING,
    upstream="Dataverse",
    action="mirror",
    status="created",
    delivery=DELIVERY,
    resource="Patient/p1",
    table="contact",
    row="1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11",
    notes=("gendercode: not in the choices @ patient.toml:57", "birthdate: not a whole date"),
    duration=1234,
    operation="8f14e45fceea167a",
)
BARE = Activity(
    time=NOON, category=Category.INFORMATION, upstream="FHIR server", action="read", status="200"
)
EVERYTHING = ActivityFilter()


@pytest.fixture(params=["memory", "table"])
async def log(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[ActivityLog]:
    if request.param == "memory":
        yield MemoryActivityLog()
        return
    azurite: Running = request.getfixturevalue("azurite")
    async with TableServiceClient.from_connection_string(azurite.storage) as tables:
        yield AzureActivityLog(await tables.create_table_if_not_exists(namespace))


def ago(entry: Activity, seconds: float, **changes: Any) -> Activity:
    return replace(entry, time=entry.time - timedelta(seconds=seconds), **changes)


async def found(
    log: ActivityLog, wanted: ActivityFilter = EVERYTHING, top: int = 100
) -> list[Activity]:
    """Page by page, to the end."""
    seen: list[Activity] = []
    after = None
    while True:
        page = await log.list_entries(wanted, top, after)
        assert len(page.entries) <= top
        seen += page.entries
        after = page.after
        if after is None:
            return seen


async def test_a_log_begins_empty(log: ActivityLog) -> None:
    page = await log.list_entries(EVERYTHING, 10, None)
    assert (page.entries, page.after) == ((), None)
    await log.add([])
    assert await found(log) == []


@pytest.mark.parametrize("entry", [FULL, BARE])
async def test_an_entry_is_found_as_it_was_noted(log: ActivityLog, entry: Activity) -> None:
    await log.add([entry])
    assert await found(log) == [entry]


async def test_entries_are_found_newest_first_whoever_noted_them_when(log: ActivityLog) -> None:
    made = [ago(BARE, 40_000 * n, row=str(n)) for n in range(6)]  # of three days
    await log.add([made[4], made[1], made[0]])
    await log.add([made[5], made[2]])
    await log.add([made[3]])
    assert await found(log) == made


async def test_of_entries_of_one_moment_the_last_is_found_first(log: ActivityLog) -> None:
    made = [replace(BARE, row=str(n)) for n in range(5)]
    await log.add(made)
    assert await found(log) == made[::-1]


async def test_the_same_twice_is_two_entries(log: ActivityLog) -> None:
    await log.add([BARE, BARE])
    await log.add([BARE])
    assert await found(log) == [BARE] * 3


async def test_more_than_a_transaction_takes_is_noted_whole(log: ActivityLog) -> None:
    made = [ago(BARE, 700 * n, row=str(n)) for n in range(250)]  # of three days
    await log.add(made)
    assert await found(log) == made


@pytest.mark.parametrize("top", [1, 2, 3, 5, 6])
async def test_pages_follow_each_other_without_gap_or_repeat(log: ActivityLog, top: int) -> None:
    made = [ago(BARE, 20_000 * n, status="200" if n % 2 else "500") for n in range(10)]
    await log.add(made)
    assert await found(log, top=top) == made
    errors = [each for each in made if each.status == "500"]
    assert await found(log, ActivityFilter(status="500"), top) == errors


async def test_what_is_noted_while_somebody_reads_moves_no_page(log: ActivityLog) -> None:
    made = [ago(BARE, n, row=str(n)) for n in range(4)]
    await log.add(made)
    first = await log.list_entries(EVERYTHING, 2, None)
    await log.add([ago(BARE, -5)])
    second = await log.list_entries(EVERYTHING, 2, first.after)
    assert [*first.entries, *second.entries] == made


OTHER = replace(
    BARE,
    resource="Patience/p1",
    delivery="d",
    table="account",
    row="r",
    action="read again",
    duration=1233,
    operation="8f14e45fceea167b",
)


@pytest.mark.parametrize(
    "wanted",
    [
        ActivityFilter(category=Category.WARNING),
        ActivityFilter(upstream="Dataverse"),
        ActivityFilter(delivery=DELIVERY),
        ActivityFilter(resource="Patient/p1"),
        ActivityFilter(resource="Patient"),
        ActivityFilter(table="contact"),
        ActivityFilter(row=FULL.row),
        ActivityFilter(action="mirror"),
        ActivityFilter(action="mir"),
        ActivityFilter(status="created"),
        ActivityFilter(duration=1234),
        ActivityFilter(operation=FULL.operation),
        ActivityFilter(
            since=NOON,
            until=NOON,
            category=Category.WARNING,
            upstream="Dataverse",
            delivery=DELIVERY,
            resource="Patient",
            table="contact",
        ),
    ],
)
async def test_entries_are_found_by_each_of_their_fields(
    log: ActivityLog, wanted: ActivityFilter
) -> None:
    await log.add([OTHER, FULL, BARE, OTHER])
    assert await found(log, wanted) == [FULL]


async def test_health_calls_can_be_left_out(log: ActivityLog) -> None:
    await log.add([replace(FULL, action="health"), FULL, replace(FULL, action="health check")])
    shown = await found(log, ActivityFilter(hides_health=True))
    assert [entry.action for entry in shown] == ["health check", "mirror"]


@pytest.mark.parametrize(
    "wanted",
    [
        ActivityFilter(category=Category.ERROR),
        ActivityFilter(resource="Patient/p"),
        ActivityFilter(resource="Patient/"),
        ActivityFilter(resource="Pat"),
        ActivityFilter(action="irror"),
        ActivityFilter(status="create"),
        ActivityFilter(duration=1235),
        ActivityFilter(table="contact", status="200"),
        ActivityFilter(delivery="' or delivery ge '"),
        ActivityFilter(row="o'clock"),
    ],
)
async def test_what_does_not_match_is_not_found(log: ActivityLog, wanted: ActivityFilter) -> None:
    await log.add([FULL, BARE])
    assert await found(log, wanted) == []


async def test_entries_are_found_by_time_with_both_ends(log: ActivityLog) -> None:
    made = [ago(BARE, 30_000 * n, row=str(n)) for n in range(6)]
    tick = timedelta(microseconds=1)
    await log.add(made)
    for first in range(6):
        for last in range(first, 6):
            until, since = made[first].time, made[last].time
            assert (
                await found(log, ActivityFilter(since=since, until=until)) == made[first : last + 1]
            )
            assert (
                await found(log, ActivityFilter(since=since + tick, until=until))
                == made[first:last]
            )
            assert (
                await found(log, ActivityFilter(since=since, until=until - tick))
                == made[first + 1 : last + 1]
            )
    there = NOON.astimezone(timezone(timedelta(hours=14)))
    assert await found(log, ActivityFilter(since=there)) == made[:1]


@pytest.mark.parametrize(
    "after",
    ["", "x", "%%%", "é", *(base64.b64encode(b).decode() for b in (b"", b"\xff", b"[1]", b"{}"))],
)
async def test_no_page_goes_on_where_none_has_ended(log: ActivityLog, after: str) -> None:
    await log.add([BARE])
    with pytest.raises(ValueError):  # noqa: PT011 - whatever finds it out
        await log.list_entries(EVERYTHING, 1, after)


async def test_what_is_forgotten_are_whole_days_and_no_more_than_was_asked(
    log: ActivityLog,
) -> None:
    made = [ago(BARE, 8 * 3600 * n, row=str(n)) for n in range(9)]  # 2, 3, 3 and 1 of a day
    await log.add(made)
    assert await log.delete_before(NOON - timedelta(days=1), 2) == 2
    assert len(await found(log)) == 7
    assert await log.delete_before(NOON - timedelta(days=1), 100) == 2
    assert await found(log) == made[:5]
    assert await log.delete_before(NOON - timedelta(days=1), 100) == 0
    assert await log.delete_before(NOON + timedelta(days=1), 100) == 5
    assert await found(log) == []


async def test_more_is_forgotten_than_a_transaction_takes(log: ActivityLog) -> None:
    await log.add([ago(BARE, n, row=str(n)) for n in range(250)])
    assert await log.delete_before(NOON + timedelta(days=2), 10_000) == 250
    assert await found(log) == []


async def test_as_many_notes_are_kept_as_there_is_room_for(log: ActivityLog) -> None:
    """And a transaction of a hundred such entries is not too large."""
    notes = tuple(
        f"msemr_medicalidentifier.msemr_value_{n}: längst zu lang 患者" for n in range(999)
    )
    await log.add([ago(FULL, n, notes=notes) for n in range(100)])
    for entry in await found(log):
        if entry.notes != notes:
            *kept, last = entry.notes
            assert tuple(kept) == notes[: len(kept)]
            assert last == f"and {999 - len(kept)} more"
            assert len(kept) > 50


def test_a_key_tells_the_moment_and_sorts_the_newest_first() -> None:
    moments = [NOON + timedelta(microseconds=n) for n in (-86_400_000_000, -1, 0, 1, 10**12)]
    keys = [build_activity_key(moment, 0, "token") for moment in moments]
    assert sorted(keys, reverse=True) == keys
    assert [parse_activity_time(row) for _, row in keys] == moments
