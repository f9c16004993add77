"""Measure a job that replays 10,000 parked deliveries; and one whose deliveries the relay sends.

Each resource has two states, of two deliveries. So it shows whether something was written twice, or
an older state over a newer one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count
from secrets import token_hex
from typing import Any
from uuid import UUID, uuid5

from azure.data.tables.aio import TableClient

from bench.route import MeasuredRoute, encode
from bench.watch import count_storage_operations
from integration.app import storage_clients
from integration.app.services import utc_now
from integration.app.settings import read_settings
from integration.app.storage_clients import Stores
from integration.core.model import Delivery, DeliveryRequest, Status, WorkItem
from integration.journal.azure_day_rows import split_into_transactions
from integration.journal.azure_store import AzureJournal
from integration.journal.azure_tables import RETRY_WRITES
from integration.journal.concern import ConcernKind, build_delivery_concern
from integration.journal.delivery_entity import to_entity
from integration.journal.jobs import OPEN_STATES, Job, JobKind
from integration.journal.store import Payload
from integration.journal.table_keys import get_day_partition, make_delivery_id
from integration.operations.job_request import JobRequest, build_job_filter
from integration.operations.jobs import JobParts, do_slice, start_job
from integration.operations.many_deliveries import do_side_by_side
from local.access import build_fhir_headers

DELIVERIES = 10_000
SENT = 2_000  # of those that the relay sends, too
STATES = 2
PATIENCE = 1800  # seconds
NAMESPACE = UUID("7d0f7f0a-5a0e-4b8f-9f43-6f3a0a2b1c12")

_READ = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a job came to. `seconds`: of the job itself; `arrived`: seconds until all was at the
    FHIR server; `operations`: of the storage for each delivery; `doubled`: resources with more
    versions than states; `stale`: that show an older state."""

    job: Job
    seconds: float
    operations: float
    arrived: float = 0.0
    doubled: int = 0
    missing: int = 0
    stale: int = 0


async def measure_alone(route: MeasuredRoute, number: int = DELIVERIES) -> Replayed:
    """Replay parked deliveries in this process, into a queue that nobody reads."""
    async with _open_stores(route) as stores:
        await _park(stores, "alone", number, has_bytes=False)
        parts = JobParts(
            jobs=stores.jobs,
            journal=stores.journal,
            queue=_JobsAlone(stores.queue),
            now=utc_now,
            new_token=lambda: token_hex(8),
        )
        counted, begun = count_storage_operations(route.log), time.perf_counter()
        job, looks = await start_job(parts, _ask("alone")), 0
        while job.state in OPEN_STATES:
            await do_slice(parts, WorkItem("", job=job.id))
            job, looks = await stores.jobs.get_job(job.id) or job, looks + 1
        seconds = time.perf_counter() - begun
        operations = count_storage_operations(route.log) - counted - looks
        return Replayed(job=job, seconds=seconds, operations=operations / number)


async def measure_route(route: MeasuredRoute, number: int = SENT) -> Replayed:
    """Have the host replay parked deliveries, by one request, and wait until all have arrived."""
    async with _open_stores(route) as stores:
        ids = await _park(stores, "route", number)
        counted, begun = count_storage_operations(route.log), time.perf_counter()
        body = {"kind": "replay", "filter": {"sender": "route"}, "started_by": "bench"}
        answer = await route.http.post(f"{route.host}/api/jobs", json=body)
        assert answer.status_code == 202, answer.text
        async with asyncio.timeout(PATIENCE):
            job, looks = await _wait_for_end(stores, str(answer.json()["id"]))
            seconds = time.perf_counter() - begun
            for id_ in ids:
                looks += await _wait_until_done(stores, id_)
        arrived = time.perf_counter() - begun
        operations = (count_storage_operations(route.log) - counted - looks) / number
    result = Replayed(job=job, seconds=seconds, operations=operations, arrived=arrived)
    return await _check_resources(route, result, number)


@dataclass(frozen=True, slots=True)
class _JobsAlone:
    """Sends replayed work to the real queue, whose operation counts, where nobody takes it for a
    long time; slices are called by hand."""

    queue: Any

    async def send(self, queue: str, item: WorkItem, delay: float = 0) -> None:
        if item.job is None:
            await self.queue.send(queue, item, 24 * 3600.0)


@asynccontextmanager
async def _open_stores(route: MeasuredRoute) -> AsyncIterator[Stores]:
    async with AsyncExitStack() as stack:
        storage = read_settings(route.running.settings()).storage
        yield await storage_clients.open_stores(storage, None, stack)


def _ask(sender: str) -> JobRequest:
    job_filter = build_job_filter(JobKind.REPLAY, {"sender": sender})
    return JobRequest(kind=JobKind.REPLAY, filter=job_filter, started_by="bench")


