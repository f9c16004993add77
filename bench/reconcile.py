"""Measure `reconcile --all`, and the preview of a changed map, against the local FHIR server and
the Dataverse stand-in.

python -m bench.reconcile [PATIENTS]   (100,000 by default)

The baseline is the mirror, which compares one patient at a time. Some patients are mirrored for
real; the others are copies of them on both sides, since writing them one by one would take longer
than what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import httpx
import psutil

from bench.watch import watch_peak_memory
from integration.app.services import utc_now
from integration.cli import reconcile_command as command
from integration.core.activity_recorder import ActivityRecorder
from integration.core.http import Upstream, build_limiter
from integration.core.model import WorkItem
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.journal.deletions import MemoryDeletions
from integration.journal.due_days import MemoryDueDays
from integration.journal.jobs import Job, JobFilter, JobKind, PreviewFilter
from integration.journal.pending_lookups import MemoryPendingLookups
from integration.journal.store import MemoryJournal
from integration.mapping import load
from integration.mapping.map_changes import MapChanges, find_map_changes
from integration.mapping.model import AttributeMap, Kind
from integration.mapping.values import format_utc, parse_instant
from integration.mirror.mirror import Mirror, mirror_or_raise
from integration.mirror.web_api_sink import WebApiSink
from integration.queues.names import MIRROR_QUEUE
from integration.queues.queue_sender import MemoryQueueSender
from integration.reconcile.job import ReconcileParts
from integration.reconcile.preview import preview
from integration.reconcile.run import ReconcileRun
from local.dataverse.rows import fold
from local.services import Running, find_free_ports, run_services

PATIENTS = 100_000
ORIGINALS = 100
PER_BUNDLE = 500
CONCURRENCY = 16
RUN = "019caaee-c260-7000-8000-0000000000bb"
NAMESPACE = UUID("7d0f7f0a-5a0e-4b8f-9f43-6f3a0a2b1c11")
PRACTITIONER = str(uuid5(NAMESPACE, "practitioner"))


def name_patient(number: int) -> str:
    """Return the id of a patient."""
    return str(uuid5(NAMESPACE, str(number)))


def build_patient(number: int, original: int) -> dict[str, Any]:
    """Return a patient with the content of one of the originals."""
    return {
        "resourceType": "Patient",
        "id": name_patient(number),
        "active": True,
        "name": [
            {"use": "official", "family": f"Family {original}", "given": ["Given", "Middle"]},
            {"use": "maiden", "family": f"Maiden {original}"},
        ],
        "gender": ("female", "male")[original % 2],
        "birthDate": f"19{original % 100:02d}-03-04",
        "telecom": [
            {"system": "phone", "use": "home", "value": f"555-01{original:02d}"},
            {"system": "email", "value": f"p{original}@example.org"},
        ],
        "address": [
            {"use": "home", "line": [f"{original} Street"], "city": "Town", "postalCode": "12345"}
        ],
        "maritalStatus": {"coding": [{"code": "M"}]},
        "identifier": [
            {"system": "urn:mrn", "value": f"{original}-1"},
            {"system": "urn:other", "value": f"{original}-2", "use": "usual"},
        ],
        "communication": [{"language": {"coding": [{"code": "de"}]}, "preferred": True}],
        "generalPractitioner": [{"reference": f"Practitioner/{PRACTITIONER}"}],
    }


async def fill_fhir(http: httpx.AsyncClient, base: str, patients: int) -> list[str]:
    """Write the practitioner and all patients. Return when each patient was written, in UTC."""
    written: list[str] = []
    doctor = {"resourceType": "Practitioner", "id": PRACTITIONER, "name": [{"family": "Doctor"}]}
    await http.put(f"{base}/Practitioner/{PRACTITIONER}", json=doctor)
    for start in range(0, patients, PER_BUNDLE):
        numbers = range(start, min(start + PER_BUNDLE, patients))
        entries = [
            {
                "resource": build_patient(number, number % ORIGINALS),
                "request": {"method": "PUT", "url": f"Patient/{name_patient(number)}"},
            }
            for number in numbers
        ]
        bundle = {"resourceType": "Bundle", "type": "batch", "entry": entries}
        answer = (await http.post(base, json=bundle)).raise_for_status().json()
        moments = (entry["response"]["lastModified"] for entry in answer["entry"])
        written += (format_utc(parse_instant(moment)) for moment in moments)
    return written


def copy_rows(database: Path, written: Sequence[str]) -> int:
    """Copy the rows of the originals for all other patients. Return how many rows there are."""
    updated = re.compile(r'"msemr_azurefhirlastupdatedon": "[^"]+"')
    with sqlite3.connect(database) as store:
        store.create_function("fold", 1, fold, deterministic=True)
        originals = [name_patient(number) for number in range(ORIGINALS)]
        rows: dict[str, list[tuple[str, str, int, str]]] = {}
        for table, id_, version, body in store.execute("SELECT tbl, id, version, body FROM rows"):
            owner = json.loads(body).get("_msemr_assignee_value", id_)
            if owner in originals:
                rows.setdefault(owner, []).append((table, id_, version, body))

        def build_copies() -> Iterator[tuple[str, str, int, str]]:
            for number in range(ORIGINALS, len(written)):
                moment = f'"msemr_azurefhirlastupdatedon": "{written[number]}"'

                original, copy = originals[number % ORIGINALS], name_patient(number)
                for table, id_, version, body in rows[original]:
                    key = copy if id_ == original else str(uuid5(UUID(id_), copy))
                    body = updated.sub(moment, body.replace(original, copy).replace(id_, key))
                    yield table, key, version, body

        store.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", build_copies())
        count: int = store.execute("SELECT COUNT(*) FROM rows").fetchone()[0]
    return count


class Counting(httpx.AsyncHTTPTransport):
    """Counts the requests to each service."""

    def __init__(self) -> None:
        super().__init__(limits=httpx.Limits(max_connections=CONCURRENCY))
        self.requests = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        return await super().handle_async_request(request)


@asynccontextmanager
async def open_run(running: Running) -> AsyncIterator[tuple[ReconcileRun, Counting, Counting]]:
    """Open both services as the app does, with a journal in memory."""
    to_fhir, to_dataverse = Counting(), Counting()
    async with (
        httpx.AsyncClient(transport=to_fhir, timeout=300) as http,
        httpx.AsyncClient(transport=to_dataverse, timeout=300) as other,
    ):
        fhir = FhirServer(
            Upstream("FHIR server", running.fhir_url, http, build_limiter(CONCURRENCY))
        )
        dataverse = Dataverse(
            Upstream("Dataverse", running.dataverse_url, other, build_limiter(CONCURRENCY))
        )
        maps = load.load_maps("healthcare", enabled=["practitioner", "organization"]).entities
        queue = MemoryQueueSender()
        sink = WebApiSink(
            fhir=fhir,
            dataverse=dataverse,
            pending_lookups=MemoryPendingLookups(),
            deletions=MemoryDeletions(),
            due_days=MemoryDueDays(),
            today=lambda: utc_now().date(),
            queue=queue,
            all_maps=maps,
        )
        mirror = Mirror(
            journal=MemoryJournal(),
            queue=queue,
            sink=sink,
            maps={name: maps[name] for name in ("Patient", "Practitioner")},
            broken_maps={},
            now=utc_now,
            max_age=3600,
            activities=ActivityRecorder(),
        )
        opened = ReconcileRun(
            mirror=mirror, fhir=fhir, dataverse=dataverse, id=RUN, sleep=asyncio.sleep
        )
        yield opened, to_fhir, to_dataverse


async def measure(patients: int, folder: Path) -> None:
    """Fill both sides, and print what the mirror and the command take."""
    database = folder / "dataverse.sqlite"
    os.environ["DATAVERSE_DB"] = str(database)
    with run_services(find_free_ports(), folder, parts=("fhir", "dataverse")) as running:
        async with httpx.AsyncClient(timeout=300) as http:
            started = time.perf_counter()
            written = await fill_fhir(http, running.fhir_url, patients)
            print(f"FHIR filled: {time.perf_counter() - started:.0f} s", file=sys.stderr)
        async with open_run(running) as (opened, to_fhir, to_dataverse):
            await mirror_or_raise(
                opened.mirror, WorkItem(RUN, resource=f"Practitioner/{PRACTITIONER}")
            )
            for number in range(ORIGINALS):
                await mirror_or_raise(
                    opened.mirror, WorkItem(RUN, resource=f"Patient/{name_patient(number)}")
                )
            print(f"rows: {copy_rows(database, written):,}", file=sys.stderr)
            processes = {
                "reconcile": psutil.Process(),
                "fhir": psutil.Process(running.parts["fhir"].pid),
                "dataverse": psutil.Process(running.parts["dataverse"].pid),
            }
            for name in ("one by one", "preview", "reconcile --all"):
                to_fhir.requests = to_dataverse.requests = 0
                before = {key: sum(process.cpu_times()[:2]) for key, process in processes.items()}
                started = time.perf_counter()
                async with watch_peak_memory(processes["reconcile"]) as peak:
                    if name == "one by one":
                        count = min(500, patients)
                        await mirror_some(opened, count)
                    elif name == "preview":
                        count = patients
                        await look(opened, patients)
                    else:
                        count = patients
                        await reconcile(opened)
                seconds = time.perf_counter() - started
                cpu = Counter(
                    {
                        key: sum(process.cpu_times()[:2]) - before[key]
                        for key, process in processes.items()
                    }
                )
                print(
                    f"{name}: {count:,} patients, {seconds:.1f} s, "
                    f"cpu {', '.join(f'{key} {value:.1f} s' for key, value in cpu.items())}, "
                    f"{cpu.total() / count * 1000:.2f} ms of processor time a patient, "
                    f"requests FHIR {to_fhir.requests:,} Dataverse {to_dataverse.requests:,}, "
                    f"memory at rest {peak.rest / 1e6:.0f} MB, "
                    f"at most {peak.highest / 1e6:.0f} MB, "
                    f"load {psutil.getloadavg()[0]:.1f}"
                )


async def mirror_some(opened: ReconcileRun, count: int) -> None:
    """Compare patients as work items do it."""
    slots = asyncio.Semaphore(CONCURRENCY)

    async def mirror_one(number: int) -> None:
        async with slots:
            result = await mirror_or_raise(
                opened.mirror, WorkItem(RUN, resource=f"Patient/{name_patient(number)}")
            )
            assert result.action == "unchanged", result

    await asyncio.gather(*(mirror_one(number) for number in range(count)))


async def look(opened: ReconcileRun, patients: int) -> None:
    """Preview a map that fills one column more and another one otherwise: for half of the patients
    each."""
    shipped = opened.mirror.maps["Patient"]
    added = AttributeMap(column="department", kind=Kind.COPY, path="iif(gender = 'female', 'Ward')")
    changed = replace(
        shipped,
        attributes=(
            *(
                replace(item, path="iif(gender = 'male', %name.family.upper(), %name.family)")
                if item.column == "lastname"
                else item
                for item in shipped.attributes
            ),
            added,
        ),
    )

    async def load_changes(_: PreviewFilter) -> MapChanges:
        return find_map_changes(shipped, changed)

    async def get_queues() -> dict[str, str]:
        return {"Patient": MIRROR_QUEUE}

    async def brings_nothing(_type: str, _job: str, _is_brought: bool = False) -> bool:
        return False

    parts = ReconcileParts(
        fhir=opened.fhir,
        dataverse=opened.dataverse,
        load_mirror=lambda: opened.mirror,
        change_queues=get_queues,
        is_brought_by=brings_nothing,
        end_bringing=brings_nothing,
    )
    chosen = JobFilter(preview=PreviewFilter(type="Patient", base=0, changes={}))
    job = Job(id="preview", kind=JobKind.PREVIEW, filter=chosen, started=utc_now())
    summary = None
    async for part in preview(parts, load_changes, job):
        assert part.error is None, part.error
        summary = part.summary or summary
    assert summary is not None
    assert summary.columns == {"department": patients // 2, "lastname": patients // 2}


async def reconcile(opened: ReconcileRun) -> None:
    """Run the command, which finds that nothing differs."""
    parser = argparse.ArgumentParser()
    command.add_options(parser)

    @asynccontextmanager
    async def open_it(_: argparse.Namespace) -> AsyncIterator[ReconcileRun]:
        yield opened

    chosen = parser.parse_args(["--all", "--type", "Patient"])
    status = await command.reconcile(chosen, print, open_it)
    assert status == 0, "something differs, though both sides were filled alike"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        number = int(sys.argv[1]) if len(sys.argv) > 1 else PATIENTS
        asyncio.run(measure(number, Path(folder)))
