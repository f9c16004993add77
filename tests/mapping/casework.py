"""What cases say of a map: a resource and the rows that show it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import pytest

from integration.core.errors import Unmappable
from integration.core.model import Row, Tables
from integration.mapping import engine
from integration.mapping.model import AttributeMap, Concept, EntityMap, Kind, Lookup
from tests.builders import TODAY

Case = dict[str, Any]
Rows = list[Row]

# How a note of what a row needs ends. Most cases have no name, for brevity: those that say so expect
# the note.
MISSING = "none that the row could show"

FILE_KEYS = {"title", "set", "map", "enabled", "about", "tests"}
CASE_KEYS = {
    "title",
    "base",
    "resource",
    "expect",
    "expectChildren",
    "expectCount",
    "expectNotes",
    "expectError",
}


def map_bare_resource(
    map_: EntityMap, resource: Mapping[str, Any], tables: Tables
) -> dict[str, Any]:
    """What every row of a map shows, so that no case need repeat it."""
    bare = {"resourceType": resource["resourceType"], "id": resource["id"]}
    return drop_empty(engine.map_resource(map_, bare, tables, today=TODAY).values)


def drop_empty(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that hold something, lookups and concepts as a case writes them."""
    return {name: _as_json(value) for name, value in columns.items() if value is not None}


def _as_json(value: Any) -> Any:
    match value:
        case Lookup():
            return {"link": value.resource}
        case Concept():
            return {
                "concept": value.type,
                "code": value.code,
                "name": value.name,
                "text": value.text,
            }
    return value


def is_selected(file: Case, name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in file.get("about", ["*"]))


def select_columns(file: Case, columns: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in columns.items() if is_selected(file, name)}


def check_rows(file: Case, case: Case, map_: EntityMap, tables: Tables) -> None:
    """The rows of the case's resource are those that it expects."""
    resource, base = case["resource"], case.get("base")
    if "expectError" in case:
        with pytest.raises(Unmappable, match=case["expectError"]):
            engine.map_resource(map_, resource, tables, base, today=TODAY)
        return
    mapped = engine.map_resource(map_, resource, tables, base, today=TODAY)
    shown, expected = (
        drop_empty(mapped.values),
        {**map_bare_resource(map_, resource, tables), **case["expect"]},
    )
    assert select_columns(file, shown) == select_columns(file, expected)
    assert case["expect"].items() <= shown.items()
    notes = [note.partition(" @ ")[0] for note in mapped.notes]
    subjects = [note for note in notes if is_selected(file, note.partition(":")[0])]
    wanted = case.get("expectNotes", [])
    assert [note for note in subjects if note in wanted or not note.endswith(MISSING)] == wanted
    children: dict[str, Rows] = {expand.table: [] for expand in map_.expands}
    for child in mapped.children:
        children[child.expand_map.table].append(drop_empty(child.values))
    for table, rows in case.get("expectChildren", {}).items():
        assert children[table] == rows
    for table, count in case.get("expectCount", {}).items():
        assert len(children[table]) == count


def check_keys(files: Iterable[Case]) -> None:
    """Every case has a title of its own and only words that are known."""
    files = list(files)
    titles = [format_title(file, case) for file in files for case in file["tests"]]
    assert len(titles) == len(set(titles))
    assert [file["title"] for file in files if not file.keys() <= FILE_KEYS] == []
    for case in (case for file in files for case in file["tests"]):
        assert case.keys() <= CASE_KEYS, case["title"]
        assert ("expect" in case) != ("expectError" in case), case["title"]


def format_title(file: Case, case: Case) -> str:
    return f"{file['title']}: {case['title']}"


# -- what the cases of a map cover -----------------------------------------------------------------


def collect_expected_rows(entity: EntityMap, files: Iterable[Case]) -> dict[str, Rows]:
    """What cases expect of a map, by table."""
    expected: dict[str, Rows] = {table: [] for table in entity.tables}
    for case in (case for file in files for case in file["tests"]):
        expected[entity.table].append(case.get("expect", {}))
        for table, rows in case.get("expectChildren", {}).items():
            expected[table] += rows
    return expected


def check_columns(entity: EntityMap, expected: Mapping[str, Rows]) -> None:
    """The cases fill every column of the map."""
    for table, attributes in _list_blocks(entity):
        named = {name for row in expected[table] for name in row}
        # What is the same in every row needs no case: a constant, and which map has made it.
        mapped = {
            attribute.column
            for attribute in attributes
            if attribute.kind not in (Kind.DEFAULT, Kind.MAP)
        }
        assert mapped - named == set(), table


def check_options(entity: EntityMap, expected: Mapping[str, Rows]) -> None:
    """The cases show every option that the map knows. The columns that share their choices, such as
    three telephones, share their cases."""
    for table, attributes in _list_blocks(entity):
        options_by_choices: dict[str, set[int]] = {}
        seen: dict[str, set[Any]] = {}
        for attribute in attributes:
            if attribute.kind is Kind.CHOICE:
                same = json.dumps(attribute.choices, sort_keys=True)
                options_by_choices[same] = {options[0] for options in attribute.choices.values()}
                seen.setdefault(same, {attribute.default}).update(
                    row.get(attribute.column) for row in expected[table]
                )
        for same, options in options_by_choices.items():
            assert options - seen[same] == set(), f"{table}: {same}"


def _list_blocks(entity: EntityMap) -> Iterator[tuple[str, tuple[AttributeMap, ...]]]:
    yield entity.table, entity.attributes
    for expand in entity.expands:
        yield expand.table, expand.attributes
