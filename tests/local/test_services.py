"""The neighbours come up, are named when they do not, and are gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from azure.storage.blob import BlobServiceClient

from local.host.settings import CannotStart
from local.processes import PROJECT, Child, Part
from local.services import (
    VARIABLES,
    Ports,
    Running,
    check_ports,
    find_free_ports,
    is_free,
    read_ports,
    run_services,
)

MODULES = PROJECT / "local/node_modules"


def needs(*packages: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    missing = [name for name in packages if not (MODULES / name).is_dir()]
    reason = f"{', '.join(missing)} not installed: npm ci --prefix local"
    return lambda test: pytest.mark.azurite(pytest.mark.skipif(bool(missing), reason=reason)(test))


@pytest.fixture(autouse=True)
def _own_fhir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FHIR_URL", raising=False)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield int(listening.getsockname()[1])


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def nested(folder: Path) -> Part:
    """A service whose child of its own is what answers, as npm starts node."""
    port = find_free_ports().host
    server = f"[sys.executable, '-m', 'http.server', '--bind', '127.0.0.1', '{port}']"
    text = f"import subprocess, sys; subprocess.run({server})"
    address = f"http://127.0.0.1:{port}/"
    return Part(
        name="nest",
        command=(sys.executable, "-c", text),
        env={},
        ready=(address,),
        log=folder / "log",
        folder=folder,
    )


def script(text: str, folder: Path) -> Part:
    address = f"http://127.0.0.1:{find_free_ports().host}/"
    return Part("clock", (sys.executable, "-c", text), {}, (address,), folder / "clock.log")


@needs("azurite", "@medplum")
def test_all_services_answer_and_are_gone_afterwards(tmp_path: Path) -> None:
    ports = find_free_ports()
    told: list[str] = []
    with run_services(ports, tmp_path, tell=told.append) as running:
        settings = running.settings()
        assert httpx.get(f"{settings['FHIR_URL']}/metadata").json()["fhirVersion"] == "4.0.1"
        assert httpx.get(f"{settings['DATAVERSE_URL']}/api/data/v9.2/WhoAmI").status_code < 500
        assert all(child.running for child in running.parts.values())
        assert [line.split()[0] for line in told] == ["storage", "fhir", "dataverse"]
    check_ports(ports, ["blob", "queue", "table", "fhir", "dataverse"])


@needs("azurite")
def test_a_killed_service_can_be_started_again(tmp_path: Path) -> None:
    with run_services(find_free_ports(), tmp_path, parts=["storage"]) as running:
        storage = running.parts["storage"]
        storage.kill()
        assert not storage.running
        with pytest.raises(httpx.ConnectError):
            httpx.get(storage.url)
        storage.start()
        assert storage.running


@needs("azurite")
def test_one_that_fails_takes_the_others_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A node that runs everything but the FHIR server.
    node = tmp_path / "node"
    refuses = "*server.mjs) echo broken on purpose >&2; exit 1;;"
    node.write_text(f'#!/bin/sh\ncase "$1" in {refuses} esac\nexec "{shutil.which("node")}" "$@"\n')
    node.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    ports = find_free_ports()
    with (
        pytest.raises(CannotStart, match=r"fhir ended before it answered(.|\n)*on purpose"),
        run_services(ports, tmp_path, parts=["storage", "fhir"]),
    ):
        pytest.fail("it must not come up")
    check_ports(ports, ["blob", "queue", "table"])


def test_a_taken_port_is_named_with_its_variable(taken: int, tmp_path: Path) -> None:
    with (
        pytest.raises(CannotStart, match=rf"queue port {taken} is taken: set AZURITE_QUEUE_PORT"),
        run_services(Ports(queue=taken, blob=find_free_ports().blob), tmp_path, parts=["storage"]),
    ):
        pytest.fail("it must not come up")


@pytest.mark.parametrize("name", [each.name for each in fields(Ports)])
def test_each_taken_port_is_told(taken: int, name: str) -> None:
    with pytest.raises(
        CannotStart, match=rf"^{name} port {taken} is taken: set {VARIABLES[name]}$"
    ):
        check_ports(replace(find_free_ports(), **{name: taken}), list(VARIABLES))


def test_a_fhir_server_of_ones_own_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FHIR_URL", "https://fhir.example.org/r4")
    monkeypatch.setenv("FHIR_SCOPE", "https://fhir.example.org/.default")
    with run_services(find_free_ports(), tmp_path, parts=["fhir"]) as running:
        assert running.parts == {}
        assert running.settings()["FHIR_URL"] == "https://fhir.example.org/r4"
        assert running.settings()["FHIR_SCOPE"] == "https://fhir.example.org/.default"


def test_the_settings_point_at_the_ports() -> None:
    settings = Running(Ports(blob=1, queue=2, table=3, fhir=4, dataverse=5)).settings()
    assert "QueueEndpoint=http://127.0.0.1:2/devstoreaccount1;" in settings["AzureWebJobsStorage"]
    assert settings["FHIR_URL"] == "http://127.0.0.1:4/fhir"
    assert settings["DATAVERSE_URL"] == "http://127.0.0.1:5"
    assert (settings["FHIR_SCOPE"], settings["DATAVERSE_SCOPE"]) == ("none", "none")


def test_ports_come_from_the_environment() -> None:
    assert read_ports({"FHIR_PORT": "9", "HOST_PORT": ""}) == Ports(fhir=9)
    with pytest.raises(CannotStart, match="set DATAVERSE_PORT to a port number"):
        read_ports({"DATAVERSE_PORT": "many"})


def test_free_ports_are_all_different() -> None:
    assert len(set(astuple(find_free_ports()))) == 6


def test_a_part_that_ends_early_is_told_with_its_last_words(tmp_path: Path) -> None:
    child = Child(script("raise SystemExit('no clock here')", tmp_path))
    with pytest.raises(CannotStart, match=r"clock ended before(.|\n)*no clock here"):
        child.start()
    assert not child.running


def test_a_part_that_never_answers_is_given_up(tmp_path: Path) -> None:
    part = script("import time; print('up', flush=True); time.sleep(60)", tmp_path)
    child = Child(replace(part, patience=0.5))
    with pytest.raises(CannotStart, match="clock did not answer"):
        child.start()
    assert not child.running


@pytest.mark.parametrize("end", [Child.stop, Child.kill])
def test_a_part_is_ended_with_its_own_children(
    end: Callable[[Child], None], tmp_path: Path
) -> None:
    child = Child(nested(tmp_path))
    child.start()
    port = httpx.URL(child.url).port
    assert port
    end(child)
    until(lambda: is_free(port))


# A run of pytest in small: a session's fixture that starts a service, and a test that takes long.
RUN = """
import time, pytest
from pathlib import Path
from local.processes import Child, Part

