"""Cases that anyone can add: a resource, and the rows that show it. One file in cases/ for a theme.

`set` (healthcare unless it says plain), `map` and `enabled` say which map; the publisher's prefix is
`new`. `expect` names every column that is filled, but for what each row of the map has in common;
with `about`, patterns of columns, every one among those alone. `expectChildren` names the rows of
child tables, `expectCount` only how many; `expectNotes` what is noted, without the path;
`expectError` why there is no row at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from integration.errors import Unmappable
from integration.mapping import engine, load
from integration.mapping.model import Concept, EntityMap, Link, Mapped
from tests.mapping.tenant import PREFIX, all_columns

FOLDER = Path(__file__).parent / "cases"

Case = dict[str, Any]

FILES = [json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))]
CASES: list[tuple[Case, Case]] = [(file, case) for file in FILES for case in file["tests"]]
IDS = [f"{file['title']}: {case['title']}" for file, case in CASES]

OF_A_FILE = {"title", "set", "map", "enabled", "about", "tests"}
OF_A_CASE = {
    "title",
    "base",
    "resource",
    "expect",
    "expectChildren",
    "expectCount",
    "expectNotes",
    "expectError",
}


@cache
def entity(set_: str, resource: str, enabled: tuple[str, ...]) -> EntityMap:
    found = load.maps(set_, PREFIX, None, enabled)
    assert found.broken == {}
    return found.entities[resource]


def entity_of(file: Case) -> EntityMap:
    return entity(file.get("set", "healthcare"), file["map"], tuple(file.get("enabled", ())))


def applied(file: Case, case: Case) -> Mapped:
    return engine.apply(entity_of(file), case["resource"], all_columns(), case.get("base"))


def common(map_: EntityMap, resource: Mapping[str, Any]) -> dict[str, Any]:
    """What every row of a map shows, so that no case need repeat it."""
    bare = {"resourceType": resource["resourceType"], "id": resource["id"]}
    return filled(engine.apply(map_, bare, all_columns()).columns)


def filled(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that hold something, lookups and concepts as a case writes them."""
    return {name: _as_json(value) for name, value in columns.items() if value is not None}


def _as_json(value: Any) -> Any:
    match value:
        case Link():
            return {"link": value.resource}
        case Concept():
            return {
                "concept": value.type,
                "code": value.code,
                "name": value.name,
                "text": value.text,
            }
    return value


def is_about(file: Case, name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in file.get("about", ["*"]))


def about(file: Case, columns: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in columns.items() if is_about(file, name)}


@pytest.mark.parametrize(("file", "case"), CASES, ids=IDS)
def test_a_resource_becomes_its_rows(file: Case, case: Case) -> None:
    map_ = entity_of(file)
    if "expectError" in case:
        with pytest.raises(Unmappable, match=case["expectError"]):
            applied(file, case)
        return
    mapped = applied(file, case)
    shown, expected = filled(mapped.columns), {**common(map_, case["resource"]), **case["expect"]}
    assert about(file, shown) == about(file, expected)
    assert case["expect"].items() <= shown.items()
    notes = [note.partition(" @ ")[0] for note in mapped.notes]
    subjects = [note for note in notes if is_about(file, note.partition(":")[0])]
    assert subjects == case.get("expectNotes", [])
    children: dict[str, list[dict[str, Any]]] = {expand.table: [] for expand in map_.expands}
    for child in mapped.children:
        children[child.map.table].append(filled(child.columns))
    for table, rows in case.get("expectChildren", {}).items():
        assert children[table] == rows
    for table, count in case.get("expectCount", {}).items():
        assert len(children[table]) == count


@pytest.mark.parametrize(("file", "case"), CASES, ids=IDS)
def test_a_row_names_every_column_of_its_map_so_that_old_values_are_cleared(
    file: Case, case: Case
) -> None:
    map_ = entity_of(file)
    if "expectError" not in case:
        mapped = applied(file, case)
        assert {map_.key, *mapped.columns} == set(map_.columns)
        for child in mapped.children:
            assert set(child.columns) == {one.column for one in child.map.attributes}


def test_every_case_has_a_title_of_its_own_and_only_words_that_are_known() -> None:
    assert len(IDS) == len(set(IDS))
    assert [file["title"] for file in FILES if not file.keys() <= OF_A_FILE] == []
    for _, case in CASES:
        assert case.keys() <= OF_A_CASE, case["title"]
        assert ("expect" in case) != ("expectError" in case), case["title"]
