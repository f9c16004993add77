"""The FHIR server of the laptop, one process for all its tests."""

import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.local.fhir.calls import FHIR_JSON

LOCAL = Path(__file__).parents[3] / "local"


@contextmanager
def run_server(**environment):
    """Run a server on a free port. Yield its address."""
    if shutil.which("node") is None or not (LOCAL / "node_modules").exists():
        pytest.skip("node or local/node_modules is not installed")
    command = ["node", str(LOCAL / "fhir" / "server.mjs")]
    settings = {**os.environ, "FHIR_PORT": "0", **environment}
    with subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, text=True) as process:
        try:
            ready = process.stdout.readline()
            yield re.search(r"http://\S+(?=/fhir)", ready)[0]
        finally:
            process.terminate()
    assert process.returncode == 0


@pytest.fixture(scope="package")
def server():
    with run_server() as address:
        yield address


@pytest.fixture
def start():
    return run_server


@pytest.fixture
async def fhir(server):
    async with httpx.AsyncClient(
        base_url=server + "/fhir", headers=FHIR_JSON, timeout=30
    ) as client:
        await client.post(server + "/control/reset")
        yield client


@pytest.fixture
def fault(server, fhir):
    async def ask(**spec):
        assert (await fhir.post(server + "/control/faults", json=spec)).status_code == 200

    return ask
