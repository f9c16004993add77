"""Cases that anyone can add: a resource, and the rows that show it. One file in cases/ for a theme.

`set` (healthcare unless it says plain), `map` and `enabled` say which map; the publisher's prefix is
`new`. `expect` names every column that is filled, but for what each row of the map has in common;
with `about`, patterns of columns, every one among those alone. `expectChildren` names the rows of
child tables, `expectCount` only how many; `expectNotes` what is noted, without the path;
`expectError` why there is no row at all.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from integration.mapping import engine, load
from integration.mapping.model import Absent, EntityMap
from tests.builders import TODAY
from tests.mapping import casework
from tests.mapping.casework import Case
from tests.mapping.tenant import PREFIX, load_all_columns

FOLDER = Path(__file__).parent / "cases"

FILES = [json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))]
CASES: list[tuple[Case, Case]] = [(file, case) for file in FILES for case in file["tests"]]
IDS = [casework.format_title(file, case) for file, case in CASES]


@cache
def load_entity(set_: str, resource: str, enabled: tuple[str, ...]) -> EntityMap:
    found = load.load_maps(set_, PREFIX, None, enabled)
    assert found.broken == {}
    return found.entities[resource]


def load_entity_of(file: Case) -> EntityMap:
    return load_entity(file.get("set", "healthcare"), file["map"], tuple(file.get("enabled", ())))


@pytest.mark.parametrize(("file", "case"), CASES, ids=IDS)
def test_a_resource_becomes_its_rows(file: Case, case: Case) -> None:
    casework.check_rows(file, case, load_entity_of(file), load_all_columns())


@pytest.mark.parametrize(("file", "case"), CASES, ids=IDS)
def test_a_row_names_every_column_of_its_map_so_that_old_values_are_cleared(
    file: Case, case: Case
) -> None:
    map_ = load_entity_of(file)
    if "expectError" not in case:
        mapped = engine.map_resource(
            map_, case["resource"], load_all_columns(), case.get("base"), today=TODAY
        )
        kept = {item.column for item in map_.attributes if item.absent is Absent.KEEP}
        assert {map_.key, *mapped.values} | kept == set(map_.columns)
        for child in mapped.children:
            assert set(child.values) == {
                attribute.column for attribute in child.expand_map.attributes
            }


def test_every_case_has_a_title_of_its_own_and_only_words_that_are_known() -> None:
    casework.check_keys(FILES)
