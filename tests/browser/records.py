"""Synthetic deliveries of several senders, of which some wait, are refused, held or parked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import msgspec
from azure.data.tables.aio import TableServiceClient
from azure.storage.blob.aio import BlobServiceClient

from integration.core.model import Delivery, DeliveryRequest, Status
from integration.journal.azure_configuration import open_configuration_store
from integration.journal.azure_store import open_journal
from integration.journal.configuration import Draft
from integration.journal.store import Payload
from integration.journal.table_keys import build_audit_id, make_delivery_id
from integration.mapping.files import MAPS_FOLDER
from local.services import Ports, Running, run_services, start_host
from tests.journeys.route import FHIR_JSON, bundle, entry, observation, patient
from tests.journeys.senders import SECRETS, SENDERS

# Every patient has one of each. Nobody else has, and no word of a page.
FAMILIES = ("Quillborne", "Vanterpool", "Ostrandez", "Birkelund", "Thessaly", "Grimaldus")
GIVEN = "Ottolinda"
KNOWN_NAMES = (*FAMILIES, GIVEN)

_WANTED = {"entries", "held", "parked", "waiting", "row-refused", "row-waiting"}
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A host with its services, and what examples of addresses name: ids by what became of it."""

    route_url: str
    fhir_url: str
    storage: str
    ids: Mapping[str, str]


@contextmanager
def run_route(ports: Ports, folder: Path, **changes: str) -> Iterator[tuple[Running, str]]:
    """Run everything, as on a laptop: the pages are open. Yield it with the address of the host."""
    senders_file = folder / "senders.toml"
    senders_file.write_text(SENDERS.format(base="http://127.0.0.1:9/fhir"), "utf-8")
    with run_services(ports, folder) as running:
        settings = {
            **running.settings(),
            **SECRETS,
            "SENDERS": str(senders_file),
            "FETCH_FROM": "http://127.0.0.1:9/fhir",
            "PAGES_SIGN_IN": "off",
            "HOST_USE_FUNC": "0",
            "HOUSEKEEPING_SCHEDULE": "*/2 * * * * *",
            "AzureFunctionsJobHost__extensions__queues__maxPollingInterval": "00:00:00.100",
            **changes,
        }
        with start_host(settings, ports.host, folder) as host:
            yield running, host.url


async def fill(running: Running, url: str) -> dict[str, str]:
    """Send everything, and wait until it is where it stays. Return ids by what became of it."""
    async with httpx.AsyncClient(timeout=60) as http:
        sending = _Sending(running, url, http)
        ids = {"parked": await _leave_old_delivery(running)}
        ids["written"] = await sending.send("north", _build_ward("north", 3))
        ids["transaction"] = await sending.send("south", _build_ward("south", 2))
        ids["held"] = await sending.send("feed", b"this is no FHIR")
        await sending.settle(ids["written"])
        await sending.fault("fhir", scope="entry", entries=[1], status=422, method="POST")
        ids["refused"] = await sending.send("north", _build_ward("north", 2))
        await sending.settle(ids["refused"])
        await sending.see_contacts(7)  # so that no other row meets the fault
        ids["row-refused"] = await sending.send("north", _build_long_record())
        await sending.see("row-refused")
        await sending.fault("dataverse", kind="status", status=403)
        ids["row-waiting"] = await sending.send("north", _build_ward("north", 1))
        await sending.see("row-waiting")
        await sending.fault("fhir", status=403, method="POST")
        ids["waiting"] = await sending.send("north", _build_ward("north", 1))
        await sending.see(*_WANTED)
        ids["patient"] = await sending.find_patient(ids["written"])
        ids["patient-without-row"] = await sending.find_patient(ids["row-refused"])
        ids["job"] = await sending.replay("feed")  # it is held again
        await sending.see("held")
        ids |= await _leave_configuration(running, sending)
        return ids


