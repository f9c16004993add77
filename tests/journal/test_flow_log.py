"""What the counts of an hour promise, of their double and of the table alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from azure.data.tables.aio import TableServiceClient

from integration.core.flow import (
    NO_SENDER,
    OTHER_ELEMENTS,
    OTHER_SENDERS,
    FlowCounts,
    HourFlow,
    UnmappedElement,
    count_row,
)
from integration.core.flow_recorder import MAX_ELEMENTS, MAX_NAME, MAX_SENDERS, FlowRecorder
from integration.journal.azure_flow import AzureFlowLog
from integration.journal.flow_log import FlowLog, LiveFlow, MemoryFlowLog
from local.services import Running

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
FULL = HourFlow(
    hour=NOON,
    worker="a1b2",
    senders={
        "lab": FlowCounts(accepted=2, written=5, refused=1, rows_created=3),
        "O'Brien & Söhne": FlowCounts(forbidden=1),
        NO_SENDER: FlowCounts(unproven=7),
        OTHER_SENDERS: FlowCounts(accepted=1),
    },
    unmapped={
        UnmappedElement("Patient", "name.where(use = 'official')", "lastname: too long"): 4,
        OTHER_ELEMENTS: 2,
    },
)


@pytest.fixture(params=["memory", "table"])
async def log(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[FlowLog]:
    if request.param == "memory":
        yield MemoryFlowLog()
        return
    azurite: Running = request.getfixturevalue("azurite")
    async with TableServiceClient.from_connection_string(azurite.storage) as tables:
        yield AzureFlowLog(await tables.create_table_if_not_exists(namespace))


async def listed(log: FlowLog, since: datetime) -> tuple[HourFlow, ...]:
    page = await log.list_flows(since)
    assert not page.is_cut
    return page.flows


def ago(hours: float, worker: str = "a1b2") -> HourFlow:
    return replace(FULL, hour=NOON - hours * HOUR, worker=worker)


async def test_a_log_begins_empty(log: FlowLog) -> None:
    assert await listed(log, NOON - 200 * HOUR) == ()
    await log.save_flows([])
    assert await log.delete_before(NOON, 10) == 0


async def test_counts_are_found_as_they_were_stored(log: FlowLog) -> None:
    await log.save_flows([FULL])
    assert await listed(log, NOON) == (FULL,)


async def test_the_most_that_a_worker_counts_fits_into_its_row(log: FlowLog) -> None:
    name, most = "€\U0001f600" * (MAX_NAME // 2 - 5), FlowCounts(accepted=10**9, written=10**9)
    flow = HourFlow(
        hour=NOON,
        worker="w",
        senders={f"{name}{number}": most for number in range(MAX_SENDERS + 1)},
        unmapped={
            UnmappedElement(
                "MedicationAdministration", f"{number}".rjust(MAX_NAME), "n" * MAX_NAME
            ): 10**9
            for number in range(MAX_ELEMENTS + 1)
        },
    )
    await log.save_flows([flow])
    assert await listed(log, NOON) == (flow,)


async def test_a_worker_replaces_its_own_hour_and_no_other(log: FlowLog) -> None:
    await log.save_flows([FULL, ago(0, "other"), ago(1)])
    newer = replace(FULL, senders={"lab": FlowCounts(accepted=3)}, unmapped={})
    await log.save_flows([newer])
    await log.save_flows([newer])
    found = await listed(log, NOON - HOUR)
    assert len(found) == 3
    assert newer in found
    assert ago(0, "other") in found
    assert ago(1) in found


async def test_hours_are_found_newest_first_from_a_time_on(log: FlowLog) -> None:
    flows = [ago(number) for number in range(60)]  # of four days
    await log.save_flows(flows[::-1])
    assert await listed(log, NOON - 23 * HOUR) == tuple(flows[:24])
    assert await listed(log, NOON - 59 * HOUR) == tuple(flows)
    assert await listed(log, NOON + HOUR) == ()


async def test_whole_days_are_deleted_up_to_a_limit(log: FlowLog) -> None:
    await log.save_flows([ago(number) for number in range(60)])
    before = NOON - 24 * HOUR  # of the day before: 13 hours and 24 hours are younger
    assert await log.delete_before(before, 10) == 10
    assert await log.delete_before(before, 100) == 60 - 13 - 24 - 10
    assert await log.delete_before(before, 100) == 0
    assert len(await listed(log, NOON - 100 * HOUR)) == 13 + 24


async def test_who_is_asked_need_not_wait_for_its_own_next_write(log: FlowLog) -> None:
    recorder = FlowRecorder(
        store=log.save_flows, worker="own", now=lambda: NOON, call_later=lambda *_: None
    )
    recorder.count("lab", count_row("created"))
    await recorder.flush()
    recorder.count("lab", count_row("created"))
    await log.save_flows([FULL])
    live = LiveFlow(log, recorder)
    found = await live.list_flows(NOON)
    counted = {flow.worker: flow.senders["lab"].rows_created for flow in found.flows}
    assert counted == {"own": 2, "a1b2": 3}
    assert (await live.list_flows(NOON + HOUR)).flows == ()
