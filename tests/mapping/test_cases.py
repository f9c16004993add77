"""Cases that anyone can add: a resource, and the row that shows it. One file in cases/ for a theme.

`expect` names every column that is filled, but for what each row of the map has in common;
`expectNotes` what is noted, without the path; `expectError` why there is no row at all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from integration.errors import Unmappable
from integration.mapping import engine
from integration.mapping.load import shipped
from integration.model import Column

FOLDER = Path(__file__).parent / "cases"
TABLES = Path(__file__).parent.parent.parent / "local/dataverse/tables"

Case = dict[str, Any]

FILES = [json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))]
CASES: list[tuple[str, Case]] = [(file["map"], case) for file in FILES for case in file["tests"]]
IDS = [f"{file['title']}: {case['title']}" for file in FILES for case in file["tests"]]

# What every row of a map shows, so that no case need repeat it.
COMMON: dict[str, dict[str, Any]] = {"Patient": {"msemr_contacttype": 935000000, "statecode": 0}}


def columns_of(table: str) -> dict[str, Column]:
    """The columns of a table as a tenant's metadata would tell them."""
    data = json.loads((TABLES / f"{table}.json").read_text("utf-8"))["columns"]
    return {
        name: Column(
            name,
            column["type"],
            column.get("maxLength"),
            frozenset(option["value"] for option in column.get("options", ())) or None,
        )
        for name, column in data.items()
    }


COLUMNS = {entity.table: columns_of(entity.table) for entity in shipped().values()}


@pytest.mark.parametrize(("map_", "case"), CASES, ids=IDS)
def test_a_resource_becomes_its_row(map_: str, case: Case) -> None:
    entity, resource = shipped()[map_], case["resource"]
    if "expectError" in case:
        with pytest.raises(Unmappable, match=case["expectError"]):
            engine.apply(entity, resource, COLUMNS[entity.table])
        return
    mapped = engine.apply(entity, resource, COLUMNS[entity.table])
    filled = {name: value for name, value in mapped.columns.items() if value is not None}
    common = {**COMMON[map_], entity.id_column: resource["id"]}
    assert filled == {**common, **case["expect"]}
    assert [note.partition(" @ ")[0] for note in mapped.notes] == case.get("expectNotes", [])


@pytest.mark.parametrize(("map_", "case"), CASES, ids=IDS)
def test_a_row_names_every_column_of_its_map_so_that_old_values_are_cleared(
    map_: str, case: Case
) -> None:
    entity = shipped()[map_]
    if "expectError" not in case:
        mapped = engine.apply(entity, case["resource"], COLUMNS[entity.table])
        assert {entity.key, *mapped.columns} == set(entity.columns)


def test_every_case_has_a_title_of_its_own_and_only_words_that_are_known() -> None:
    assert len(IDS) == len(set(IDS))
    for file in FILES:
        assert file.keys() == {"title", "map", "tests"}
    for _, case in CASES:
        assert case.keys() <= {"title", "resource", "expect", "expectNotes", "expectError"}
        assert ("expect" in case) != ("expectError" in case)


def test_the_cases_fill_every_column_of_the_patient_map() -> None:
    filled = {name for _, case in CASES for name in case.get("expect", {})}
    mapped = {attribute.column for attribute in shipped()["Patient"].attributes}
    # The second and third address follow the rules of the first, part for part.
    others = {name for name in mapped if name.startswith(("address2_", "address3_"))}
    assert mapped - others - set(COMMON["Patient"]) <= filled
