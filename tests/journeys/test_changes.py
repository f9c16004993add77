"""Stories of patients that somebody else writes, past the relay: they reach Dataverse all the same."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from azure.storage.queue import TextBase64EncodePolicy
from azure.storage.queue.aio import QueueClient

from local.processes import PROJECT
from tests.journeys.route import FHIR_JSON, Route, patient

pytestmark = [pytest.mark.live, pytest.mark.azurite]


async def written(route: Route, id_: str, name: str) -> None:
    """Straight to the FHIR server."""
    answer = await route.http.put(
        f"{route.running.fhir_url}/Patient/{id_}",
        json=patient(name, id=id_),
        headers=FHIR_JSON | route.own,
    )
    assert answer.status_code in (200, 201), answer.text


async def reconciled(route: Route, *options: str) -> tuple[int, str]:
    """The command, as an operator runs it: its status and what it said."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "integration", "reconcile", *options),
        cwd=PROJECT,
        env={**os.environ, **route.running.settings()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await running.communicate()
    return running.returncode or 0, said.decode()


async def test_an_event_of_the_fhir_service_brings_the_row_up_to_date(route: Route) -> None:
    id_ = str(uuid4())
    event = {
        "specversion": "1.0",
        "type": "Microsoft.HealthcareApis.FhirResourceCreated",
        "data": {"resourceType": "Patient", "resourceFhirId": id_, "resourceVersionId": 1},
    }
    await written(route, id_, "Elsewhere")
    # As Event Grid puts it on a queue.
    async with QueueClient.from_connection_string(
        route.running.storage, "fhir-events", message_encode_policy=TextBase64EncodePolicy()
    ) as queue:
        await queue.create_queue()
        await queue.send_message(json.dumps(event))
    assert (await route.contact(id_, "1"))["lastname"] == "Elsewhere"


async def test_an_operator_finds_and_mends_what_no_event_told(route: Route, tmp_path: Path) -> None:
    since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    ids = [str(uuid4()) for _ in range(5)]
    for id_ in ids:
        await written(route, id_, "Unheard")
    report = tmp_path / "report.csv"
    look = ("--type", "Patient", "--since", since)

    status, said = await reconciled(route, *look, "--dry-run", "--report", str(report))
    assert status == 1, said
    with report.open(newline="") as lines:
        found = {row["resource"]: row["difference"] for row in csv.DictReader(lines)}
    assert {f"Patient/{id_}": "missing" for id_ in ids}.items() <= found.items()
    assert await route.contacts(ids[0]) == []

    status, said = await reconciled(route, *look)
    assert status == 0, said
    assert "Unclosed" not in said
    for id_ in ids:
        assert (await route.contact(id_, "1"))["lastname"] == "Unheard"
