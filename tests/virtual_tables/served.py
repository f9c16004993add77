"""The feed as the Functions host serves it, with observations for clients to read and write."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from local.services import find_free_ports, run_services, start_host

KEY = "what/Dataverse-sends=="
PATIENT = str(UUID(int=1))
ROWS = 25
PAGE = 10
FINAL, PRELIMINARY = 935000002, 935000001


@dataclass(frozen=True)
class Served:
    """Where the feed and the FHIR server behind it are."""

    root: str
    fhir: httpx.Client

    def ask(self, command: Sequence[str], **more: Any) -> dict[str, Any]:
        """What a client saw that runs as a process of its own."""
        known = {"root": self.root, "key": KEY, "row": str(UUID(int=100)), "patient": PATIENT}
        given = {**known, **more}
        done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def put_observations(self) -> None:
        """The same rows as before each test, and no others."""
        self.fhir.post(str(self.fhir.base_url).removesuffix("/fhir/") + "/control/reset")
        for number in range(ROWS):
            observation: dict[str, Any] = {
                "resourceType": "Observation",
                "id": str(UUID(int=100 + number)),
                "status": "preliminary" if number < 4 else "final",
                "code": {"text": f"Weight {number}"},
                "subject": {"reference": f"Patient/{PATIENT}"},
                "effectiveDateTime": f"2024-01-{number + 1:02}",
            }
            if number:
                value = {"value": 60 + number / 2, "unit": "kg"}
                observation["valueQuantity"] = value
            path = f"Observation/{observation['id']}"
            answer = self.fhir.put(path, json=observation)
            assert answer.status_code == 201, answer.text


@contextmanager
def serve_feed(folder: Path) -> Iterator[Served]:
    """Start storage, the FHIR server and the host, with pages of ten rows."""
    ports = find_free_ports()
    with run_services(ports, folder, parts=("storage", "fhir")) as running:
        settings = {
            **running.settings(),
            "FEED_PAGE": str(PAGE),
            "HOST_FUNCTION_KEYS": f"dataverse={KEY}",
            "HOST_USE_FUNC": "0",
        }
        with (
            start_host(settings, ports.host, folder) as host,
            httpx.Client(base_url=running.fhir_url) as fhir,
        ):
            yield Served(f"{host.url}/api/odata/", fhir)
