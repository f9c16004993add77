"""`python -m integration map`: the rows that a resource would become, and why."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from integration.cli.main import main
from integration.mapping import engine, files, load
from integration.mapping.explain import assume_columns, explain_rows
from integration.mapping.model import Absent
from tests.builders import TODAY

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p-1",
    "name": [{"family": "Sampleton"}],
    "gender": "female",
    "birthDate": "1980-05",
    "identifier": [{"system": "http://hospital.example/mrn", "value": "T-1"}],
    "generalPractitioner": [{"reference": "Practitioner/7"}],
    "communication": [{"language": {"coding": [{"code": "de", "display": "German"}]}}],
}


def write_file(folder: Path, data: Any, name: str = "patient.json") -> str:
    body = json.dumps(data).encode()
    (folder / name).write_bytes(gzip.compress(body) if name.endswith(".gz") else body)
    return str(folder / name)


@pytest.mark.parametrize("set_", ["healthcare", "plain"])
def test_without_a_tenant_every_column_takes_what_its_map_gives(set_: str) -> None:
    found = load.load_maps(set_, "new", None, files.list_map_names(set_))
    for entity in found.entities.values():
        mapped = engine.map_resource(
            entity,
            {"resourceType": entity.resource, "id": "1"},
            assume_columns(entity),
            today=TODAY,
        )
        kept = {item.column for item in entity.attributes if item.absent is Absent.KEEP}
        assert {entity.key, *mapped.values} | kept == set(entity.columns)


def test_each_line_tells_value_kind_path_and_line_of_the_map() -> None:
    entity = load.load_shipped_maps()["Patient"]
    lines = list(
        explain_rows(
            entity, engine.map_resource(entity, PATIENT, assume_columns(entity), today=TODAY)
        )
    )
    assert lines[0] == "contact: Patient by patient.toml"
    (gender,) = [line for line in lines if line.startswith("  gendercode = ")]
    assert gender.startswith("  gendercode = 2    <- choice gender (patient.toml:")
    assert any("the row of Practitioner/7" in line for line in lines)
    assert any("the concept de (German) of type 935000068" in line for line in lines)
    assert any(
        line.startswith("msemr_medicalidentifier: identifier (patient.toml:") for line in lines
    )
    assert any(
        line.startswith("note: birthdate: the date is incomplete @ birthDate") for line in lines
    )
    assert not any(line.startswith("  birthdate = ") for line in lines)


def test_columns_that_are_cleared_are_shown_where_that_is_wanted() -> None:
    entity = load.load_shipped_maps()["Patient"]
    mapped = engine.map_resource(entity, PATIENT, assume_columns(entity), today=TODAY)
    lines = list(explain_rows(entity, mapped, empty=True))
    assert any(line.startswith("  birthdate = -    <- date birthDate (") for line in lines)


def test_a_resource_is_shown_as_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", write_file(tmp_path, PATIENT)]) == 1  # the date is noted
    assert 'lastname = "Sampleton"' in capsys.readouterr().out


def test_a_bundle_is_shown_resource_by_resource(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = {name: PATIENT[name] for name in ("resourceType", "id", "name", "gender")}
    doctor = {"resourceType": "Practitioner", "name": [{"family": "Placeholder"}]}
    bundle = {"resourceType": "Bundle", "entry": [{"resource": whole}, {"resource": doctor}, {}]}
    file = write_file(tmp_path, bundle, "bundle.json.gz")
    assert main(["map", file, "--set", "plain", "--enable", "practitioner"]) == 0
    output = capsys.readouterr().out
    assert "new_fhirid" in output
    assert "contact: Practitioner by practitioner.toml" in output


def test_own_maps_are_tried_and_what_is_broken_in_them_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "group.toml").write_text('resource = "Group"', "utf-8")
    file = write_file(tmp_path, {**PATIENT, "birthDate": "1980-05-06"})
    assert main(["map", file, "--maps", str(tmp_path)]) == 1
    assert "broken: group.toml: row.table is missing" in capsys.readouterr().out


@pytest.mark.parametrize("data", [{"resourceType": "Group", "id": "1"}, [], "text", {"entry": [7]}])
def test_what_no_map_is_for_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: Any
) -> None:
    assert main(["map", write_file(tmp_path, data)]) == 2
    assert "no resource was mapped" in capsys.readouterr().out


def test_a_file_that_is_no_json_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.json").write_text("{", "utf-8")
    assert main(["map", str(tmp_path / "x.json")]) == 2
    assert main(["map", str(tmp_path / "none.json")]) == 2
    assert "x.json: JSON that ends too early" in capsys.readouterr().out


def test_a_map_that_nobody_has_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["map", write_file(tmp_path, PATIENT), "--enable", "nobody"]) == 2
    assert "there is no map nobody" in capsys.readouterr().out
