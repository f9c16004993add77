"""Whoever reads or writes rows of the feed is recorded, and gets nothing where that fails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from integration.core import decimal_json
from integration.core.errors import Rejected, Unavailable
from integration.journal.audit_entry import AccessAction, AccessKind, AuditEntry, Reader
from integration.journal.audit_log import MemoryAuditLog
from tests.audits import FailingAuditLog, make_recorder
from tests.builders import MARKER, observation
from tests.virtual_tables.conftest import Feed

KEY = "7b1f0000-0000-4000-8000-000000000001"
READER = Reader(user="nurse")
SET = "msemr_observations"


@pytest.fixture
def log(feed: Feed) -> MemoryAuditLog:
    return recording(feed, MemoryAuditLog())


def recording(feed: Feed, log: Any, **changes: Any) -> Any:
    feed.tables = replace(feed.tables, audit=make_recorder(log, **changes))
    feed.reader = READER
    return log


def about(log: MemoryAuditLog) -> tuple[Any, ...]:
    """What the newest entry says."""
    entry: AuditEntry = log.entries[-1]
    assert entry.reader == READER
    assert MARKER not in repr(entry)
    access = entry.access
    return access.kind, access.action, access.status, access.types, access.resources, access.number


async def test_each_read_of_rows_is_one_entry(feed: Feed, log: MemoryAuditLog) -> None:
    await feed.put(observation("Patient/p1", id=KEY))
    name, type_ = f"Observation/{KEY}", ("Observation",)
    await feed.get(f"{SET}({KEY})")
    assert about(log) == (AccessKind.ROW, AccessAction.READ, 200, type_, (name,), 1)
    await feed.get(SET)
    assert about(log) == (AccessKind.ROWS, AccessAction.READ, 200, type_, (name,), 1)
    await feed.get(SET, f"$filter=msemr_codetext eq '{MARKER} no more'")
    assert about(log) == (AccessKind.ROWS, AccessAction.READ, 200, type_, (), 0)
    await feed.ask("GET", f"{SET}/$count")
    assert about(log) == (AccessKind.COUNT, AccessAction.READ, 200, type_, (), 0)
    await feed.ask("GET", f"{SET}({KEY})", if_none_match='W/"1"')
    assert about(log) == (AccessKind.ROW, AccessAction.READ, 304, type_, (name,), 1)
    assert len(log.entries) == 5


async def test_each_page_is_an_entry_with_the_rows_that_it_shows(
    feed: Feed, log: MemoryAuditLog
) -> None:
    await feed.put(*(observation("Patient/p1", id=f"o{n}") for n in range(5)))
    await feed.every(SET, prefer="odata.maxpagesize=2")
    shown = [entry.access.resources for entry in log.entries]
    assert [len(names) for names in shown] == [2, 2, 1]
    assert {name for names in shown for name in names} == {f"Observation/o{n}" for n in range(5)}


async def test_what_is_not_there_is_recorded_with_its_status(
    feed: Feed, log: MemoryAuditLog
) -> None:
    with pytest.raises(Rejected):
        await feed.ask("GET", f"{SET}({KEY})")
    assert about(log) == (AccessKind.ROW, AccessAction.READ, 404, ("Observation",), (), 0)


@pytest.mark.parametrize("path", ["", "$metadata"])
async def test_what_the_feed_says_of_itself_is_nobody_s_data(
    feed: Feed, log: MemoryAuditLog, path: str
) -> None:
    assert (await feed.ask("GET", path)).status == 200
    assert log.entries == []


async def test_writes_are_one_entry_each_with_what_became_of_them(
    feed: Feed, log: MemoryAuditLog
) -> None:
    await feed.put(observation("Patient/p1", id=KEY))
    name, type_ = f"Observation/{KEY}", ("Observation",)
    await feed.ask("PATCH", f"{SET}({KEY})", body={"msemr_codetext": f"{MARKER} 2"})
    assert about(log) == (AccessKind.ROW, AccessAction.UPDATE, 204, type_, (name,), 1)
    await feed.ask("DELETE", f"{SET}({KEY})")
    assert about(log) == (AccessKind.ROW, AccessAction.DELETE, 204, type_, (name,), 1)
    with pytest.raises(Rejected):
        await feed.ask("DELETE", f"{SET}({KEY})")
    assert about(log) == (AccessKind.ROW, AccessAction.DELETE, 404, type_, (), 0)
    assert len(log.entries) == 3


async def test_a_read_that_cannot_be_recorded_is_not_answered(feed: Feed) -> None:
    await feed.put(observation("Patient/p1", id=KEY))
    log = recording(feed, FailingAuditLog())
    for path in (SET, f"{SET}({KEY})", f"{SET}/$count"):
        with pytest.raises(Unavailable):
            await feed.ask("GET", path)
    assert len(log.tried) == 3


async def test_a_write_that_cannot_be_recorded_is_not_begun(feed: Feed) -> None:
    await feed.put(observation("Patient/p1", id=KEY))
    recording(feed, FailingAuditLog())
    with pytest.raises(Unavailable):
        await feed.ask("PATCH", f"{SET}({KEY})", body={"msemr_codetext": "new"})
    assert (await feed.stored(f"Observation/{KEY}"))["meta"]["versionId"] == "1"


async def test_a_write_that_is_done_is_answered_and_stays_recorded_as_begun(feed: Feed) -> None:
    await feed.put(observation("Patient/p1", id=KEY))
    log = recording(feed, FailingAuditLog(takes=1))
    answer = await feed.ask("PATCH", f"{SET}({KEY})", body={"msemr_codetext": "new"})
    assert answer.status == 204
    assert about(log) == (AccessKind.ROW, AccessAction.UPDATE, None, ("Observation",), (), 0)


async def test_an_operator_may_prefer_an_answer(feed: Feed) -> None:
    await feed.put(observation("Patient/p1", id=KEY))
    recording(feed, FailingAuditLog(), is_required=False)
    answer = await feed.ask("GET", f"{SET}({KEY})")
    assert decimal_json.decode(answer.body)["msemr_observationid"] == KEY
