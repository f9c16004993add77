"""A hospital puts files into its folder: they are in FHIR, their answers beside them, and no file is
left."""

from __future__ import annotations

import asyncio
import io
import json
import time
import zipfile
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.storage.blob.aio import BlobServiceClient, ContainerClient

from local.inbox_poller import start_poller
from local.processes import PROJECT, Child
from local.services import Running, find_free_ports, run_services, start_host
from local.storage_setup import create_storage
from tests.journeys.conftest import LEASE
from tests.journeys.route import PATIENCE, bundle, clinic, entry, patient

SENDERS = """
[lab]
proof = {scheme = "folder"}

[readonly]
proof = {scheme = "folder"}
rights = {types = ["Observation"]}

[web]
proof = {scheme = "function-key"}
"""


class Hospital:
    """What a sender sees: its folder, and the answers."""

    def __init__(self, files: ContainerClient, answers: ContainerClient) -> None:
        self.files, self.answers = files, answers

    async def send(self, name: str, content: Any) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        await self.files.upload_blob(name, body, overwrite=True)

    async def wait_for(self, names: Collection[str]) -> dict[str, Any]:
        """The answers of these names, when all are there."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            found = {name async for name in self.answers.list_blob_names()}
            if found.issuperset(names):
                return {name: await self._read(name) for name in names}
            await asyncio.sleep(0.05)
        raise AssertionError(f"no answer to {set(names) - found} in {PATIENCE} s")

    async def _read(self, name: str) -> Any:
        return json.loads(await (await self.answers.download_blob(name)).readall())

    async def list_left(self) -> list[str]:
        """The files that are still there. One that is being deleted is waited for."""
        until = time.monotonic() + 20
        while left := [name async for name in self.files.list_blob_names()]:
            if time.monotonic() > until:
                break
            await asyncio.sleep(0.05)
        return left


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Child]]:
    if not (PROJECT / "local/node_modules/azurite").exists():
        pytest.skip("local/node_modules is missing: run make test")
    folder: Path = tmp_path_factory.mktemp("inbox")
    (folder / "senders.toml").write_text(SENDERS, "utf-8")
    ports = find_free_ports()
    with run_services(ports, folder) as running:
        settings = {
            **running.settings(),
            "INBOX": "inbox",
            "SENDERS": str(folder / "senders.toml"),
            "HOST_LEASE_SECONDS": LEASE,
            "HOST_USE_FUNC": "0",
            "HOUSEKEEPING_SCHEDULE": "* * * * * *",
            "AzureFunctionsJobHost__extensions__queues__visibilityTimeout": "00:00:01",
            "AzureFunctionsJobHost__extensions__queues__maxPollingInterval": "00:00:00.100",
        }
        asyncio.run(create_storage(running))
        with (
            start_host(settings, ports.host, folder) as host,
            start_poller(settings, folder, interval=0.1),
        ):
            yield running, host


@pytest.fixture
async def hospital(started: tuple[Running, Child]) -> AsyncIterator[Hospital]:
    running, _ = started
    async with BlobServiceClient.from_connection_string(running.storage) as blobs:
        containers = [blobs.get_container_client(name) for name in ("inbox", "results")]
        for container in containers:
            if not await container.exists():
                await container.create_container()
        yield Hospital(*containers)


def statuses(answer: dict[str, Any]) -> list[str]:
    return [each["response"]["status"].split()[0] for each in answer["entry"]]


async def test_a_file_is_written_to_fhir_and_answered_by_a_file(
    started: tuple[Running, Child], hospital: Hospital
) -> None:
    name = "lab/2026/Müller, Ada (1).json"
    await hospital.send(name, bundle("batch", entry(patient("Inbox"))))
    answer = (await hospital.wait_for([f"{name}.json"]))[f"{name}.json"]
    assert statuses(answer) == ["201"]
    location = answer["entry"][0]["response"]["location"].partition("/_history/")[0]
    async with httpx.AsyncClient() as http:
        found = await http.get(f"{started[0].fhir_url}/{location}")
    assert found.json()["name"][0]["family"] == "Inbox"
    assert await hospital.list_left() == []


async def test_a_zip_is_answered_member_by_member_and_rights_hold(hospital: Hospital) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", json.dumps(patient("Zip")))
        archive.writestr("b.ndjson", json.dumps(patient("Line")) + "\n" + json.dumps(patient("2")))
        archive.writestr("c.json", "no JSON")
    await hospital.send("lab/day.zip", made.getvalue())
    await hospital.send("readonly/a.json", patient("Forbidden"))
    names = [f"lab/day.zip/{name}.json" for name in ("a.json", "b.ndjson", "c.json")]
    answers = await hospital.wait_for([*names, "readonly/a.json.json"])
    assert statuses(answers[names[0]]) == ["201"]
    assert statuses(answers[names[1]]) == ["201", "201"]
    assert answers[names[2]]["resourceType"] == "OperationOutcome"
    assert answers["readonly/a.json.json"]["issue"][0]["code"] == "forbidden"
    assert await hospital.list_left() == []


async def test_a_host_that_is_killed_again_and_again_loses_no_file_and_writes_none_twice(
    started: tuple[Running, Child], hospital: Hospital
) -> None:
    running, host = started
    names = [f"lab/clinic-{number}.json" for number in range(40)]
    for number, name in enumerate(names):
        organization, _ = clinic(f"inbox-{number}")
        await hospital.send(name, bundle("transaction", entry(organization)))
        if number in (10, 20, 30):
            host.kill()
            host.start()
    answers = await hospital.wait_for([f"{name}.json" for name in names])
    assert {status for answer in answers.values() for status in statuses(answer)} <= {"200", "201"}
    assert await hospital.list_left() == []
    async with httpx.AsyncClient() as http:
        for number in range(len(names)):
            found = await http.get(
                f"{running.fhir_url}/Organization",
                params={"identifier": f"urn:test:clinics|inbox-{number}"},
            )
            assert len(found.json().get("entry", [])) == 1, number