@pytest.fixture(scope="session")
def service():
    command, address, log = {part!r}
    with Child(Part("nest", command, {{}}, (address,), Path(log))) as child:
        child.start()
        yield child

def test_something_long(service):
    Path({ready!r}).touch()
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("number", "workers"),
    [
        pytest.param(signal.SIGTERM, [], id="SIGTERM"),
        pytest.param(signal.SIGKILL, [], id="SIGKILL"),
        # xdist gives the test of a worker whose parent has died some seconds to end.
        pytest.param(signal.SIGKILL, ["-n1"], id="SIGKILL, in a worker", marks=pytest.mark.slow),
    ],
)
def test_services_end_with_the_run_of_tests_that_started_them(
    number: signal.Signals, workers: list[str], tmp_path: Path
) -> None:
    part, ready = nested(tmp_path), tmp_path / "ready"
    text = RUN.format(part=(part.command, part.ready[0], str(part.log)), ready=str(ready))
    (tmp_path / "test_run.py").write_text(text, "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *workers]
    port = httpx.URL(part.ready[0]).port
    assert port
    with subprocess.Popen(
        [*command, "--rootdir", str(tmp_path), str(tmp_path / "test_run.py")],
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as run:
        until(ready.exists)
        assert not is_free(port)
        run.send_signal(number)
    until(lambda: is_free(port))


@needs("azurite")
def test_the_clock_of_storage_can_be_ahead(tmp_path: Path) -> None:
    with (
        run_services(find_free_ports(), tmp_path, parts=("storage",), storage_clock=60) as running,
        BlobServiceClient.from_connection_string(running.storage) as blobs,
    ):
        container = blobs.create_container("clock")
        ahead = container.get_container_properties().last_modified - datetime.now(UTC)
    assert timedelta(seconds=30) < ahead < timedelta(seconds=61)
