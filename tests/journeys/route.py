"""The whole route as a test sees it: endpoints in front, FHIR and Dataverse behind."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from integration.app.settings import read_settings
from local.access import build_fhir_headers
from local.hapi.server import OWN_URL
from local.processes import PROJECT, Child
from local.services import Running

FHIR_JSON = {"content-type": "application/fhir+json"}
PATIENCE = 180.0  # seconds; a journey that takes longer has failed
# HAPI's server takes minutes for a thousand conditional creates, each a search.
HAPI_PATIENCE = 900.0


@dataclass(frozen=True)
class Route:
    """Everything running, and how to talk to it."""

    running: Running
    host: Child
    http: httpx.AsyncClient
    folder: Path
    local_fhir: bool
    is_hapi: bool  # see docs/fhir-servers.md
    own: dict[str, str]  # headers that the FHIR server wants

    async def send(
        self, body: Any, path: str = "", method: str = "POST", **headers: str
    ) -> httpx.Response:
        """Send a delivery: bytes as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.request(
            method, f"{self.host.url}/api/fhir{path}", content=data, headers=FHIR_JSON | named
        )

    async def arrive(self, answer: httpx.Response) -> list[dict[str, Any]]:
        """Wait for a delivery's end: the entries of its response bundle."""
        assert answer.status_code == 202, answer.text
        patience = HAPI_PATIENCE if self.is_hapi else PATIENCE
        until = time.monotonic() + patience
        while time.monotonic() < until:
            try:
                status = await self.http.get(answer.headers["content-location"])
            except httpx.TransportError:
                status = None  # the host may be down, as the journey wants it
            if status is not None and status.status_code != 202:
                assert status.status_code == 200, status.text
                entries: list[dict[str, Any]] = status.json().get("entry", [])
                return entries
            await asyncio.sleep(0.05)
        raise AssertionError(
            f"not done in {patience} s: {status.headers if status else 'no answer'}"
        )

    async def deliver(self, body: Any, **asked: str) -> list[dict[str, Any]]:
        """Send and wait."""
        return await self.arrive(await self.send(body, **asked))

    async def fhir(self, identity: str) -> httpx.Response:
        """A resource, straight from the FHIR server."""
        return await self.http.get(f"{self.running.fhir_url}/{identity}", headers=self.own)

    async def read_all(self, identities: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The resources that exist, by Type/id, straight from the FHIR server."""
        wanted = sorted(set(identities))
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(wanted), 500):
            some = wanted[start : start + 500]
            reads = [{"request": {"method": "GET", "url": identity}} for identity in some]
            answer = await self.http.post(
                self.running.fhir_url,
                json={"resourceType": "Bundle", "type": "batch", "entry": reads},
                headers=self.own,
            )
            assert answer.status_code == 200, answer.text
            for identity, read in zip(some, answer.json()["entry"], strict=True):
                if read["response"]["status"].startswith("200"):
                    found[identity] = read["resource"]
        return found

    async def contacts(self, fhir_id: str) -> list[dict[str, Any]]:
        """The rows that show a patient."""
        answer = await self.http.get(
            f"{self.running.dataverse_url}/api/data/v9.2/contacts",
            params={"$filter": f"msemr_azurefhirid eq '{fhir_id}'"},
        )
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()["value"]
        return rows

    async def contact(self, fhir_id: str, version: str | None = None) -> dict[str, Any]:
        """The one row that shows a patient, in that version; waits for it."""
        until = time.monotonic() + PATIENCE
        rows: list[dict[str, Any]] = []
        while time.monotonic() < until:
            rows = await self.contacts(fhir_id)
            if rows and version in (None, rows[0]["msemr_azurefhirversion"]):
                break
            await asyncio.sleep(0.05)
        assert len(rows) == 1, f"{len(rows)} contacts show {fhir_id}"
        return rows[0]

    async def fault(self, part: str, **fault: Any) -> None:
        """Have a local neighbour misbehave: see its README for what it can do."""
        base = self.running.fhir_url.removesuffix("/fhir")
        base = base if part == "fhir" else self.running.dataverse_url
        answer = await self.http.post(f"{base}/control/faults", json=fault)
        assert answer.status_code < 300, answer.text

    async def no_faults(self) -> None:
        """Have the local neighbours behave again."""
        for base in (self.running.fhir_url.removesuffix("/fhir"), self.running.dataverse_url):
            await self.http.delete(f"{base}/control/faults")

    async def held(self, kind: str) -> int:
        """How many resources of a type the FHIR server has."""
        headers = {**self.own, "cache-control": "no-cache"}
        url = f"{self.running.fhir_url}/{kind}?_summary=count"
        total: int = (await self.http.get(url, headers=headers)).json()["total"]
        return total


@asynccontextmanager
async def open_route(running: Running, host: Child, folder: Path) -> AsyncIterator[Route]:
    """A route of what runs already."""
    async with httpx.AsyncClient(timeout=60) as http:
        yield Route(
            running=running,
            host=host,
            http=http,
            folder=folder,
            local_fhir="FHIR_URL" not in os.environ,
            is_hapi=OWN_URL in os.environ,
            own=build_fhir_headers(read_settings(running.settings()).fhir.scope),
        )


def provision(settings: Mapping[str, str], host_url: str, key: str) -> None:
    """Set the organisation up by the command, as an admin does."""
    told = {
        **os.environ,
        **settings,
        "FEED_URL": f"{host_url}/api/odata",
        "FEED_KEY": key,
        "AZURE_CLIENT_ID": "7b1f0000-0000-4000-8000-0000000000aa",
    }
    command = [sys.executable, "-m", "integration", "provision"]
    done = subprocess.run(
        command, cwd=PROJECT, env=told, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert key not in done.stdout


def locations(entries: Iterable[dict[str, Any]]) -> list[str]:
    """Type/id of what was written, in the sender's order."""
    found = [entry["response"].get("location", "") for entry in entries]
    return [location.partition("/_history/")[0] for location in found]


def statuses(entries: Iterable[dict[str, Any]]) -> set[str]:
    """The different statuses of a response bundle."""
    return {entry["response"]["status"] for entry in entries}


def patient(name: str, **more: Any) -> dict[str, Any]:
    """A synthetic patient."""
    return {
        "resourceType": "Patient",
        "name": [{"use": "official", "family": name, "given": ["Ada", "Lin"]}],
        "gender": "female",
        "birthDate": "1984-05-06",
    } | more


def clinic(value: str) -> tuple[dict[str, Any], dict[str, str]]:
    """A synthetic organisation, and the condition under which it is created."""
    system = "urn:test:clinics"
    organization = {
        "resourceType": "Organization",
        "identifier": [{"system": system, "value": value}],
        "name": "Clinic",
    }
    return organization, {"ifNoneExist": f"identifier={system}|{value}"}


def observation(subject: str, number: int = 0) -> dict[str, Any]:
    """A synthetic body weight."""
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]},
        "subject": {"reference": subject},
        "valueQuantity": {"value": 60 + number / 10, "unit": "kg"},
    }


def entry(
    resource: dict[str, Any], full_url: str | None = None, method: str = "POST", **request: str
) -> dict[str, Any]:
    """An entry of a transaction or batch."""
    kind = resource["resourceType"]
    url = f"{kind}/{resource['id']}" if method == "PUT" else kind
    shape: dict[str, Any] = {"fullUrl": full_url} if full_url else {}
    return shape | {
        "resource": resource,
        "request": {"method": method, "url": url} | request,
    }


def bundle(kind: str, *entries: dict[str, Any]) -> dict[str, Any]:
    """A transaction or batch."""
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def connected(name: str, entries: int) -> dict[str, Any]:
    """A transaction in which everything refers to one patient."""
    who = "urn:uuid:11111111-1111-4111-8111-111111111111"
    return bundle(
        "transaction",
        entry(patient(name), who),
        *(entry(observation(who, number)) for number in range(entries - 1)),
    )
