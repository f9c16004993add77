"""The shipped maps and their cases: no column, and no code of a choice, that no case has shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.mapping import load
from integration.mapping.model import AttributeMap, EntityMap, Kind

CASES = Path(__file__).parent / "cases"
PREFIX = "new"

Rows = list[dict[str, Any]]


def _maps(set_: str) -> Iterator[EntityMap]:
    """Every map of the set, with what other files add to it."""
    files = [path.stem for path in (load.FOLDER / set_).glob("*.toml")]
    found = load.maps(set_, PREFIX, None, files)
    assert found.broken == {}
    yield from found.entities.values()


MAPS = [(set_, entity) for set_ in ("healthcare", "plain") for entity in _maps(set_)]
IDS = [f"{set_}: {entity.resource}" for set_, entity in MAPS]


def _shown(set_: str, entity: EntityMap) -> dict[str, Rows]:
    """What the cases of a map expect, by table."""
    shown: dict[str, Rows] = {table: [] for table in entity.tables}
    for path in sorted(CASES.glob("*.json")):
        file = json.loads(path.read_text("utf-8"))
        if (file.get("set", "healthcare"), file["map"]) != (set_, entity.resource):
            continue
        for case in file["tests"]:
            shown[entity.table].append(case.get("expect", {}))
            for table, rows in case.get("expectChildren", {}).items():
                shown[table] += rows
    return shown


def _blocks(entity: EntityMap) -> Iterator[tuple[str, tuple[AttributeMap, ...]]]:
    yield entity.table, entity.attributes
    for expand in entity.expands:
        yield expand.table, expand.attributes


@pytest.mark.parametrize(("set_", "entity"), MAPS, ids=IDS)
def test_the_cases_fill_every_column_of_every_map(set_: str, entity: EntityMap) -> None:
    shown = _shown(set_, entity)
    for table, attributes in _blocks(entity):
        filled = {name for row in shown[table] for name in row}
        # A constant needs no case: every row has it.
        mapped = {each.column for each in attributes if each.kind is not Kind.DEFAULT}
        assert mapped - filled == set(), table


@pytest.mark.parametrize(("set_", "entity"), MAPS, ids=IDS)
def test_the_cases_show_every_option_that_a_map_knows(set_: str, entity: EntityMap) -> None:
    """The columns that share their choices, such as three telephones, share their cases."""
    shown = _shown(set_, entity)
    for table, attributes in _blocks(entity):
        known: dict[str, set[int]] = {}
        seen: dict[str, set[Any]] = {}
        for each in attributes:
            if each.kind is Kind.CHOICE:
                same = json.dumps(each.choices, sort_keys=True)
                known[same] = {options[0] for options in each.choices.values()}
                seen.setdefault(same, {each.default}).update(
                    row.get(each.column) for row in shown[table]
                )
        for same, options in known.items():
            assert options - seen[same] == set(), f"{table}: {same}"


def test_every_shipped_map_has_cases() -> None:
    for set_, entity in MAPS:
        assert _shown(set_, entity)[entity.table], f"{set_}: {entity.resource}"
