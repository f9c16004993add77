"""A worker counts what passes, and stores its counts of an hour at most once a minute."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from integration.core.errors import Unavailable
from integration.core.flow import (
    NO_SENDER,
    OTHER_ELEMENTS,
    OTHER_SENDERS,
    FlowCounts,
    HourFlow,
    UnmappedElement,
    count_refusal,
    count_row,
    find_hour,
)
from integration.core.flow_recorder import INTERVAL, MAX_ELEMENTS, MAX_SENDERS, FlowRecorder

# Two minutes before an hour ends.
START = datetime(2026, 3, 2, 11, 58, tzinfo=UTC)
HOUR = find_hour(START)
NEXT = HOUR + timedelta(hours=1)
ONE = FlowCounts(accepted=1)


class Worker:
    """A recorder, what it has stored, and a clock that goes when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.skew = timedelta()
        self.writes: list[tuple[float, Sequence[HourFlow]]] = []
        self.trouble: Exception | None = None
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.recorder = FlowRecorder(
            store=self.store,
            worker="w",
            now=lambda: START + self.skew + timedelta(seconds=self.seconds),
            clock=lambda: self.seconds,
            call_later=lambda delay, act: self.timers.append((self.seconds + delay, act)),
        )

    async def store(self, flows: Sequence[HourFlow]) -> None:
        await asyncio.sleep(0)
        self.writes.append((self.seconds, flows))
        if self.trouble:
            raise self.trouble

    @property
    def stored(self) -> dict[datetime, HourFlow]:
        """What storage has, where each row replaces the one before it."""
        return {flow.hour: flow for _, flows in self.writes for flow in flows}

    async def later(self, seconds: float) -> None:
        """Let time pass, and the timers that are due by then go off, each in its time."""
        until = self.seconds + seconds
        while due := [timer for timer in self.timers if timer[0] <= until]:
            timer = min(due, key=lambda each: each[0])
            self.timers.remove(timer)
            self.seconds = max(self.seconds, timer[0])
            timer[1]()
            for _ in range(5):
                await asyncio.sleep(0)
        self.seconds = until


@pytest.fixture
def worker() -> Worker:
    return Worker()


async def test_without_a_store_nothing_is_counted() -> None:
    recorder = FlowRecorder()
    recorder.count("lab", ONE)
    recorder.count_unmapped([UnmappedElement("Patient", "p", "n")])
    await recorder.flush()
    assert recorder.list_hours() == []


async def test_what_is_counted_is_stored_within_seconds(worker: Worker) -> None:
    worker.recorder.count("lab", ONE)
    worker.recorder.count("lab", FlowCounts(written=3, refused=1))
    worker.recorder.count(None, count_refusal(401))
    worker.recorder.count("lab", count_row("created"))
    await worker.later(6)
    assert worker.stored[HOUR].senders == {
        "lab": FlowCounts(accepted=1, written=3, refused=1, rows_created=1),
        NO_SENDER: FlowCounts(unproven=1),
    }


async def test_however_much_passes_a_minute_has_one_write(worker: Worker) -> None:
    for _ in range(600):
        worker.recorder.count("lab", ONE)
        await worker.later(0.5)
    await worker.later(INTERVAL)
    times = [time for time, _ in worker.writes]
    assert 5 <= len(times) <= 7
    assert all(later - earlier >= INTERVAL for earlier, later in pairwise(times))
    assert sum(flow.senders["lab"].accepted for flow in worker.stored.values()) == 600


async def test_where_nothing_passes_nothing_is_written(worker: Worker) -> None:
    await worker.later(10 * INTERVAL)
    worker.recorder.count("lab", count_refusal(400))  # not one that is counted
    worker.recorder.count("lab", count_row("unchanged"))
    await worker.later(10 * INTERVAL)
    await worker.recorder.flush()
    assert worker.writes == []
    worker.recorder.count("lab", ONE)
    await worker.later(10 * INTERVAL)
    assert len(worker.writes) == 1


