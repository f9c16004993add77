"""Measure the operators' pages over a journal of many deliveries, and over one of few.

A page must cost the same however much is kept: the storage operations of each page are counted.
Its time holds that of the storage emulator, which looks through all rows of a table at each query,
as Azure's tables do not: so the time of the same query without the app is measured beside it.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from azure.data.tables.aio import TableClient

from bench.jobs import put_all
from bench.route import MeasuredRoute
from bench.watch import count_storage_operations
from integration.app import storage_clients
from integration.app.services import utc_now
from integration.app.settings import read_settings
from integration.core.model import Delivery, Status
from integration.journal.azure_store import AzureJournal
from integration.journal.concern import ConcernKind, build_delivery_concern
from integration.journal.delivery_entity import to_entity
from integration.journal.table_keys import make_delivery_id

VISITS = 20
# Days over which the deliveries came. The emulator looks through a day row by row for each row that
# it takes, so that a million in thirty days would take it hours.
_DAYS = 30
_PER_DAY = 1000
_OPEN_SHARE = 500  # one of so many is parked
_PAGES = (
    *("", "attention", "attention?kind=parked&same_reason=FHIR+server:+answered+503"),
    *("deliveries", "deliveries?sender=north&status=done", "deliveries?waiting=true"),
    *("deliveries/{id}", "jobs", "activity", "senders", "settings"),
)

# Pages that show the status report, and the seconds for which a worker keeps it.
_KEPT = ("", "senders", "settings")
_KEPT_FOR = 5.1

_CHUNK = 10_000  # deliveries that are made at once

_LOG_DELAY = 1.5  # seconds after which the emulator has written its log


@dataclass(frozen=True, slots=True, kw_only=True)
class Visited:
    """What visits to one page came to: milliseconds, and storage operations of one visit."""

    page: str
    median: float
    p95: float
    operations: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All pages over so many deliveries. `query`: milliseconds that the emulator alone takes for a
    page of the list."""

    deliveries: int
    pages: tuple[Visited, ...]
    query: float


async def measure_pages(route: MeasuredRoute, number: int) -> Measured:
    """Keep so many deliveries, and visit each page."""
    async with AsyncExitStack() as stack:
        storage = read_settings(route.running.settings()).storage
        journal = (await storage_clients.open_stores(storage, None, stack)).journal
        assert isinstance(journal, AzureJournal)
        ids = await _keep(journal, number)
        query = await _time_query(journal.deliveries)
    shown = next(id_ for index, id_ in enumerate(ids) if index % _OPEN_SHARE == 1)
    visited = [await _visit(route, page, page.format(id=shown)) for page in _PAGES]
    return Measured(deliveries=number, pages=tuple(visited), query=query)


async def _visit(route: MeasuredRoute, page: str, path: str) -> Visited:
    url = f"{route.host}/api/pages/{path}"
    await _get(route, url)  # what is built once
    await asyncio.sleep(_LOG_DELAY)
    counted, times = count_storage_operations(route.log), []
    for _ in range(VISITS):
        begun = time.perf_counter()
        await _get(route, url)
        times.append((time.perf_counter() - begun) * 1000)
        if page in _KEPT:
            await asyncio.sleep(_KEPT_FOR)
    await asyncio.sleep(_LOG_DELAY)
    operations = (count_storage_operations(route.log) - counted) / VISITS
    return Visited(
        page=page or "today",
        median=statistics.median(times),
        p95=statistics.quantiles(times, n=20)[-1],
        operations=operations,
    )


async def _get(route: MeasuredRoute, url: str) -> None:
    answer = await route.http.get(url)
    assert answer.status_code == 200, f"{url}: {answer.status_code} {answer.text[:300]}"


async def _time_query(table: TableClient) -> float:
    times = []
    for _ in range(VISITS):
        begun = time.perf_counter()
        async for _page in table.query_entities(
            "PartitionKey ge ''", results_per_page=50
        ).by_page():
            break
        times.append((time.perf_counter() - begun) * 1000)
    return statistics.median(times)


async def _keep(journal: AzureJournal, number: int) -> list[str]:
    """Add deliveries of the last days: most of them done, some parked, some that wait. Return
    their ids."""
    now = utc_now()
    step = timedelta(days=max(_DAYS, number / _PER_DAY)) / number
    # What is older than now is in the index, as it is after each run of housekeeping.
    await journal.index_open(now)
    ids = []
    for begin in range(0, number, _CHUNK):
        chunk = range(begin, min(begin + _CHUNK, number))
        made = [_make(now - step * (number - index), index) for index in chunk]
        await _keep_all(journal, made, now)
        ids += [delivery.id for delivery in made]
    return ids


async def _keep_all(journal: AzureJournal, made: Sequence[Delivery], now: datetime) -> None:
    rows = []
    for delivery in made:
        if delivery.waiting is not None:
            await journal.index_delivery(delivery.id, now + timedelta(days=1))
        if delivery.status is Status.PARKED:
            concern = build_delivery_concern(
                ConcernKind.PARKED,
                delivery.id,
                delivery.sender,
                delivery.accepted,
                reason="FHIR server: answered 503",
            )
            await journal.put_concern(concern)
            await journal.index_delivery(delivery.id, now + timedelta(days=1))
            rows.append(to_entity(replace(delivery, attention=concern.id)))
        else:
            rows.append(to_entity(delivery))
    await put_all(journal.deliveries, rows)


def _make(accepted: datetime, index: int) -> Delivery:
    id_ = make_delivery_id(accepted, index)
    is_parked, waits = index % _OPEN_SHARE == 0, index % _OPEN_SHARE == 2
    return Delivery(
        id=id_,
        sender=("north", "south", "west")[index % 3],
        key=id_,
        digest=id_,
        accepted=accepted,
        status=_choose_status(is_parked=is_parked, waits=waits),
        kind="batch",
        entries=10,
        written=0 if is_parked or waits else 10,
        reason="FHIR server: answered 503" if is_parked or waits else None,
        waiting=accepted if waits else None,
        attempts=9 if waits else 0,
        next_attempt=utc_now() + timedelta(minutes=15) if waits else None,
        bytes=4000,
        lanes=1,
        units=1,
        finished=None if is_parked or waits else accepted,
    )


def _choose_status(*, is_parked: bool, waits: bool) -> Status:
    if is_parked:
        return Status.PARKED
    return Status.PROCESSING if waits else Status.DONE
