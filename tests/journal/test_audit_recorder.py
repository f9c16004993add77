"""Nothing is shown that could not be recorded, unless a setting says so, and never silently."""

from __future__ import annotations

import logging

import pytest

from integration.core.errors import Misconfigured, Unavailable
from integration.journal.audit_entry import AccessKind, AuditEntry, Reader, build_access
from integration.journal.audit_log import MemoryAuditLog
from integration.journal.audit_recorder import complete, record
from tests.audits import NOON, FailingAuditLog, make_recorder

READER = Reader(sender="north")
ACCESS = build_access(AccessKind.ROW, ["Patient/p1"], delivery="d")


class Refusing(MemoryAuditLog):
    async def put(self, entry: AuditEntry) -> None:
        raise Misconfigured("storage refused this app's identity")


async def test_an_access_is_recorded_with_who_and_when() -> None:
    log = MemoryAuditLog()
    entry = await record(make_recorder(log), READER, ACCESS)
    assert log.entries == [entry]
    assert entry is not None
    assert (entry.time, entry.reader, entry.access) == (NOON, READER, ACCESS)


async def test_two_at_one_time_are_two_entries() -> None:
    log = MemoryAuditLog()
    recorder = make_recorder(log)
    for _ in range(2):
        await record(recorder, READER, ACCESS)
    assert len(log.entries) == 2


async def test_what_cannot_be_recorded_is_an_error() -> None:
    with pytest.raises(Unavailable):
        await record(make_recorder(FailingAuditLog()), READER, ACCESS)
    with pytest.raises(Misconfigured):
        await record(make_recorder(Refusing()), READER, ACCESS)


async def test_storage_that_does_not_answer_is_given_up_in_time() -> None:
    log = FailingAuditLog(hangs=True)
    with pytest.raises(Unavailable, match=r"not stored within 0\.01 s"):
        await record(make_recorder(log, timeout=0.01), READER, ACCESS)
    assert len(log.tried) == 1


@pytest.mark.parametrize("log", [FailingAuditLog(), Refusing()])
async def test_an_operator_may_prefer_an_answer_and_is_told_of_each_hole(
    log: MemoryAuditLog, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = make_recorder(log, is_required=False)
    assert await record(recorder, READER, ACCESS) is None
    (event,) = [each for each in caplog.records if each.message == "audit.dropped"]
    assert event.levelno == logging.ERROR
    assert (event.kind, event.delivery) == ("row", "d")  # type: ignore[attr-defined]


async def test_nothing_is_recorded_where_it_is_switched_off() -> None:
    log = FailingAuditLog()
    recorder = make_recorder(log, is_on=False)
    assert await record(recorder, READER, ACCESS) is None
    await complete(recorder, None, ACCESS)
    assert log.tried == []


async def test_a_write_that_is_done_is_answered_though_its_entry_stays_unfinished(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = FailingAuditLog(takes=1)
    recorder = make_recorder(log)
    entry = await record(recorder, READER, ACCESS)
    await complete(recorder, entry, ACCESS)
    assert log.entries == [entry]
    (event,) = [each for each in caplog.records if each.message == "audit.incomplete"]
    assert event.levelno == logging.ERROR
    assert event.entry == log.entries[0].id  # type: ignore[attr-defined]
