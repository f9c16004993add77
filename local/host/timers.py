"""Timer triggers: run by the schedule, in UTC, never two runs of a function at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from datetime import UTC, datetime
from typing import Any

from azure.functions import meta
from azure.functions.timer import TimerRequestConverter

from integration.core import cron
from local.host.functions import Function
from local.host.settings import CannotStart, resolve_setting
from local.host.worker import Worker


def read_schedule(function: Function) -> cron.Schedule:
    text = resolve_setting(str(function.trigger["schedule"]), os.environ)
    try:
        return cron.parse(text)
    except ValueError as error:
        raise CannotStart(f"{function.name}: {error}") from error


async def run_on_schedule(
    function: Function, worker: Worker, stopping: asyncio.Event, drain: float
) -> None:
    """Run the function at each occurrence until stopping."""
    schedule = read_schedule(function)
    last: datetime | None = None
    if not function.trigger.get("runOnStartup"):
        await _sleep_until(cron.find_next(schedule, datetime.now(UTC)), stopping)
    while not stopping.is_set():
        upcoming = cron.find_next(schedule, datetime.now(UTC))
        run = asyncio.create_task(worker.run(function, _build_timer_request(last, upcoming)))
        await _wait_until_stopping(run, stopping, drain)
        last = datetime.now(UTC)
        # Like TimerListener.cs of azure-webjobs-sdk-extensions, which schedules the next run when
        # the last has ended: an occurrence that passed meanwhile is skipped.
        await _sleep_until(cron.find_next(schedule, last), stopping)


async def _sleep_until(instant: datetime, stopping: asyncio.Event) -> None:
    while not stopping.is_set() and (left := (instant - datetime.now(UTC)).total_seconds()) > 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left):
                await stopping.wait()


async def _wait_until_stopping(
    run: asyncio.Task[Any], stopping: asyncio.Event, drain: float
) -> None:
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait({run, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    await asyncio.wait({run}, timeout=drain)
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)


def _build_timer_request(last: datetime | None, upcoming: datetime) -> Any:
    status = {
        "Last": (last or datetime.min.replace(tzinfo=UTC)).isoformat(),
        "Next": upcoming.isoformat(),
        "LastUpdated": (last or datetime.min.replace(tzinfo=UTC)).isoformat(),
    }
    content = {"Schedule": {"AdjustForDST": True}, "ScheduleStatus": status, "IsPastDue": False}
    datum = meta.Datum(json.dumps(content), "json")
    return TimerRequestConverter.decode(datum, trigger_metadata={})