class _Sending:
    """A sender of the route, who also has its services misbehave."""

    def __init__(self, running: Running, url: str, http: httpx.AsyncClient) -> None:
        self.running, self.url, self.http = running, url, http

    async def send(self, sender: str, body: Any) -> str:
        secret = SECRETS[f"{sender.upper()}_TOKEN"]
        name = "verification-token" if sender == "feed" else "authorization"
        proof = {name: secret if sender == "feed" else f"Bearer {secret}"}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = await self.http.post(
            f"{self.url}/api/senders/{sender}/fhir", content=data, headers={**FHIR_JSON, **proof}
        )
        assert answer.status_code in (200, 202), answer.text
        address = answer.headers.get("content-location")
        if address is None:  # it waited for its answer, which says no address
            query = {"sender": sender, "_count": 1}
            listed = await self.http.get(f"{self.url}/api/deliveries", params=query)
            address = listed.json()["deliveries"][0]["id"]
        return str(address).rpartition("/")[2]

    async def fault(self, part: str, **fault: Any) -> None:
        fhir = self.running.fhir_url.removesuffix("/fhir")
        base = fhir if part == "fhir" else self.running.dataverse_url
        answer = await self.http.post(f"{base}/control/faults", json={"next": 1, **fault})
        assert answer.status_code < 300, answer.text

    async def settle(self, delivery: str) -> dict[str, Any]:
        async with asyncio.timeout(_PATIENCE):
            while True:
                answer = await self.http.get(f"{self.url}/api/deliveries/{delivery}")
                if answer.status_code == 200:
                    found: dict[str, Any] = answer.json()
                    return found
                await asyncio.sleep(0.1)

    async def replay(self, sender: str) -> str:
        """Have a job replay what is parked of a sender, and wait for its end. Return its id."""
        wanted = {"kind": "replay", "filter": {"sender": sender}, "started_by": "an operator"}
        answer = await self.http.post(f"{self.url}/api/jobs", json=wanted)
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json()
        async with asyncio.timeout(_PATIENCE):
            while job["state"] != "done":
                await asyncio.sleep(0.1)
                job = (await self.http.get(f"{self.url}/api/jobs/{job['id']}")).json()
        return str(job["id"])

    async def configure(self, body: dict[str, Any], query: str = "") -> dict[str, Any]:
        """Publish changes, or begin a preview of them."""
        asked = {"by": "ada@hospital.example", "why": "the ward's column", **body}
        answer = await self.http.post(f"{self.url}/api/configuration{query}", json=asked)
        assert answer.status_code in (200, 202), answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def wait_for_job(self, id_: str) -> str:
        async with asyncio.timeout(_PATIENCE):
            while True:
                job = (await self.http.get(f"{self.url}/api/jobs/{id_}")).json()
                if job["state"] not in ("running", "stopping"):
                    assert job["state"] == "done", job
                    return id_
                await asyncio.sleep(0.1)

    async def see(self, *kinds: str) -> None:
        """Wait until the list of what needs attention has these kinds."""
        async with asyncio.timeout(_PATIENCE):
            while True:
                answer = await self.http.get(f"{self.url}/api/attention?_count=500")
                assert answer.status_code == 200, answer.text
                if {*kinds} <= {each["kind"] for each in answer.json()["attention"]}:
                    return
                await asyncio.sleep(0.1)

    async def see_contacts(self, number: int) -> None:
        """Wait until so many patients, or more, are rows."""
        base = f"{self.running.dataverse_url}/api/data/v9.2/contacts"
        async with asyncio.timeout(_PATIENCE):
            while len((await self.http.get(base)).json()["value"]) < number:
                await asyncio.sleep(0.1)

    async def find_patient(self, delivery: str) -> str:
        answer = await self.settle(delivery)
        location: str = answer["entry"][0]["response"]["location"]
        return location.split("/")[1]


def _build_ward(sender: str, patients: int) -> dict[str, Any]:
    entries = []
    for number in range(patients):
        family = FAMILIES[number % len(FAMILIES)]
        record = {
            "identifier": [{"system": f"urn:{sender}:mrn", "value": f"{family}-{uuid4()}"}],
            "name": [{"use": "official", "family": family, "given": [GIVEN]}],
        }
        who = f"urn:uuid:{uuid4()}"
        entries += [entry(patient(family) | record, who), entry(observation(who, number))]
    return bundle("batch" if sender == "north" else "transaction", *entries)


def _build_long_record() -> dict[str, Any]:
    """A patient whose id is longer than the column of Dataverse: its row is refused."""
    record = {"identifier": [{"system": "urn:north:mrn", "value": FAMILIES[4]}]}
    resource = patient(FAMILIES[4], id=f"north-{uuid4()}".ljust(64, "x"), **record)
    return bundle("batch", entry(resource, method="PUT"))


async def _leave_configuration(running: Running, sending: _Sending) -> dict[str, str]:
    """Publish a version, have a draft previewed, and leave that one and another, which is broken.
    Return ids by what they are."""
    shipped = (MAPS_FOLDER / "healthcare" / "patient.toml").read_text("utf-8")
    published = {"maps/patient.toml": f"# Ours.\n{shipped}"}
    await sending.configure({"changes": published})
    column = '\n[[attribute]]\ncolumn = "department"\npath = "id"\n'
    changed = {"maps/patient.toml": f"# Ours.\n{shipped}{column}"}
    preview = await sending.configure({"changes": changed}, "?preview=Patient")
    ids = {"preview": await sending.wait_for_job(str(preview["id"]))}
    async with (
        BlobServiceClient.from_connection_string(running.storage) as blobs,
        TableServiceClient.from_connection_string(running.storage) as tables,
    ):
        store = await open_configuration_store(blobs, tables)
        now = datetime.now(UTC)
        for name, text in (("draft", changed["maps/patient.toml"]), ("broken-draft", "[row")):
            ids[name] = build_audit_id(now, f"{len(ids):016x}")
            digest = await store.add_document(text)
            draft = Draft(
                id=ids[name],
                base=1,
                changes={"maps/patient.toml": digest},
                saved=now,
                saved_by="ada@hospital.example",
            )
            assert await store.save_draft(draft) is not None
    return ids


async def _leave_old_delivery(running: Running) -> str:
    """Leave a delivery as a worker does that died days ago: housekeeping parks it."""
    accepted = datetime.now(UTC) - timedelta(days=4)
    body = _build_ward("north", 1)
    data = msgspec.json.encode(body)
    delivery = Delivery(
        id=make_delivery_id(accepted, 1),
        sender="north",
        key=uuid4().hex,
        digest="d",
        accepted=accepted,
        status=Status.ACCEPTED,
        kind="batch",
        entries=len(body["entry"]),
        bytes=len(data),
    )
    async with (
        BlobServiceClient.from_connection_string(running.storage) as blobs,
        TableServiceClient.from_connection_string(running.storage) as tables,
    ):
        journal = await open_journal(blobs, tables)
        await journal.add_delivery(delivery, Payload(DeliveryRequest("POST"), data))
        await journal.index_delivery(delivery.id, accepted)
    return delivery.id
