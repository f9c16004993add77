"""The command `config`, as an admin types it: against real storage, and a stand-in of Dataverse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from integration.cli.config_command import name_document
from integration.cli.main import main
from integration.mapping.files import MAPS_FOLDER
from local.processes import PROJECT
from local.services import Running, find_free_ports, run_services
from local.storage_setup import create_storage
from tests.builders import patient

PATIENT = (MAPS_FOLDER / "healthcare" / "patient.toml").read_text("utf-8")
COLUMN = '\n[[attribute]]\ncolumn = "department"\npath = "id"\n'

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    if not (PROJECT / "local/node_modules/azurite").is_dir():
        pytest.skip("azurite is not installed: npm ci --prefix local")
    with run_services(find_free_ports(), tmp_path_factory.mktemp("config")) as found:
        asyncio.run(create_storage(found))
        yield found


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, running: Running, capsys: pytest.CaptureFixture[str]
) -> Run:
    for name, value in running.settings().items():
        monkeypatch.setenv(name, value)

    def run_command(*arguments: str | Path) -> tuple[int, str]:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return status, capsys.readouterr().out

    return run_command


def test_a_file_is_named_as_its_document() -> None:
    assert name_document(Path("work/patient.toml")) == "maps/patient.toml"
    assert name_document(Path("senders.toml")) == "senders.toml"
    assert name_document(Path("x/data-routes.toml")) == "data-routes.toml"


@pytest.mark.azurite
def test_a_map_is_tried_published_and_taken_back(
    run: Run, running: Running, tmp_path: Path
) -> None:
    for number in range(3):
        made = httpx.put(f"{running.fhir_url}/Patient/p{number}", json=patient(id=f"p{number}"))
        assert made.status_code == 201
    assert run("reconcile", "--all", "--type", "Patient")[0] == 0
    file = tmp_path / "patient.toml"
    file.write_text(PATIENT + COLUMN, "utf-8")

    status, told = run("config", "history")
    assert (status, told) == (
        0,
        "nothing was published: the files of the package are in use (version 0)\n",
    )
    status, told = run("config", "diff", file)
    assert status == 0
    assert '+column = "department"' in told
    status, told = run("config", "preview", file)
    assert status == 0
    assert "Patient: 3 of 3 rows would change" in told
    assert "3  department" in told
    status, told = run("config", "publish", file, "--why", "the ward", "--by", "anna")
    assert status == 0
    assert told.startswith("version 1 is published; every worker works by it within 15 seconds")
    assert run("reconcile", "--all", "--type", "Patient")[0] == 0
    rows = httpx.get(f"{running.dataverse_url}/api/data/v9.2/contacts").json()["value"]
    assert {row["department"] for row in rows} == {"p0", "p1", "p2"}

    file.write_text(PATIENT + COLUMN.replace("department", "abc_missing"), "utf-8")
    status, told = run("config", "publish", file, "--why", "x")
    assert status == 2
    assert "contact has no column abc_missing" in told
    status, told = run("config", "preview", file)
    assert status == 1

    status, told = run("config", "rollback", "0", "--why", "no", "--by", "ben")
    assert status == 0
    assert told.startswith("version 2 is published")
    status, told = run("config", "history", "--documents")
    assert [line for line in told.splitlines() if line.startswith("version")] == [
        line for line in told.splitlines() if ", ben, version 0 again" in line or ", anna" in line
    ]
    assert told.count("    maps/patient.toml") == 2
    assert run("config", "diff") == (0, "nothing differs\n")
    status, told = run("config", "diff", "--since", "1")
    assert '-column = "department"' in told
    assert run("config", "rollback", "9", "--why", "x") == (2, "there is no version 9\n")
    status, told = run("config", "publish", "--why", "x")
    assert status == 2
    assert "name the files" in told


@pytest.mark.azurite
def test_what_the_settings_need_is_not_left_out_and_a_broken_version_can_be_left(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A map whose table's events are sent is needed. Whoever adds the setting later has a version
    that no part of the app can be built with: it can still be taken back."""
    leave_out = ("--remove", "maps/goal.toml")
    monkeypatch.setenv("MAP_PREFIX", "new")
    monkeypatch.setenv("EXTERNAL_EVENTS", "Goal")
    status, told = run("config", "publish", *leave_out, "--why", "no goals")
    assert status == 2
    assert "EXTERNAL_EVENTS: there is no virtual table of Goal" in told

    monkeypatch.setenv("EXTERNAL_EVENTS", "")
    status, told = run("config", "publish", *leave_out, "--why", "no goals")
    assert status == 0, told
    number = int(told.split()[1])
    monkeypatch.setenv("EXTERNAL_EVENTS", "Goal")
    assert run("config", "preview", *leave_out)[0] == 2
    status, told = run("config", "history")
    assert (status, f"version {number}" in told) == (0, True), told
    status, told = run("config", "rollback", str(number - 1), "--why", "they are needed")
    assert status == 0, told
