"""The whole route, started once for all journeys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from local.processes import PROJECT, Child
from local.services import ADDRESS, Ports, Running, find_free_ports, run_services, start_host
from tests.journeys.route import Route, open_route
from tests.journeys.senders import SECRETS, SENDERS

# A killed host's messages come back after this many seconds.
LEASE = "2"


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("route")


@pytest.fixture(scope="package")
def source_ports() -> Ports:
    """Where the FHIR server of a sender is, for the journeys that start one."""
    return find_free_ports()


@pytest.fixture(scope="package")
def parts(folder: Path, source_ports: Ports) -> Iterator[tuple[Running, Child]]:
    if not (PROJECT / "local/node_modules/azurite").exists():
        pytest.skip("local/node_modules is missing: run make test")
    ports = find_free_ports()
    base = f"http://{ADDRESS}:{source_ports.fhir}/fhir"
    senders_file = folder / "senders.toml"
    senders_file.write_text(SENDERS.format(base=base), "utf-8")
    with run_services(ports, folder) as running:
        settings = {
            **running.settings(),
            **SECRETS,
            "SENDERS": str(senders_file),
            "FETCH_FROM": base,
            "PAGES_SIGN_IN": "off",
            "HOST_LEASE_SECONDS": LEASE,
            "HOST_USE_FUNC": "0",
            "HOUSEKEEPING_SCHEDULE": "* * * * * *",
            "AzureFunctionsJobHost__extensions__queues__visibilityTimeout": "00:00:01",
            "AzureFunctionsJobHost__extensions__queues__maxPollingInterval": "00:00:00.100",
        }
        with start_host(settings, ports.host, folder) as host:
            yield running, host


@pytest.fixture
async def route(parts: tuple[Running, Child], folder: Path) -> AsyncIterator[Route]:
    running, host = parts
    async with open_route(running, host, folder) as found:
        yield found


@pytest.fixture
async def faulty(route: Route) -> AsyncIterator[Route]:
    """A route whose FHIR server can be told to misbehave."""
    if not route.local_fhir:
        pytest.skip("FHIR_URL names a server that cannot be told to misbehave")
    yield route
    await route.no_faults()
