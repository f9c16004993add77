"""Commands that need only Dataverse: asked over HTTP, with no storage and no FHIR server at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.cli.main import main
from local.processes import PROJECT
from local.services import find_free_ports, run_services

PATIENT = {
    "resourceType": "Patient",
    "id": "p1",
    "name": [{"family": "Sampleton"}],
    "birthDate": "1980-05-06",
}
ADDITION = 'adds_to = "Patient"\n\n[[attribute]]\ncolumn = "contoso_eyes"\npath = "gender"\n'

NAMES = [
    *("AzureWebJobsStorage", "FHIR_URL", "DATAVERSE_URL", "DATAVERSE_SCOPE"),
    *("MAP_SET", "MAP_PREFIX", "MAPS", "MAPS_ENABLED"),
]


@pytest.fixture(scope="module")
def dataverse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("dataverse")
    with run_services(find_free_ports(), folder, parts=("dataverse",)) as running:
        yield running.dataverse_url


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that says nothing of any service."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def tenant(env: pytest.MonkeyPatch, dataverse: str) -> pytest.MonkeyPatch:
    env.setenv("DATAVERSE_URL", dataverse)
    env.setenv("DATAVERSE_SCOPE", "none")
    return env


@pytest.fixture
def file(tmp_path: Path) -> str:
    return written(tmp_path, PATIENT)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of own maps that name a column which the organisation has not."""
    folder = tmp_path / "maps"
    folder.mkdir()
    (folder / "eyes.toml").write_text(ADDITION, "utf-8")
    return folder


def written(folder: Path, data: Any) -> str:
    path = folder / "patient.json"
    path.write_text(json.dumps(data), "utf-8")
    return str(path)


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


# --- map ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("env")
def test_rows_are_shown_without_any_service(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", file]) == 0
    assert "contact: Patient by patient.toml" in told(capsys)


@pytest.mark.usefixtures("tenant")
def test_rows_are_shown_as_the_organisation_takes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    too_long = written(tmp_path, PATIENT | {"name": [{"family": "S" * 300}]})
    assert main(["map", too_long]) == 0
    assert not [line for line in told(capsys) if line.startswith("note: ")]
    assert main(["map", too_long, "--check"]) == 1
    assert any(line.startswith("note: lastname: ") for line in told(capsys))


@pytest.mark.usefixtures("tenant")
def test_maps_that_agree_with_the_organisation_are_silent(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["map", file, "--check"]) == 0
    assert not [line for line in told(capsys) if line.startswith(("mismatch", "broken", "note"))]


@pytest.mark.usefixtures("tenant")
def test_a_column_that_the_organisation_lacks_is_told_with_its_line(
    file: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["map", file, "--maps", str(own), "--check"]) == 1
    assert told(capsys) == ["mismatch: eyes.toml:3: contact has no column contoso_eyes"]
    assert main(["map", file, "--maps", str(own)]) == 0


@pytest.mark.usefixtures("tenant")
def test_a_map_that_does_not_fit_hides_no_other(
    tmp_path: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {"resourceType": "Organization", "id": "o1", "name": "Clinic"}
    both = {"resourceType": "Bundle", "entry": [{"resource": PATIENT}, {"resource": other}]}
    asked = ["--maps", str(own), "--enable", "organization", "--check"]
    assert main(["map", written(tmp_path, both), *asked]) == 1
    mismatch, shown, *_ = told(capsys)
    assert mismatch == "mismatch: eyes.toml:3: contact has no column contoso_eyes"
    assert shown == "account: Organization by organization.toml"


@pytest.mark.usefixtures("env")
def test_without_an_address_of_dataverse_that_is_what_is_asked_for(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for asked in (["map", file, "--check"], ["toolkit", "--tenant", "--to", str(tmp_path / "to")]):
        assert main(asked) == 2
        assert told(capsys) == ["set DATAVERSE_URL (see local.settings.sample.json)"]


def test_an_organisation_that_does_not_answer_is_told(
    env: pytest.MonkeyPatch, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    env.setenv("DATAVERSE_URL", f"http://127.0.0.1:{find_free_ports().dataverse}")
    env.setenv("DATAVERSE_SCOPE", "none")
    assert main(["map", file, "--check"]) == 2
    assert told(capsys) == ["Dataverse: connection failed (ConnectError)"]


def test_the_maps_that_are_shown_are_those_of_the_settings(
    env: pytest.MonkeyPatch, tmp_path: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env.setenv("MAP_SET", "plain")
    env.setenv("MAP_PREFIX", "contoso")
    env.setenv("MAPS", str(own))
    env.setenv("MAPS_ENABLED", "practitioner")
    doctor = {"resourceType": "Practitioner", "id": "d1", "name": [{"family": "Placeholder"}]}
    main(["map", written(tmp_path, doctor)])
    shown = told(capsys)
    assert shown[:2] == ["contact: Practitioner by practitioner.toml", '  contoso_fhirid = "d1"']
    main(["map", written(tmp_path, PATIENT | {"gender": "female"})])
    assert any("contoso_eyes" in line for line in told(capsys))
    asked = ["--set", "healthcare", "--enable", "us_core", "--maps", str(tmp_path)]
    assert main(["map", written(tmp_path, doctor), *asked]) == 2  # as options say, and no setting


def test_own_maps_are_found_beside_the_app(
    env: pytest.MonkeyPatch, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    env.chdir(Path(file).parent)
    env.setenv("MAPS", "integration/mapping/maps/plain")
    env.setenv("MAP_PREFIX", "new")
    assert (PROJECT / "integration/mapping/maps/plain").is_dir()
    main(["map", file])
    assert '  new_fhirid = "p1"' in told(capsys)


@pytest.mark.usefixtures("tenant")
def test_a_check_takes_no_prefix_for_granted(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The app would not either."""
    assert main(["map", file, "--set", "plain"]) == 0
    capsys.readouterr()
    assert main(["map", file, "--set", "plain", "--check"]) == 2
    assert "{prefix} is not set: set MAP_PREFIX" in told(capsys)[0]


def test_a_setting_of_the_maps_that_is_wrong_is_told(
    env: pytest.MonkeyPatch, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    env.setenv("MAP_SET", "tidy")
    assert main(["map", file]) == 2
    assert told(capsys)[0].startswith("correct MAP_SET (one of healthcare, plain)")


# --- toolkit -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("tenant")
def test_an_organisation_without_the_toolkit_is_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["toolkit", "--tenant", "--to", str(tmp_path / "to")]) == 2
    assert told(capsys)[0].startswith("the organisation has no table msind_")