async def _park(stores: Stores, sender: str, number: int, *, has_bytes: bool = True) -> list[str]:
    """Add parked deliveries, as an outage leaves them. Return their ids, the oldest first.

    Their rows are written a hundred at a time: one by one it takes longer than what is measured.
    """
    journal = stores.journal
    assert isinstance(journal, AzureJournal)
    first, parked = utc_now() - timedelta(days=4), utc_now()
    made = [_make_delivery(sender, first, index) for index in range(number)]
    rows, concerns = [], []
    for index, (delivery, _) in enumerate(made):
        since = parked + timedelta(microseconds=index)
        concern = build_delivery_concern(
            ConcernKind.PARKED, delivery.id, sender, since, reason="FHIR server: answered 503"
        )
        concerns.append(concern)
        changed = replace(delivery, attention=concern.id, parked=since, reason=concern.reason)
        rows.append(to_entity(changed))
    await journal.put_concern(concerns[0])
    day = get_day_partition(parked)
    sample = dict(await journal.attention.get_entity(day, concerns[0].id))
    copies = [
        {**sample, "RowKey": concern.id, "delivery": concern.delivery, "since": concern.since}
        for concern in concerns
    ]
    await put_all(journal.deliveries, rows)
    await put_all(journal.attention, copies)
    await journal.index_deliveries([delivery.id for delivery, _ in made], parked + timedelta(1))
    if has_bytes:
        await do_side_by_side(
            lambda item: journal.save_payload(item[0].id, item[0].digest, item[1]), made
        )
    return [delivery.id for delivery, _ in made]


async def put_all(table: TableClient, entities: Sequence[dict[str, Any]]) -> None:
    """Put rows a hundred at a time."""
    for part in split_into_transactions(entities):
        await table.submit_transaction([("upsert", entity) for entity in part], **RETRY_WRITES)


def _make_delivery(sender: str, first: datetime, index: int) -> tuple[Delivery, Payload]:
    accepted = first + timedelta(milliseconds=index)
    resource = {
        "resourceType": "Observation",
        "id": _name(sender, index // STATES),
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]},
        "valueQuantity": {"value": index % STATES, "unit": "kg"},
    }
    request = {"method": "PUT", "url": f"Observation/{resource['id']}"}
    body = encode(
        {
            "resourceType": "Bundle",
            "type": "batch",
            "entry": [{"resource": resource, "request": request}],
        }
    )
    id_ = make_delivery_id(accepted, index)
    delivery = Delivery(
        id=id_,
        sender=sender,
        key=id_,
        digest=id_,
        accepted=accepted,
        status=Status.PARKED,
        kind="batch",
        entries=1,
        bytes=len(body),
    )
    return delivery, Payload(DeliveryRequest("POST"), body)


def _name(sender: str, number: int) -> str:
    return str(uuid5(NAMESPACE, f"{sender} {number}"))


async def _wait_for_end(stores: Stores, id_: str) -> tuple[Job, int]:
    """Return the job, and how often it was looked at, which is no operation of the app's."""
    for looks in count(1):
        job = await stores.jobs.get_job(id_)
        assert job is not None
        if job.state not in OPEN_STATES:
            return job, looks
        await asyncio.sleep(1)
    raise AssertionError


async def _wait_until_done(stores: Stores, id_: str) -> int:
    """Return how often the delivery was looked at."""
    for looks in count(1):
        delivery = await stores.journal.get_delivery(id_)
        assert delivery is not None
        if delivery.status is Status.DONE:
            assert delivery.refused == 0
            return looks
        await asyncio.sleep(0.5)
    raise AssertionError


async def _check_resources(route: MeasuredRoute, result: Replayed, number: int) -> Replayed:
    """Add what the FHIR server has of the resources."""
    names = [_name("route", index) for index in range(number // STATES)]
    found = await _read_all(route, names)
    versions = [int(resource["meta"]["versionId"]) for resource in found]
    values = [resource["valueQuantity"]["value"] for resource in found]
    return replace(
        result,
        missing=len(names) - len(found),
        doubled=sum(version > STATES for version in versions),
        stale=sum(value != STATES - 1 for value in values),
    )


async def _read_all(route: MeasuredRoute, names: Sequence[str]) -> list[dict[str, Any]]:
    headers = build_fhir_headers(read_settings(route.running.settings()).fhir.scope)
    found = []
    for start in range(0, len(names), _READ):
        reads = [
            {"request": {"method": "GET", "url": f"Observation/{name}"}}
            for name in names[start : start + _READ]
        ]
        body = {"resourceType": "Bundle", "type": "batch", "entry": reads}
        answer = await route.http.post(route.running.fhir_url, json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        found += [entry["resource"] for entry in answer.json()["entry"] if "resource" in entry]
    return found
