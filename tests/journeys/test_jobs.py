"""A story of an operator's: after an outage one request brings back all that was parked."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from secrets import randbits
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from azure.data.tables.aio import TableServiceClient
from azure.storage.blob.aio import BlobServiceClient

from integration.core.model import Delivery, DeliveryRequest, Status
from integration.journal.azure_store import AzureJournal, open_journal
from integration.journal.concerns import park_open
from integration.journal.store import Payload
from integration.journal.table_keys import make_delivery_id
from tests.journeys.route import FHIR_JSON, PATIENCE, Route, bundle, entry, observation, patient

pytestmark = [pytest.mark.live, pytest.mark.azurite]

DELIVERIES = 60
STATES = 2  # of each resource


async def park(journal: AzureJournal, sender: str, body: Any, accepted: datetime) -> str:
    """As an outage leaves a delivery."""
    id_, data = make_delivery_id(accepted, randbits(74)), msgspec.json.encode(body)
    delivery = Delivery(
        id=id_,
        sender=sender,
        key=uuid4().hex,
        digest="d",
        accepted=accepted,
        status=Status.ACCEPTED,
        kind=body["type"],
        entries=len(body["entry"]),
        bytes=len(data),
    )
    added = await journal.add_delivery(delivery, Payload(DeliveryRequest("POST"), data))
    assert added is not None
    assert await park_open(journal, added, "FHIR server: answered 503", datetime.now(UTC))
    return id_


async def wait_for(route: Route, address: str, states: set[str]) -> Any:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        job = (await route.http.get(f"{route.host.url}{address}")).json()
        if job["state"] in states:
            return job
        await asyncio.sleep(0.1)
    raise AssertionError(job)


async def test_sixty_parked_deliveries_reach_the_fhir_server_once_by_one_job(route: Route) -> None:
    sender, names = f"jobs-{uuid4()}", [str(uuid4()) for _ in range(DELIVERIES // STATES)]
    early = datetime.now(UTC) - timedelta(days=1)
    storage, who = route.running.storage, str(uuid4())
    await route.deliver(bundle("batch", entry(patient("Measured", id=who), method="PUT")))
    async with (
        BlobServiceClient.from_connection_string(storage) as blobs,
        TableServiceClient.from_connection_string(storage) as tables,
    ):
        journal = await open_journal(blobs, tables)
        ids = []
        for number in range(DELIVERIES):
            subject, value = f"Patient/{who}", number % STATES
            resource = observation(subject, value) | {"id": names[number // STATES]}
            body = bundle("batch", entry(resource, method="PUT"))
            accepted = early + timedelta(seconds=number)
            ids.append(await park(journal, sender, body, accepted))
        wanted = {"kind": "replay", "filter": {"sender": sender}, "started_by": "an operator"}

        started = await route.http.post(f"{route.host.url}/api/jobs", json=wanted)

        assert started.status_code == 202
        address = f"/api/jobs/{started.json()['id']}"
        assert started.headers["location"].endswith(address)
        job = await wait_for(route, address, {"done", "failed", "stopped"})
        assert (job["state"], job["found"], job["left_out"]) == ("done", DELIVERIES, 0)
        assert job["done"] == DELIVERIES
        async with asyncio.timeout(PATIENCE):
            for id_ in ids:
                while (found := await journal.get_delivery(id_)) is None or (
                    found.status is not Status.DONE
                ):
                    await asyncio.sleep(0.1)
                assert found.refused == 0
    resources = await route.read_all(f"Observation/{name}" for name in names)
    assert len(resources) == len(names)
    for resource in resources.values():
        assert resource["valueQuantity"]["value"] == 60 + (STATES - 1) / 10  # the newer state
        assert int(resource["meta"]["versionId"]) <= STATES


async def reconcile(route: Route, *, dry_run: bool) -> Any:
    """Compare all patients, and return the job that has done it."""
    wanted = {"kind": "reconcile", "filter": {"type": "Patient", "dry_run": dry_run}}
    started = await route.http.post(f"{route.host.url}/api/jobs", json=wanted)
    assert started.status_code == 202, started.text
    address = f"/api/jobs/{started.json()['id']}"
    job = await wait_for(route, address, {"done", "failed", "stopped"})
    assert job["state"] == "done"
    return job


async def test_what_differs_is_found_by_a_look_and_mended_by_a_reconcile(route: Route) -> None:
    id_ = str(uuid4())
    written = await route.http.put(
        f"{route.running.fhir_url}/Patient/{id_}",  # past the relay
        json=patient("Reconciled", id=id_),
        headers=FHIR_JSON | route.own,
    )
    assert written.status_code in (200, 201), written.text
    looked = await reconcile(route, dry_run=True)
    assert looked["done"] == 0
    assert looked["failed"] >= 1
    assert "delivery" not in looked
    assert await route.contacts(id_) == []

    assert (await reconcile(route, dry_run=False))["done"] >= 1
    contact = await route.contact(id_)
    assert contact["lastname"] == "Reconciled"

    row = f"{route.running.dataverse_url}/api/data/v9.2/contacts({contact['contactid']})"
    edited = await route.http.patch(row, json={"lastname": "Edited"})
    assert edited.status_code == 204
    assert (await reconcile(route, dry_run=True))["failed"] >= 1
    assert (await route.contact(id_))["lastname"] == "Edited"
    mended = await reconcile(route, dry_run=False)
    assert (await route.contact(id_))["lastname"] == "Reconciled"
    page = await route.http.get(f"{route.host.url}/api/pages/jobs/{mended['id']}")
    assert mended["delivery"] in page.text
    assert "Reconciled" not in page.text