async def test_the_last_counts_of_an_hour_that_is_over_are_written_and_then_forgotten(
    worker: Worker,
) -> None:
    worker.recorder.count("lab", ONE)
    await worker.later(118)  # stored
    worker.recorder.count("lab", ONE)
    await worker.later(3)  # in the next hour, before the write
    worker.recorder.count("lab", ONE)
    assert len(worker.recorder.list_hours()) == 2
    await worker.later(INTERVAL)
    counted = {hour: flow.senders["lab"].accepted for hour, flow in worker.stored.items()}
    assert counted == {HOUR: 2, NEXT: 1}
    assert [flow.hour for flow in worker.recorder.list_hours()] == [NEXT]


async def test_what_storage_does_not_take_is_written_when_it_does(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "integration")
    worker.trouble = Unavailable("storage", "not in time")
    worker.recorder.count("lab", ONE)
    await worker.later(3 * INTERVAL)  # and the hour is over
    worker.recorder.count("lab", ONE)
    await worker.later(INTERVAL)
    assert len(worker.writes) >= 4
    assert [record.message for record in caplog.records] == ["flow.not_stored"]
    worker.writes.clear()
    worker.trouble = None
    await worker.later(2 * INTERVAL)
    counted = {hour: flow.senders["lab"].accepted for hour, flow in worker.stored.items()}
    assert counted == {HOUR: 1, NEXT: 1}
    assert len(worker.writes) == 1


async def test_storage_that_is_away_for_days_does_not_fill_the_memory(worker: Worker) -> None:
    worker.trouble = OSError()
    for _ in range(60):
        worker.recorder.count("lab", ONE)
        await worker.later(3600)
    hours = [flow.hour for flow in worker.recorder.list_hours()]
    assert len(hours) == 24
    assert hours[-1] == HOUR + timedelta(hours=59)  # the newest are kept


async def test_what_is_counted_during_a_write_is_in_the_next_one(worker: Worker) -> None:
    worker.recorder.count("lab", ONE)
    writing = asyncio.create_task(worker.recorder.flush())
    await asyncio.sleep(0)
    worker.recorder.count("lab", ONE)
    await writing
    assert worker.stored[HOUR].senders["lab"].accepted == 1
    await worker.later(INTERVAL)
    assert worker.stored[HOUR].senders["lab"].accepted == 2


async def test_a_clock_that_goes_back_replaces_no_hour_that_was_stored(worker: Worker) -> None:
    worker.skew = timedelta(minutes=5)
    worker.recorder.count("lab", ONE)
    await worker.recorder.flush()
    worker.skew = timedelta()
    worker.recorder.count("lab", ONE)
    await worker.recorder.flush()
    assert {hour: flow.senders["lab"].accepted for hour, flow in worker.stored.items()} == {NEXT: 2}


async def test_of_many_senders_the_first_are_named_and_the_others_are_one(worker: Worker) -> None:
    for number in range(MAX_SENDERS + 50):
        worker.recorder.count(f"sender-{number}", ONE)
    worker.recorder.count("sender-0", ONE)
    worker.recorder.count("x" * 1000, ONE)
    (flow,) = worker.recorder.list_hours()
    assert len(flow.senders) == MAX_SENDERS + 1
    assert flow.senders[OTHER_SENDERS] == FlowCounts(accepted=51)
    assert flow.senders["sender-0"] == FlowCounts(accepted=2)


async def test_of_many_elements_the_first_are_named_and_the_others_are_one(worker: Worker) -> None:
    found = [UnmappedElement("Patient", f"path{number}", "n") for number in range(MAX_ELEMENTS + 9)]
    worker.recorder.count_unmapped(found)
    worker.recorder.count_unmapped(found[:1])
    (flow,) = worker.recorder.list_hours()
    assert len(flow.unmapped) == MAX_ELEMENTS + 1
    assert flow.unmapped[OTHER_ELEMENTS] == 9
    assert flow.unmapped[found[0]] == 2


async def test_long_names_are_cut(worker: Worker) -> None:
    worker.recorder.count("s" * 1000, ONE)
    worker.recorder.count_unmapped([UnmappedElement("Patient", "p" * 1000, "n" * 1000)])
    (flow,) = worker.recorder.list_hours()
    assert {len(name) for name in flow.senders} == {200}
    assert {(len(each.path), len(each.note)) for each in flow.unmapped} == {(200, 200)}
