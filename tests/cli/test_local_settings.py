"""`--local`: commands use the settings of what `make start` runs, in place of the environment's."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.app.settings import read_settings
from integration.cli import local_settings
from integration.cli.local_settings import use_local_settings
from integration.cli.main import main
from integration.core.errors import Misconfigured
from local.processes import PROJECT
from local.services import Running, find_free_ports
from local.settings_file import collect_settings, keep_settings_file

SETTINGS = Running(find_free_ports()).settings()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file, and an environment that the test may change."""
    path = tmp_path / ".local" / "settings.json"
    monkeypatch.setattr(local_settings, "FILE", path)
    before = dict(os.environ)
    yield path
    os.environ.clear()
    os.environ.update(before)


def test_the_file_has_the_settings_as_long_as_the_services_run(file: Path) -> None:
    with keep_settings_file(file, SETTINGS):
        values = json.loads(file.read_text("utf-8"))["Values"]
        assert values["FHIR_URL"] == SETTINGS["FHIR_URL"]
        # It may hold keys, so nobody else may read it.
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not file.exists()


def test_the_file_names_every_setting_so_that_no_other_gets_through(file: Path) -> None:
    sample = json.loads((PROJECT / "local.settings.sample.json").read_text("utf-8"))["Values"]
    values = collect_settings(SETTINGS, {"MAP_PREFIX": "abc", "HOME": "/home/x"})
    assert {*sample, "FEED_URL", "FEED_KEY"} <= values.keys()
    assert (values["MAP_PREFIX"], values["SENDER_HEADER"]) == ("abc", "")
    assert "HOME" not in values


def test_settings_of_the_environment_give_way(file: Path) -> None:
    env = {
        "FHIR_URL": "https://production.example.org",
        "AZURE_CLIENT_ID": "5f1c2f0e-7a4b-4c0e-9d55-0a1b2c3d4e77",
        "AzureWebJobsStorage__accountName": "production",
        "PATH": "/bin",
    }
    with keep_settings_file(file, SETTINGS):
        use_local_settings(file, env)
    settings = read_settings(env)
    assert settings.fhir.url == SETTINGS["FHIR_URL"]
    assert settings.client_id is None
    assert settings.storage.connection == SETTINGS["AzureWebJobsStorage"]
    assert "AzureWebJobsStorage__accountName" not in env
    assert env["PATH"] == "/bin"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Values": 1}'])
def test_a_file_that_cannot_be_read_is_named(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text, "utf-8")
    with pytest.raises(Misconfigured, match=r"settings\.json cannot be read: stop `make start`"):
        use_local_settings(file, {})


@pytest.mark.parametrize("command", [["check"], ["provision"], ["reconcile"], ["map", "x.json"]])
@pytest.mark.usefixtures("file")
def test_without_the_services_a_command_says_how_to_start_them(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--local"]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("--local needs the local services: run `make start` in another terminal")


def test_a_command_uses_the_settings_of_the_file(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patient = tmp_path / "patient.json"
    patient.write_text(
        '{"resourceType": "Patient", "id": "p1", "name": [{"family": "A"}]}', "utf-8"
    )
    os.environ["MAP_SET"] = "healthcare"
    with keep_settings_file(file, {**SETTINGS, "MAP_SET": "plain", "MAP_PREFIX": "abc"}):
        assert main(["map", str(patient), "--local"]) == 0
    assert '  abc_fhirid = "p1"' in capsys.readouterr().out.splitlines()
