"""`python -m local.demo` shows that everything arrives, and says plainly when it does not."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import httpx
import pytest

from integration.core import decimal_json
from local.processes import PROJECT, Child, Part
from local.samples import LARGE_ENTRIES, build_large_transaction, load_samples
from local.services import VARIABLES, find_free_ports

MODULES = PROJECT / "local/node_modules"
MISSING = [name for name in ("azurite", "@medplum") if not (MODULES / name).is_dir()]

LAST = re.compile(r"demo: deliveries=(\d+) resources=(\d+) contacts=(\d+) failed=(\d+)")

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} not installed: npm ci --prefix local"),
]


def demo(**changes: str) -> subprocess.CompletedProcess[str]:
    ports = {VARIABLES[name]: str(port) for name, port in asdict(find_free_ports()).items()}
    env = {name: value for name, value in os.environ.items() if not name.startswith("FHIR_")}
    return subprocess.run(
        [sys.executable, "-m", "local.demo"],
        cwd=PROJECT,
        env={**env, **ports, **changes},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def sent() -> Counter[str]:
    """How many resources of each type the samples hold."""
    kinds: list[str] = []
    for sample in load_samples():
        if sample.name == "large transaction":
            entries = build_large_transaction(LARGE_ENTRIES)["entry"]
            resources = [entry["resource"] for entry in entries]
        elif sample.name.endswith(".ndjson"):
            resources = [decimal_json.decode(line) for line in sample.body.splitlines()]
        else:
            body = decimal_json.decode(sample.body)
            resources = [entry["resource"] for entry in body.get("entry", [{"resource": body}])]
        assert len(resources) == sample.entries
        kinds += [resource["resourceType"] for resource in resources]
    return Counter(kinds)


def numbers(ended: subprocess.CompletedProcess[str]) -> tuple[int, ...]:
    match = LAST.fullmatch(ended.stdout.splitlines()[-1])
    assert match, ended.stdout
    return tuple(map(int, match.groups()))


def test_everything_arrives() -> None:
    ended = demo()
    expected = sent()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    assert numbers(ended) == (len(load_samples()), expected.total(), expected["Patient"], 0)
    for kind, number in expected.items():
        assert re.search(rf"^  {kind} +{number} +{number}$", ended.stdout, re.MULTILINE), kind
    ways = dict(
        re.findall(r"^  (\S.*?) +\d+ .*; (kept whole|split .*)$", ended.stdout, re.MULTILINE)
    )
    assert ways == {
        "transaction.json": "kept whole",
        "large transaction": "split into 3 transactions",
    }


@pytest.mark.slow
def test_a_refused_entry_makes_it_fail() -> None:
    """With splitting switched off, the large transaction is refused, entry by entry."""
    ended = demo(OVER_LIMIT="reject")
    small = sent().total() - LARGE_ENTRIES
    assert ended.returncode == 1
    assert numbers(ended) == (len(load_samples()), small, sent()["Patient"] - 2, LARGE_ENTRIES)
    assert "OVER_LIMIT is reject" in ended.stdout
    assert "not all arrived; logs are in" in ended.stderr


@pytest.mark.parametrize("part", ["blob", "host"])
def test_a_taken_port_is_named(part: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = demo(**{VARIABLES[part]: str(port)})
    assert ended.returncode == 1
    assert ended.stderr == f"demo: {part} port {port} is taken: set {VARIABLES[part]}\n"


@pytest.mark.slow
def test_a_service_that_does_not_answer_is_named() -> None:
    ended = demo(FHIR_URL=f"http://127.0.0.1:{find_free_ports().fhir}/fhir")
    assert ended.returncode == 1
    assert re.fullmatch(
        r"demo: the health check failed: .*connection failed.*; see .*\n", ended.stderr
    )


@pytest.mark.slow
def test_a_fhir_server_of_ones_own_is_used(tmp_path: Path) -> None:
    """What was there before does not count."""
    port = find_free_ports().fhir
    part = Part(
        "fhir",
        ("node", str(PROJECT / "local/fhir/server.mjs")),
        {"FHIR_PORT": str(port)},
        (f"http://127.0.0.1:{port}/health",),
        tmp_path / "fhir.log",
    )
    with Child(part) as server:
        server.start()
        before = {"resourceType": "Patient", "id": "ehr-20417", "gender": "unknown"}
        url = f"http://127.0.0.1:{port}/fhir"
        headers = {"content-type": "application/fhir+json"}
        httpx.put(f"{url}/Patient/ehr-20417", json=before, headers=headers)
        httpx.post(f"{url}/Patient", json={"resourceType": "Patient"}, headers=headers)
        ended = demo(FHIR_URL=url)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert numbers(ended) == (len(load_samples()), sent().total(), sent()["Patient"], 0)
    assert re.search(r"^  ehr-20417 +Beatriz Specimen .* 2$", ended.stdout, re.MULTILINE)
    assert "fhir is ready" not in ended.stdout
