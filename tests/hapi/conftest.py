"""HAPI's server, for tests that `make nightly` runs and no other command."""

from __future__ import annotations

import os
from collections.abc import Iterator

import httpx
import pytest

from local.hapi.server import OWN_URL, build_server, find_obstacle, make_part
from local.processes import Child
from local.services import find_free_ports


@pytest.fixture(scope="session")
def hapi_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the server that `python -m local.hapi` has started for this run, or else of an own one."""
    if own := os.environ.get(OWN_URL):
        yield own
        return
    if obstacle := find_obstacle():
        pytest.skip(obstacle)
    port = find_free_ports().fhir
    part = make_part(build_server(), port, tmp_path_factory.mktemp("hapi") / "hapi.log")
    with Child(part) as server:
        server.start()
        yield f"http://127.0.0.1:{port}/fhir"


@pytest.fixture
def http(hapi_url: str) -> Iterator[httpx.Client]:
    headers = {"content-type": "application/fhir+json", "cache-control": "no-cache"}
    with httpx.Client(base_url=hapi_url, headers=headers, timeout=60, trust_env=False) as client:
        yield client
