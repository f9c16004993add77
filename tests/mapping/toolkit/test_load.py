"""Rows are read from what people export, and nothing is written over."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from integration.cli import toolkit_command
from integration.core.errors import Misconfigured, Unavailable
from integration.mapping.load import load_maps
from integration.mapping.toolkit import load
from integration.mapping.toolkit.rows import (
    NewerColumns,
    Toolkit,
    parse_newer_columns,
    read_toolkit,
)
from tests.mapping.toolkit.organisation import ATTRIBUTE_MAP, ENTITY_MAP, LATER, key, whole

COLUMNS = [f"--column={name}={getattr(LATER, name)}" for name in NewerColumns.__slots__]


def run(*arguments: str) -> tuple[int, list[str]]:
    parser = argparse.ArgumentParser()
    toolkit_command.add_options(parser)
    said: list[str] = []
    return toolkit_command.run(parser.parse_args(arguments), said.append, _organisation), said


async def _organisation(named: NewerColumns) -> Toolkit:
    if named == NewerColumns():
        raise Unavailable("Dataverse", "did not answer in time")
    return read_toolkit(whole(), named)


@pytest.fixture
def export(tmp_path: Path) -> Path:
    path = tmp_path / "export.json"
    path.write_text(json.dumps(whole()), "utf-8")
    return path


# -- reading -------------------------------------------------------------------------------------


def test_one_file_may_hold_all_tables(export: Path) -> None:
    assert load.read_rows(export) == whole()


def test_a_file_may_hold_collections_of_the_web_api(tmp_path: Path) -> None:
    path = tmp_path / "export.json"
    path.write_text(json.dumps({name: {"value": rows} for name, rows in whole().items()}))
    assert load.read_rows(path) == whole()


def test_a_folder_has_a_file_for_each_table_by_any_name(tmp_path: Path) -> None:
    for number, rows in enumerate(whole().values()):
        text = json.dumps({"@odata.context": "…", "value": rows})
        (tmp_path / f"page {number}.json").write_text("\ufeff" + text, "utf-8")
    assert load.read_rows(tmp_path) == whole()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "JSON that ends too early"),
        ("[]", "not an object with tables"),
        ('{"value": 1}', "value is not a list of rows"),
        ('{"value": [1]}', "value is not a list of rows"),
        ("{}", "there are no rows"),
        ('{"value": [{"contactid": "1"}]}', "there are no rows"),
    ],
)
def test_what_is_no_export_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "export.json").write_text(text)
    with pytest.raises(Misconfigured, match=why):
        load.read_rows(tmp_path / "export.json")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"gone\.json: No such file"):
        load.read_rows(tmp_path / "gone.json")


def test_entity_maps_alone_are_not_enough() -> None:
    with pytest.raises(Misconfigured, match=ATTRIBUTE_MAP):
        read_toolkit({ENTITY_MAP: whole()[ENTITY_MAP]})


def test_a_row_without_its_key_is_refused() -> None:
    rows = whole()
    del rows[ENTITY_MAP][0][f"{ENTITY_MAP}id"]
    with pytest.raises(Misconfigured, match=f"a row of {ENTITY_MAP} has no {ENTITY_MAP}id"):
        read_toolkit(rows)


def test_keys_are_compared_whatever_their_spelling() -> None:
    rows = whole()
    for row in rows[ATTRIBUTE_MAP]:
        owner = row.pop("_msind_updateserviceentitymap_value")
        row["msind_updateserviceentitymap"] = "{" + owner.upper() + "}"
    assert read_toolkit(rows, LATER).entities == read_toolkit(whole(), LATER).entities


def test_rows_of_no_map_are_told_of() -> None:
    rows = whole()
    rows[ATTRIBUTE_MAP][0]["_msind_updateserviceentitymap_value"] = key("gone")
    assert read_toolkit(rows).notes == ("1 attribute maps belong to an entity map that is missing",)


@pytest.mark.parametrize("given", ["expand", "expand=", "other=msind_x"])
def test_a_column_is_named_by_one_of_four_words(given: str) -> None:
    with pytest.raises(Misconfigured, match="--column takes expand=…, parent_link=…"):
        parse_newer_columns([given])


# -- writing -------------------------------------------------------------------------------------


def test_the_command_writes_maps_that_the_relay_reads(export: Path, tmp_path: Path) -> None:
    folder = tmp_path / "maps"
    status, said = run(str(export), "--to", str(folder), *COLUMNS)
    # A lost map is a reason to look.
    assert status == 1
    assert {path.name for path in folder.iterdir()} == {
        "patient.toml", "practitioner.toml", "report.md",
    }  # fmt: skip
    ours = load_maps("healthcare", own_folder=folder)
    assert "Patient" not in ours.broken
    assert len(ours.entities["Patient"].expands) == 1
    assert "Practitioner" not in ours.entities
    assert any("contact.fax" in line for line in said)


def test_the_command_is_content_when_nothing_in_use_is_lost(export: Path, tmp_path: Path) -> None:
    rows = whole()
    rows[ENTITY_MAP] = rows[ENTITY_MAP][:3]
    rows[ATTRIBUTE_MAP] = [row for row in rows[ATTRIBUTE_MAP]
                           if row["msind_cdsattributename"] not in ("fax", "new_name")]  # fmt: skip
    export.write_text(json.dumps(rows))
    assert run(str(export), "--to", str(tmp_path / "maps"), *COLUMNS)[0] == 0


def test_nothing_is_written_over(export: Path, tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("mine")
    status, said = run(str(export), "--to", str(tmp_path))
    assert (status, said) == (2, ["report.md already exists: name another folder with --to"])
    assert (tmp_path / "report.md").read_text() == "mine"
    assert not (tmp_path / "patient.toml").exists()


def test_an_error_is_one_line(tmp_path: Path) -> None:
    status, said = run(str(tmp_path / "gone.json"), "--to", str(tmp_path))
    assert (status, len(said)) == (2, 1)


def test_where_nothing_can_be_carried_over_only_the_report_is_written(
    export: Path, tmp_path: Path
) -> None:
    rows = whole()
    rows[ENTITY_MAP] = rows[ENTITY_MAP][3:]
    export.write_text(json.dumps(rows))
    status, _ = run(str(export), "--to", str(tmp_path / "maps"))
    assert status == 2
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["report.md"]


def test_the_organisation_itself_may_be_the_source(export: Path, tmp_path: Path) -> None:
    assert run("--tenant", "--to", str(tmp_path / "its"), *COLUMNS)[0] == 1
    assert run(str(export), "--to", str(tmp_path / "file"), *COLUMNS)[0] == 1
    for path in (tmp_path / "its").iterdir():
        assert path.read_text() == (tmp_path / "file" / path.name).read_text()


def test_an_organisation_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    status, said = run("--tenant", "--to", str(tmp_path))
    assert (status, said) == (2, ["Dataverse: did not answer in time"])
